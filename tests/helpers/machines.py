"""Machines to follow a page on: network namespaces, or where there are none this machine's own."""

import contextlib
import os
import re
import sys
from pathlib import Path

from tests.processes.test_network import ip, why_not

HERE = "here"
"""The machine that a page begins on; the others have IPv4 addresses of one network."""


class Namespaces:
    """A namespace for each machine, so that ports and addresses are a page's own.

    Args:
        addresses: of the machines besides `HERE`.
    """

    told = "each machine is a network namespace"

    def __init__(self, addresses):
        self._addresses = addresses

    def prefix(self, machine):
        """What to write before a command so that it runs there."""
        return ["ip", "netns", "exec", _name(machine)]

    def text(self, text):
        """A page's text as it holds for these machines."""
        return text

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove)
            self._build()
            stack.pop_all()
        return self

    def _build(self):
        for machine in (HERE, *self._addresses):
            ip("netns", "add", _name(machine))
            ip("-n", _name(machine), "link", "set", "lo", "up")
        switch = _name("switch")
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "up", "type", "bridge")
        for number, address in enumerate(self._addresses):
            port, name = f"port{number}", _name(address)
            ip("-n", switch, "link", "add", port, "type", "veth", "peer", "eth0", "netns", name)
            ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def _remove(self):
        for machine in ("switch", HERE, *self._addresses):
            ip("netns", "del", _name(machine), check=False)

    def __exit__(self, *_):
        self._remove()


class Loopback:
    """This machine under several addresses of its own: 10.0.0.5 is 127.0.0.5.

    Args:
        reason: why there are no namespaces.
    """

    def __init__(self, reason):
        self.told = f"this machine plays them all, since {reason}"

    def prefix(self, machine):
        """As for `Namespaces`."""
        return []

    def text(self, text):
        """As for `Namespaces`."""
        return re.sub(r"\b10\.0\.0\.(\d+)\b", r"127.0.0.\1", text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def machines(addresses):
    """The best that this machine has; raises OSError where it cannot play any."""
    reason = why_not()
    if reason and sys.platform != "linux":
        raise OSError(f"{reason}, and loopback has one address here")
    return Loopback(reason) if reason else Namespaces(addresses)


def environment(folder, programs):
    """Variables for commands: a home of its own, and these programs before all others."""
    home = Path(folder)
    # curl shows a progress bar where its output is no terminal.
    (home / ".curlrc").write_text("silent\nshow-error\n")
    own = {name: each for name, each in os.environ.items() if not name.startswith("ZSTREAMER_")}
    path = f"{programs}:{home}/bin:{os.environ['PATH']}"
    return {**own, "HOME": str(home), "PATH": path, "VIRTUAL_ENV": str(Path(programs).parent)}


def _name(machine):
    return f"zst{os.getpid()}-{machine}"
