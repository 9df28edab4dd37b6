"""`tests.bench.callers_threads` where gevent has patched everything: each caller is a greenlet."""

# ruff: noqa: E402 - the patch must come before whatever it patches is imported

from gevent import monkey

monkey.patch_all()

import sys

import gevent

from tests.bench import callers_threads


def read() -> str:
    """Return the next line of the input, without stopping the hub meanwhile."""
    line: str = gevent.get_hub().threadpool.apply(sys.stdin.readline)
    return line


if __name__ == "__main__":
    callers_threads.serve(sys.argv[1:], read)
