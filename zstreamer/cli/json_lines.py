"""Files of JSON Lines: inputs, read one by one, and outputs that a later run can continue."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zstreamer.errors import BadRequest, PredictError, ZStreamerError
from zstreamer.setting import ConfigError

FLUSH_EVERY = 0.2
"""Seconds for which a line may stay in memory."""

SYNC_EVERY = 5.0
"""Seconds of work that may be lost if the machine fails."""

BLOCK = 2**20
"""Bytes that are looked at together."""


class Inputs:
    """The values of a file, one a line; a line that is not JSON stands as an error in its place.

    Args:
        file: is read from where it is.
        start: lines that are only counted.
        name: what messages call the file.
    """

    def __init__(self, file: BinaryIO, start: int, name: str) -> None:
        self._file = file
        self._start = start
        self._name = name

    def __iter__(self) -> Iterator[object]:
        """Yield the values.

        Raises:
            ConfigError: there are fewer lines than were to be counted only.
        """
        lines = 0
        for lines, line in enumerate(self._file, 1):
            yield _value(line, lines) if lines > self._start else None
        if lines < self._start:
            raise ConfigError(
                f"{self._name} has {lines} lines, fewer than the {self._start} that are done: it "
                "is not the file that the output was made of"
            )


class CountedInputs(Inputs):
    """The same of a file that is on a disk: its lines are counted, for a progress bar."""

    def __init__(self, file: BinaryIO, start: int, name: str) -> None:
        super().__init__(file, start, name)
        self._lines = lines_of(file)[0]

    def __len__(self) -> int:
        return self._lines


def _value(line: bytes, number: int) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if not line.strip() else str(error)
        return BadRequest(f"line {number} is not JSON: {reason}")


def lines_of(file: BinaryIO) -> tuple[int, int]:
    """Return how many lines of a file are complete, and how many bytes they have."""
    file.seek(0)
    lines = size = position = 0
    while block := file.read(BLOCK):
        lines += block.count(b"\n")
        if (last := block.rfind(b"\n")) >= 0:
            size = position + last + 1
        position += len(block)
    file.seek(0)
    return lines, size


class Results:
    """Where the outputs go, a line each, with their indexes.

    What is written is in the file within a moment, and on the disk within seconds.

    Args:
        file: is written from where it is.

    Attributes:
        written: how many lines.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.written = 0
        self._file = file
        self._ended = threading.Event()
        self._flusher = threading.Thread(target=self._flush, daemon=True)
        self._flusher.start()

    def write(self, index: int, output: object) -> None:
        """Write one output, or the error in its place."""
        if isinstance(output, ZStreamerError):
            row = {"index": index, "error": _error(output)}
        else:
            row = {"index": index, "output": output}
        text = json.dumps(row, ensure_ascii=False, default=plain)
        self._file.write(text.encode("utf-8", "backslashreplace") + b"\n")
        self.written += 1

    def close(self) -> None:
        """Bring all of it to the disk."""
        self._ended.set()
        self._flusher.join()
        try:
            self._file.flush()
            _sync(self._file)
        except BrokenPipeError:
            # Python would try again at its end, and say so.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            raise

    def _flush(self) -> None:
        quiet = 0.0
        while not self._ended.wait(FLUSH_EVERY):
            quiet += FLUSH_EVERY
            try:
                self._file.flush()
                if quiet >= SYNC_EVERY:
                    quiet = 0.0
                    _sync(self._file)
            except OSError:
                return  # the next write, or close, meets it too, and says so


def _sync(file: BinaryIO) -> None:
    if file.seekable():  # a pipe has no disk
        os.fsync(file.fileno())


def _error(error: ZStreamerError) -> dict[str, object]:
    message = f"{error.type}: {error.message}" if isinstance(error, PredictError) else str(error)
    return {"type": type(error).__name__, "message": message}


def plain(value: object) -> object:
    """Return what stands in JSON for a value that it has no form for, arrays above all."""
    as_list = getattr(value, "tolist", None)
    return as_list() if callable(as_list) else repr(value)


def open_output(path: str, *, resume: bool) -> tuple[BinaryIO, int]:
    """Return the file that outputs go to, and the index of the first one that it lacks.

    Args:
        path: "-" is standard output.
        resume: continue a file that is there; a last line that is not complete is cut off.

    Raises:
        ConfigError: it cannot be written, is there already, or is not a file of outputs.
    """
    if path == "-":
        if resume:
            raise ConfigError("--resume needs a file to continue: name it with -o FILE")
        return sys.stdout.buffer, 0
    place = Path(path)
    continued = resume and place.is_file()
    device = place.exists() and not place.is_file()
    try:
        file = place.open("wb" if device else "r+b" if continued else "xb")
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already: add --resume to continue it, or remove it"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    try:
        return file, _continue(file, path) if continued else 0
    except BaseException:
        file.close()
        raise


def _continue(file: BinaryIO, path: str) -> int:
    """Go to the end of the last complete line, and cut off what follows it; return the lines.

    Raises:
        ConfigError: that line is not the one of its index.
    """
    lines, size = lines_of(file)
    file.seek(size)
    line = _last_line(file)
    try:
        index = json.loads(line)["index"] if lines else -1
    except (ValueError, TypeError, KeyError):
        index = None
    if index != lines - 1:
        raise ConfigError(
            f"{path} cannot be continued: it has {lines} lines, and the last one is not that of "
            f"index {lines - 1}: {line[:60].decode(errors='replace')!r}"
        )
    file.truncate(size)
    return lines


def _last_line(file: BinaryIO) -> bytes:
    end = position = file.tell()
    tail = b""
    while position and b"\n" not in tail[:-1]:
        step = min(BLOCK, position)
        position -= step
        file.seek(position)
        tail = file.read(step) + tail
    file.seek(end)
    return tail[:-1].rpartition(b"\n")[2]
