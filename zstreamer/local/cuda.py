"""Whether this process has used CUDA, as CUDA's driver itself tells."""

from __future__ import annotations

import ctypes
import os

DRIVER = "libcuda.so.1"

NOT_INITIALIZED = 3
"""CUDA_ERROR_NOT_INITIALIZED of the driver API."""


def in_use() -> bool:
    """Whether any library of this process has initialized CUDA.

    Then a fork of it can use no device. The driver is asked, not torch: other libraries use CUDA
    too, and to count the devices is enough. It is not loaded for that.
    """
    try:
        driver = ctypes.CDLL(DRIVER, os.RTLD_NOW | os.RTLD_NOLOAD)
    except (OSError, AttributeError):  # not loaded; or a system that has no CUDA
        return False
    count = ctypes.c_int()
    return bool(driver.cuDeviceGetCount(ctypes.byref(count)) != NOT_INITIALIZED)
