"""A model that a program holds as an object, on its way to workers of that program's own."""

from __future__ import annotations

import logging
import operator
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from zstreamer.config import AgentConfig
from zstreamer.local import cuda
from zstreamer.model import Loaded, predict_of
from zstreamer.setting import ConfigError
from zstreamer.worker import target
from zstreamer.worker.forkserver import ForkServer

METHODS = ("spawn", "forkserver", "fork")


class HeldModel:
    """The model, its arguments and its devices, checked.

    Args:
        source: what `Loaded` takes.
        args, kwargs: for ``init_model``.
        cuda_devices: device ids, or None.
        mp_start_method: one of METHODS.

    Raises:
        TypeError: it is no model, or one that cannot be sent to a process.
        RuntimeError: the program starts workers where it is imported for a model.
        ValueError: another argument makes no sense, or CUDA is in use and would not survive a fork.
    """

    def __init__(
        self,
        source: object,
        args: Sequence[object] | None,
        kwargs: dict[str, object] | None,
        cuda_devices: Collection[int | str] | None,
        mp_start_method: str,
    ) -> None:
        if mp_start_method not in METHODS:
            raise ValueError(
                f'mp_start_method must be "spawn", "forkserver" or "fork", not {mp_start_method!r}'
            )
        predict_of(source)
        self._devices = _devices(cuda_devices)
        self._forked = mp_start_method == "fork"
        if self._forked and self._devices and cuda.in_use():
            raise ValueError(
                'mp_start_method="fork" cannot be used with cuda_devices here: this process has '
                "used CUDA already, and CUDA does not survive a fork. Make the Streamer before "
                'anything touches CUDA, or use "spawn"'
            )
        target.refuse_unguarded_main()
        self._source = source
        self._args, self._kwargs = tuple(args or ()), dict(kwargs or {})
        gpu_ids = dict(self._devices)
        self._gpu_ids = gpu_ids
        self._pickled = (
            "" if self._forked else target.freeze(source, self._args, self._kwargs, gpu_ids)
        )

    def config(self, folder: str, **settings: Any) -> AgentConfig:
        """Return what its workers' supervisor is told.

        Args:
            folder: for the socket of a fork server.
            settings: as in `AgentConfig`. Workers also log a line for each batch where this
                program shows lines of that level.

        Raises:
            ValueError: one of them makes no sense.
        """
        if self._forked and settings.get("prepare_workers"):
            raise ValueError(
                'mp_start_method="fork" cannot be used with prepare_workers: they import the model '
                'where a fork has it already. Use "spawn"'
            )
        devices = tuple(name for name, _ in self._devices)
        if logging.getLogger("zstreamer").isEnabledFor(logging.DEBUG):
            settings["log_level"] = "debug"
        try:
            return AgentConfig(
                devices=devices,
                pickled=self._pickled,
                fork_address=f"{folder}/fork" if self._forked else "",
                **settings,
            )
        except ConfigError as error:
            words = str(error).replace("AgentConfig.devices", "cuda_devices")
            raise ValueError(words.replace("AgentConfig.", "")) from None

    def fork_server(self, config: AgentConfig) -> ForkServer | None:
        """Fork the server that its workers ask for models; None where they start otherwise."""
        return ForkServer(config.fork_address, self._load) if self._forked else None

    def _load(self, device: str) -> Loaded:
        gpu_id = self._gpu_ids.get(device) if device else None
        return Loaded(self._source, gpu_id, self._args, self._kwargs)


def _devices(given: Any) -> list[tuple[str, str | int]]:
    """Return the name and the plain value of each device.

    Raises:
        ValueError: they are no device ids.
    """
    words = f"cuda_devices must be a list of device ids, such as [0, 1], not {given!r:.100}"
    if isinstance(given, str | bytes) or not (given is None or isinstance(given, Iterable)):
        raise ValueError(words)
    try:
        plain = [_device(each) for each in (() if given is None else given)]
    except TypeError:
        raise ValueError(words) from None
    return [(str(each), each) for each in plain]


def _device(given: Any) -> str | int:
    if isinstance(given, bool):
        raise TypeError
    return str(given) if isinstance(given, str) else operator.index(given)
