"""Environments of their own for zstreamer's peers, made where they are first needed and kept.

They lie in $XDG_CACHE_HOME/zstreamer-bench (~/.cache), each named by what it is made from, so that
another list of packages makes another environment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = Path(__file__).parent / "others"
"""Holds a list of pinned packages for each peer."""

MADE = "made"
"""A file in each environment that is complete."""


def python(peer: str) -> str:
    """The interpreter of a peer's environment, which is made if it is not there yet.

    Args:
        peer: names its list of packages, ``others/PEER.txt``.

    Raises:
        RuntimeError: its packages cannot be installed; the message has pip's last words.
    """
    folder = place(peer)
    if not (folder / MADE).exists():
        _make(peer, folder)
    return str(folder / "bin" / "python")


def place(peer: str) -> Path:
    """Where a peer's environment is, or will be."""
    made_from = sys.version.encode() + (PACKAGES / f"{peer}.txt").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "zstreamer-bench" / f"{peer}-{hashlib.sha256(made_from).hexdigest()[:12]}"


def _make(peer: str, folder: Path) -> None:
    print(f"  making an environment for {peer} in {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(peer, sys.executable, "-m", "venv", str(folder))
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
    # The lists are whole, and their packages' own wishes would only bring newer ones in.
    _run(peer, *pip, "install", "--no-deps", "-r", str(PACKAGES / f"{peer}.txt"))
    (folder / MADE).touch()


def _run(peer: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stdout + done.stderr)[-1500:]
        raise RuntimeError(f"the environment for {peer} cannot be made: {words}")
