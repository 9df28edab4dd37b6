"""Runs a module as a child process, as `python -m` does, with a safe import path.

    python bootstrap.py FOLDERS MODULE ARGUMENTS…

`python -m` puts the current folder before the standard library, and PYTHONPATH does the same with
what it names: a `queue.py` there breaks the child. This script takes the folder that Python
put first off the path, and inserts FOLDERS (separated as in PYTHONPATH) behind the standard
library. It imports nothing of zstreamer, which may lie in one of FOLDERS.
"""

import sys


def prepare(folders: str) -> None:
    """Take this script's folder off the import path, and insert others after the standard library.

    Args:
        folders: what the child must be able to import from, separated by os.pathsep.
    """
    own = __file__.rpartition("/")[0]
    sys.path[:] = [entry for entry in sys.path if entry != own]
    import os  # from here on, a module beside this script cannot be taken for another

    library = os.path.dirname(os.__file__)  # noqa: PTH120  # pathlib would slow every start
    places = [i for i, p in enumerate(sys.path) if p == library or p.endswith("/lib-dynload")]
    after = places[-1] + 1 if places else len(sys.path)
    new = [p for p in dict.fromkeys(folders.split(os.pathsep)) if p and p not in sys.path]
    sys.path[after:after] = new


if __name__ == "__main__":
    prepare(sys.argv[1])
    import runpy

    module = sys.argv[2]
    sys.argv[1:3] = []
    runpy.run_module(module, run_name="__main__", alter_sys=True)
