"""What NVML says of the GPUs that a worker may use; nothing where it or its driver is missing.

It comes with the package `nvidia-ml-py`, which is not required.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any, NamedTuple

log = logging.getLogger(__name__)


class Gpu(NamedTuple):
    """One GPU.

    Attributes:
        name: its number or id, as ``--devices`` has it.
        utilization: share of the last time in which it computed.
        used, memory: bytes.
    """

    name: str
    utilization: float
    used: int
    memory: int


class Gpus:
    """The GPUs of one worker.

    Args:
        device: CUDA_VISIBLE_DEVICES of its model; where empty, all of this machine.
    """

    def __init__(self, device: str) -> None:
        self._nvml: Any = None
        self._handles: list[tuple[str, Any]] = []
        try:
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            names = [each for each in device.split(",") if each]
            names = names or [str(number) for number in range(nvml.nvmlDeviceGetCount())]
            self._handles = [(name, _handle(nvml, name)) for name in names]
            self._nvml = nvml
        except Exception as error:  # noqa: BLE001  # a library of others: no driver, no GPU, …
            log.debug("no figures of GPUs: %s", error)

    def look(self) -> list[Gpu]:
        """Return how they are now."""
        return [gpu for name, handle in self._handles if (gpu := self._one(name, handle))]

    def _one(self, name: str, handle: Any) -> Gpu | None:
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            share = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except Exception as error:  # noqa: BLE001  # as above; a part of a GPU (MIG) has no share
            log.debug("no figures of GPU %s: %s", name, error)
            return None
        return Gpu(name, share, memory.used, memory.total)


def _handle(nvml: Any, name: str) -> Any:
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)
