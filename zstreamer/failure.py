"""What a model's code has raised or returned, as an error that can be sent.

An exception is the user's code too: its ``__str__`` may raise, its text may be no valid Unicode
or show a whole batch. None of that may end the model's process or block its connection.
"""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Iterator

import msgpack

from zstreamer import errors
from zstreamer.errors import BadRequest, FatalError, PredictError, TooLarge, ZStreamerError

MESSAGE = 16 * 1024
TRACEBACK = 32 * 1024
"""Characters that are kept of each: thousands of errors may share one message on the wire."""

WHOLE = 256 * 1024
"""Bytes of one error: four for each of those characters, and something for the rest."""


REFUSALS = (BadRequest, TooLarge)
"""What a model says where the input is to blame: its caller gets the same, raised or returned."""


def raised(error: BaseException) -> ZStreamerError:
    """Return what the caller gets of an exception that was raised for its item alone."""
    return _refusal(error) or failed(error)


def failed(error: BaseException) -> PredictError:
    """Return what the caller gets of an exception that took a batch of several down."""
    return PredictError(message(error), _name(error), trace(error))


def returned(error: BaseException) -> ZStreamerError:
    """Return what the caller gets of an exception that stands in its item's place."""
    if isinstance(error, ZStreamerError) and _can_be_sent(error):
        if type(error) in errors.CLASSES.values():
            return error
        return errors.from_wire(errors.to_wire(error))  # what the user's own class is derived from
    return _refusal(error) or PredictError(message(error), _name(error))


def fatal(error: BaseException) -> bool:
    """Whether the process that met this exception can run no batch any more.

    So it is where the model says so (`FatalError`), and where the context of its device is broken:
    then every later call fails in this process, whatever its input. Which errors break it, and
    which leave it whole, is told by their texts; CUDA has one type for all. The exceptions that
    led to this one are looked at too.
    """
    return any(isinstance(each, FatalError) or _breaks_device(each) for each in _chain(error))


def out_of_memory(error: BaseException) -> bool:
    """Whether less at once may fit."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError):
        return True
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    # An allocation beside torch's own allocator, such as of pinned memory or a library's handle.
    text = _text(error)
    if type(error) is RuntimeError and _FULL.match(text):
        return True
    return (_of_a_device(error) or _library(error) in _LIBRARIES) and bool(_NO_MEMORY.search(text))


def _breaks_device(error: BaseException) -> bool:
    if not _of_a_device(error):
        return False
    text = _text(error)
    return not (_NO_MEMORY.search(text) or _HARMLESS.search(text))


def _of_a_device(error: BaseException) -> bool:
    """Whether a device's driver or library has raised it."""
    accelerator = getattr(sys.modules.get("torch"), "AcceleratorError", None)
    if accelerator is not None and isinstance(error, accelerator):
        return True
    if type(error) is RuntimeError:
        # At the start only: further behind, the words may be an input's that is repeated there.
        text = message(error)
        if _REPLICA.match(text):  # torch.nn.DataParallel has put the whole traceback in there
            text = text.strip().rpartition("\n")[2].removeprefix("RuntimeError: ")
        return bool(_DEVICE.match(text))
    return _library(error) in _LIBRARIES and bool(_DEVICE_CODE.search(_text(error)))


