"""The folder that holds the sockets of one `Streamer`."""

from __future__ import annotations

import tempfile

import zmq

PREFIX = "zstreamer-"
SHORT_PLACES = ("/tmp", "/var/tmp")  # noqa: S108  # a folder in there is made safely
"""Where sockets' folders go whose paths would be too long elsewhere."""


def socket_folder() -> str:
    """Make a folder for sockets: where temporary files go, or where paths are shorter.

    Raises:
        ValueError: there is no place for it.
        OSError: it cannot be made.
    """
    wanted = tempfile.gettempdir()
    for place in (wanted, *SHORT_PLACES):
        if _fits(f"{place}/{PREFIX}12345678/workers"):
            return tempfile.mkdtemp(prefix=PREFIX, dir=place)
    raise ValueError(
        f"no room for a socket below {wanted}: set TMPDIR to a folder with a short path"
    )


def _fits(path: str) -> bool:
    try:
        return len(path.encode()) <= zmq.IPC_PATH_MAX_LEN
    except UnicodeEncodeError:  # no UTF-8, which an address must be
        return False
