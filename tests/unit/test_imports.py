"""What a program loads besides what it needs."""

import subprocess
import sys

import pytest

TEXT = """
import sys
import {module}
others = ["zstreamer." + name for name in ("client", "worker", "local", "web")] + ["torch", "click"]
print(*[name for name in others if name in sys.modules and not {module!r}.startswith(name)])
"""


@pytest.mark.parametrize(
    "module", ["zstreamer", "zstreamer.broker.server", "zstreamer.worker.agent"]
)
def test_a_program_loads_none_of_the_others(module):
    text = TEXT.format(module=module)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_the_package_offers_is_found_when_it_is_asked_for():
    text = "import zstreamer as z; print(*(getattr(z, name) for name in z.__all__), z.codec, z.aio)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert "zstreamer.local.streamer.ThreadedStreamer" in done.stdout