def _library(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


_LIBRARIES = {"cupy", "cupy_backends", "jax", "jaxlib", "numba", "onnxruntime", "tensorflow"}
_LIBRARIES |= {"torch", "triton", "pycuda", "tensorrt"}
"""Packages whose exceptions may be a device's."""

_DEVICE_CODE = re.compile(
    r"\b(CUDA|HIP|cuDNN|MIOpen|NCCL|RCCL|XPU|(cu|hip|roc)(BLAS(Lt)?|SOLVER|SPARSE|FFT|RAND))"
    r"\s+(driver |unknown |runtime )?(error|failure)\b"
    r"|\b(CUDA_ERROR_|cudaError|hipError|CU[A-Z]+_STATUS_|HIP[A-Z]+_STATUS_|NCCL_|nccl[A-Z]\w*Error)"
    r"|\bunexpected error from (cuda|hip)"
    r"|\bXid\b|\buncorrectable ECC\b|device-side assert|illegal memory access",
    re.IGNORECASE,
)
_STEP = r"(\w+:? )?(failed[\w ]*: |synchronize: )?"
"""What Thrust and CUB say first: ``merge_sort: failed to synchronize: cudaErrorIllegalAddress``."""

_DEVICE = re.compile(
    rf"\W*{_STEP}(Triton Error \[(CUDA|HIP)\]|{_DEVICE_CODE.pattern})", re.IGNORECASE
)
_REPLICA = re.compile(r"Caught \w+ in replica \d+ on device ")

_NO_MEMORY = re.compile(
    "out[ _]of[ _]memory|RESOURCE_EXHAUSTED|MEMORY_ALLOCATION|_ALLOC_FAILED"
    "|OOM when allocating|failed to allocate memory",
    re.IGNORECASE,
)
_FULL = re.compile(
    r"(\[enforce fail at [^\]]*\] .{0,40})?DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|(CUDA|HIP|XPU|MPS backend) out of memory"
)
"""Allocators of torch that say so in a plain RuntimeError."""

_HARMLESS = re.compile(
    r"invalid (configuration )?argument|invalid (device function|device ordinal|value)"
    r"|INVALID_VALUE|INVALID_CONFIGURATION|NOT_SUPPORTED|BAD_PARAM|operation not supported"
    r"|no kernel image",
    re.IGNORECASE,
)
"""A call that was refused before anything ran: the context is as good as before."""


def _text(error: BaseException) -> str:
    """The part of an exception's text that says what kind it is."""
    return message(error)[:500]


def message(error: BaseException) -> str:
    """Return an exception's text, or words that say why there is none."""
    try:
        text = str(error)
    except BaseException as another:  # noqa: BLE001  # it is the user's code that runs here
        text = f"(no text: its __str__ raised {_name(another)})"
    return _sendable(text, MESSAGE)


def trace(error: BaseException) -> str:
    """Return an exception's traceback as text; its frames alone where the rest cannot be shown."""
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except BaseException:  # noqa: BLE001  # as above
        frames = traceback.format_tb(error.__traceback__)
        head = "Traceback (most recent call last):\n"
        lines = [head, *frames, f"{_name(error)}: {message(error)}\n"]
    return _sendable("".join(lines), TRACEBACK)


def let_go(error: BaseException) -> None:
    """Drop the frames of an exception and of what led to it: they keep a batch's tensors alive."""
    with contextlib.suppress(Exception):  # a class may have attributes of its own by these names
        for each in _chain(error):
            each.__traceback__ = None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it, as far as they can be walked through."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    while chain:
        each = chain.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        with contextlib.suppress(Exception):
            chain += (each.__cause__, each.__context__)


def _refusal(error: BaseException) -> ZStreamerError | None:
    """Return the refusal of an input that this is, or one of a class of the user's own."""
    for cls in REFUSALS:
        if isinstance(error, cls):
            return cls(message(error))
    return None


def _name(error: BaseException) -> str:
    return _sendable(type(error).__qualname__, 200)


def _sendable(text: str, limit: int) -> str:
    """Return valid Unicode of at most about ``limit`` characters, without the middle if longer."""
    if len(text) > limit:
        left_out = f"… ({len(text) - limit:,} characters left out) …"
        text = text[: limit // 2] + left_out + text[-limit // 2 :]
    return text.encode("utf-8", "backslashreplace").decode()


def _can_be_sent(error: ZStreamerError) -> bool:
    """Whether the model has filled an error of ours with what belongs there."""
    try:
        wire = errors.to_wire(error)
        whole = [int(error.code), error.message, error.details()]
        size = len(msgpack.packb(wire))
    except BaseException:  # noqa: BLE001  # details() may be the user's; without a code it raises
        return False
    return wire == whole and size <= WHOLE
