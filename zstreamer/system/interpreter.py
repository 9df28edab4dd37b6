"""How to start another Python that can import what this one can."""

from __future__ import annotations

import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path


def import_path() -> tuple[str, ...]:
    """The folders on this process's import path that a bare interpreter would not have."""
    paths = sysconfig.get_paths()
    own = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    own |= {site.getusersitepackages(), *site.getsitepackages()}
    own |= {f"{paths['platstdlib']}/lib-dynload", *(p for p in sys.path if p.endswith(".zip"))}
    found = (str(Path(entry).absolute()) for entry in sys.path)
    return tuple(dict.fromkeys(entry for entry in found if entry not in own))


def interpreter() -> str:
    """The Python to start children with; an embedding server's own program is not one."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = [Path(sys.executable or "/nowhere"), Path(sys.prefix, "bin", name)]
    places += [Path(sys.prefix, "bin", "python3"), Path(sys.base_prefix, "bin", name)]
    for place in places:
        if place.name.startswith(("python", "pypy")) and os.access(place, os.X_OK):
            return str(place)
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"found no {name} to start a process with, in {sys.prefix}/bin")
    return found


def module_command(module: str) -> list[str]:
    """The command that runs a module as `python -m` does, in a child that can import the same.

    Unlike `python -m`, it puts neither the current folder nor any folder of this process's import
    path before the child's standard library.
    """
    here = Path(__file__).resolve()
    folders = os.pathsep.join(dict.fromkeys((*import_path(), str(here.parents[2]))))
    return [interpreter(), str(here.with_name("bootstrap.py")), folders, module]


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment of a child: that of this process, changed.

    changes: variables to set, or None in place of one to leave out.
    """
    together = {**os.environ, **changes}
    return {name: value for name, value in together.items() if value is not None}
