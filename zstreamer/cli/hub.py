"""Models of the hub on the command line: found once, before any process is started for them."""

from __future__ import annotations

from dataclasses import replace

from zstreamer.config import WorkerConfig
from zstreamer.setting import ConfigError
from zstreamer.worker.target import HUB


def found(config: WorkerConfig) -> WorkerConfig:
    """Return the configuration with a model of the hub as the folder of its files.

    Workers then need no network, and do not download it all at once. Other models stay as they are.

    Raises:
        ConfigError: the model is nowhere, no task can use it, or a package is missing.
    """
    if not config.target.startswith(HUB):
        return config
    try:
        import zstreamer.hf  # noqa: F401  # says what is missing
        from zstreamer.hf.card import read
        from zstreamer.hf.source import folder_of
        from zstreamer.hf.tasks import task_of
    except ImportError as error:
        raise ConfigError(str(error)) from error
    given = dict(config.init_kwargs)
    name = config.target.removeprefix(HUB)
    revision = str(given.pop("revision", None) or "") or None
    folder = folder_of(name, revision, config.trust_remote_code)
    task_of(read(folder), config.task)
    given |= {"task": config.task, "trust_remote_code": config.trust_remote_code}
    return replace(
        config,
        target=f"{HUB}{folder}",
        init_kwargs=given,
        task=None,
        trust_remote_code=False,
    )
