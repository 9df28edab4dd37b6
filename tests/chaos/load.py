"""Constant load: a program of callers, and what it has reported so far."""

import contextlib
import itertools
import json
import subprocess
import threading
from bisect import bisect_left
from pathlib import Path

from tests.helpers.waiting import until
from zstreamer.system.interpreter import environment, module_command

ROOT = Path(__file__).parent.parent.parent
_first = itertools.count(1)


class Load:
    """Callers in a process of their own, for as long as the block.

    Args:
        address: of the brokers, several with commas between; or a web server's URL.
        rate: items a second; where given, calls are made at this rate and not in threads.
        held: wait for `release` before the first call.
        settings: for `tests.chaos.callers`.

    Attributes:
        reports: what it has said so far, oldest first.
        final: its tally, once it has ended.
    """

    def __init__(self, address, *, model="default", timeout=20.0, most=3, **settings):
        if "rate" not in settings:
            settings.setdefault("threads", 16)
        spec = {
            "address": address,
            "model": model,
            "timeout": timeout,
            "most": most,
            "first": next(_first) * 10**10,
            **settings,
        }
        self.timeout = timeout
        self.reports = []
        self.final = None
        self._process = subprocess.Popen(
            [*module_command("tests.chaos.callers"), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**environment({}), "PYTHONPATH": str(ROOT)},
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            report = json.loads(line)
            if "final" in report:
                self.final = report["final"]
            else:
                self.reports.append(report)

    @property
    def calls(self):
        """Calls that have ended so far."""
        return self.reports[-1]["calls"] if self.reports else 0

    def more(self, calls=30, seconds=30.0):
        """Wait until so many more calls have ended."""
        goal = self.calls + calls
        until(lambda: self.calls >= goal or self.ended(), seconds, 0.02)
        assert not self.ended(), "the callers have died"

    def release(self):
        """Let a load that is held begin."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ended(self):
        return self._process.poll() is not None

    def items_at(self, time):
        """Items that were answered up to a moment (monotonic seconds)."""
        at = bisect_left([each["at"] for each in self.reports], time)
        return self.reports[min(at, len(self.reports) - 1)]["items"]

    def rate(self, start, end):
        """Items a second between two moments."""
        return (self.items_at(end) - self.items_at(start)) / (end - start)

    def stop(self):
        """End the load; returns its tally."""
        if self.final is None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            until(lambda: self.ended() and not self._reader.is_alive(), self.timeout + 15)
            assert self.final is not None, "the callers ended without a tally"
        return self.final

    def kill(self):
        """End it at once, with whatever is open."""
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        until(lambda: self.reports or self.ended(), 40)
        assert not self.ended(), "the callers could not start"
        return self

    def __exit__(self, *_):
        self.kill()
        self._reader.join()
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
