"""What HELLO says of a peer, as far as the broker keeps it: each value of its type and bounded.

People and tools read it in the snapshot, msgpack and JSON must hold it, and it is kept for as long
as the peer is connected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from zstreamer.broker.routes import AT
from zstreamer.keys.ring import Principal
from zstreamer.setting import VERSION, VERSION_WORDS
from zstreamer.wire.protocol import TRACES

MAX_WORDS = 255
"""Characters of a host's name, or a tensor's."""

MAX_EXAMPLE = 1000
"""Characters of an item to try, as JSON."""

MAX_TENSORS = 64
MAX_DIMENSIONS = 32
MAX_SIGNATURE = 16 * 1024
"""Characters of all that a model declares of its inputs, or of its outputs."""

MAX_NUMBER = 2**63 - 1

MAX_BATCH = 2**20
"""Items of a worker's batch, or of its pool, beyond which its HELLO is a mistake."""

PATIENCE = 60.0
MOST_PATIENCE = 7 * 24 * 3600.0
"""Seconds that a worker may hold tickets without a word about any, where it does not say."""


NOT_ITS_ID = "the id of this HELLO is in use by another key"

NO_TENANT = (
    "this program names a tenant, and its key does not let it: give the key that tenant, or "
    '`zstreamer keys client NAME --tenant "*"` where it speaks for many, as a gateway does'
)


class Job(NamedTuple):
    """What a worker is here for.

    Attributes:
        model: the name that it serves.
        batch_size: items.
        pool: items beyond two batches that it wants to choose from.
        patience: seconds that it may hold tickets without a word about any.
        version: of the model; empty where it says none.
        max_latency: seconds for which it may be told to hold a batch for more items; 0 for never.
    """

    model: str
    batch_size: int
    pool: int
    patience: float
    version: str = ""
    max_latency: float = 0.0


def job(info: Mapping[str, object], max_name: int) -> Job | str:
    """Return what a worker's HELLO asks for, or what is wrong with it."""
    name, batch, pool = (info.get(key) for key in ("model", "batch_size", "pool"))
    if not (isinstance(name, str) and 0 < len(name) <= max_name):
        return f"a model's name must have 1 to {max_name} characters"
    if type(batch) is not int or type(pool) is not int or not 1 <= batch <= MAX_BATCH > pool >= 0:
        return f"batch_size must be 1 to {MAX_BATCH:,}, and pool no larger"
    patience = info.get("patience")
    if not isinstance(patience, int | float) or not 0 < patience <= MOST_PATIENCE:
        patience = PATIENCE
    version = info.get("version") or ""
    if not isinstance(version, str) or (version and not VERSION.fullmatch(version)):
        return f"a version has {VERSION_WORDS}"
    if version and AT in name:
        return "a model with a version has no @ in its name: MODEL@VERSION is what the broker makes"
    if version and len(name) + 1 + len(version) > max_name:
        return f"a model's name and its version must have {max_name - 1} characters at most"
    longest = info.get("max_latency")
    if not isinstance(longest, int | float) or not 0 < longest <= MOST_PATIENCE:
        longest = 0.0
    return Job(name, batch, pool, float(patience), version, float(longest))


def extensions(info: Mapping[str, object]) -> list[str]:
    """Return which of the extensions that a peer knows are known here."""
    named = info.get("extensions")
    return [TRACES] if isinstance(named, list) and TRACES in named else []


def forbidden(job: Job, principal: Principal | None, others: Iterable[Principal | None]) -> str:
    """Return why a worker's key does not allow what its HELLO asks for; empty where it does.

    Args:
        job: what it asks for.
        principal: whose key it has, None where the broker asks for none.
        others: of those that have its id now, whom it would replace.
    """
    if not all(same_key(other, principal) for other in others):
        return NOT_ITS_ID
    if principal is None or principal.may_serve(job.model):
        return ""
    models = ", ".join(sorted(principal.models))
    return f"the key {principal.name!r} may serve {models}, and not {job.model!r:.100}"


def same_key(one: Principal | None, other: Principal | None) -> bool:
    """Whether two peers have the same key, or both none."""
    return (one and one.key) == (other and other.key)


def kept(info: Mapping[str, object]) -> dict[str, object]:
    """Return what is kept of a peer's info; what is not as it should be is left out."""
    return {key: info[key] for key, good in _KEPT.items() if key in info and good(info[key])}


def words(info: Mapping[str, object]) -> str:
    """Return who a peer is, for a log."""
    return f"host={info.get('host')!r} pid={info.get('pid')}"


def _word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_WORDS


def _number(value: object) -> bool:
    return type(value) is int and abs(value) <= MAX_NUMBER


def _tensors(value: object) -> bool:
    if not isinstance(value, list) or len(value) > MAX_TENSORS or not all(map(_tensor, value)):
        return False
    return len(repr(value)) <= MAX_SIGNATURE


def _tensor(value: object) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"name", "datatype", "shape", "text"}:
        return False
    shape = value.get("shape")
    return (
        _word(value.get("name"))
        and _word(value.get("datatype"))
        and type(value.get("text", True)) is bool
        and isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(map(_number, shape))
    )


_KEPT: dict[str, Callable[[object], bool]] = {
    "host": _word,
    "pid": _number,
    "number": _number,
    "device": _word,
    "release": _word,
    "version": _word,
    "program": _word,
    "server": _word,
    "example": lambda value: isinstance(value, str) and len(value) <= MAX_EXAMPLE,
    "inputs": _tensors,
    "outputs": _tensors,
}
