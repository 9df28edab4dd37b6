"""What a broker's process does with memory that it has used."""

import subprocess
import sys

import pytest

from zstreamer.broker import memory

MiB = 2**20


FLOOD = """
from zstreamer.broker import memory
MiB = 2**20
before = memory.in_use()
flood = [bytes(3000) for _ in range(80_000)]
kept = flood[::50]
del flood
assert memory.in_use() > before + 200 * MiB
guard = memory.Guard(2**60)
assert guard.exceeded(100.0) == 0
assert memory.in_use() < before + 100 * MiB
assert len(kept) == 1600
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked for it")
def test_what_a_flood_has_taken_is_given_back_though_something_lies_between():
    # In a process of its own: this one's heap may have room for the flood.
    subprocess.run([sys.executable, "-c", FLOOD], check=True, timeout=60)


def test_a_process_beyond_its_limit_is_told_how_much_it_uses_but_looks_once_a_second():
    guard = memory.Guard(MiB)
    assert guard.exceeded(100.0) > MiB
    assert guard.exceeded(100.5) == 0
    assert guard.exceeded(101.1) > MiB
