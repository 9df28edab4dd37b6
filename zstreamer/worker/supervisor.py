"""Starts the agents of one command, one for each worker, and starts again those that die.

An agent looks after its model's process itself; what is left to the supervisor is the agent's
own death, which only a signal or the machine brings about. An agent whose model cannot start
exits with `ExitCode.MODEL` and is not started again.
"""

from __future__ import annotations

import logging
import select
import sys
import time
from dataclasses import asdict

from zstreamer.config import AgentConfig, WorkerConfig
from zstreamer.system import logs
from zstreamer.system.exitcodes import ExitCode, of_child
from zstreamer.system.process import Owner, Process, owned, read_config
from zstreamer.system.signals import StopRequests

log = logging.getLogger(__name__)

GLANCE = 0.2
"""Seconds between two looks at the agents."""

HEALTHY = 5.0
"""Seconds after which an agent's start counts as a success."""

BACKOFF = 0.1
MAX_BACKOFF = 10.0
"""Seconds before an agent that died is started again, doubling while it dies soon."""


class Slot:
    """One worker's place: the agent that fills it now, and when to fill it again."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.process: Process | None = None
        self.final: int | None = None
        self._started = 0.0
        self._start_at = 0.0
        self._backoff = BACKOFF

    def check(self, now: float) -> None:
        """Start the agent where none runs; note how it ended where it has."""
        if self.final is not None:
            return
        if self.process is None:
            if now >= self._start_at:
                self.process = Process("zstreamer.worker.agent", self.config)
                self._started = now
            return
        code = self.process.poll()
        if code is None:
            return
        self.process.close()
        self.process = None
        if code in (ExitCode.MODEL, ExitCode.USAGE, ExitCode.OK):
            self.final = code
            return
        self._backoff = BACKOFF if now - self._started > HEALTHY else self._backoff * 2
        self._start_at = now + min(self._backoff, MAX_BACKOFF)
        log.warning("agent died number=%d code=%d, starting it again", self.config.number, code)

    def stop(self) -> None:
        """Ask the agent to drain, or, the second time, to end."""
        if self.process is not None:
            self.process.terminate()
        elif self.final is None:
            self.final = ExitCode.OK

    def kill(self) -> None:
        """End the agent at once, and its model's process with it."""
        if self.process is not None:
            self.process.kill()


def run(config: WorkerConfig, owner: Owner | None = None) -> int:
    """Run ``config.num`` workers until SIGINT or SIGTERM, then drain them.

    Returns:
        0 after a drain, `ExitCode.MODEL` where no model could start, `ExitCode.NOT_DRAINED`
        where a second signal or the end of ``drain_grace`` cut the drain short.
    """
    slots = [Slot(agent_config(config, number)) for number in range(config.num)]
    with StopRequests() as stop:
        while not stop.requests and any(slot.final is None for slot in slots):
            for slot in slots:
                slot.check(time.monotonic())
            watched: list[StopRequests | Owner] = [stop] if owner is None else [stop, owner]
            select.select(watched, [], [], GLANCE)
            if owner is not None and owner.gone():
                break
        return _drain(slots, stop, config.drain_grace, owner)


def agent_config(config: WorkerConfig, number: int) -> AgentConfig:
    """Return what the agent of worker ``number`` is told; devices are dealt out in turn."""
    devices = config.devices
    device = devices[number % len(devices)] if devices else ""
    values = {**asdict(config), "number": number, "device": device}
    return AgentConfig(**values)


def _drain(slots: list[Slot], stop: StopRequests, grace: float, owner: Owner | None) -> int:
    asked = 0
    end = time.monotonic() + grace
    while any(slot.process is not None for slot in slots):
        if stop.requests > asked:
            asked = stop.requests
            for slot in slots:
                slot.stop()
        if time.monotonic() > end or (owner is not None and owner.gone()):
            for slot in slots:
                slot.kill()
        for slot in slots:
            if slot.process is not None and (code := slot.process.poll()) is not None:
                slot.final = of_child(code, stopped=asked == 1)
                slot.process.close()
                slot.process = None
        select.select([stop], [], [], GLANCE / 4)
    codes = [slot.final for slot in slots if slot.final is not None]
    if codes and all(code == ExitCode.MODEL for code in codes):
        return ExitCode.MODEL
    return ExitCode.NOT_DRAINED if any(code not in (0, ExitCode.MODEL) for code in codes) else 0


def main() -> int:
    """Run the workers that a `Streamer` or another program of ours started."""
    config, owner = read_config(AgentConfig)
    logs.start(config.log_level)
    return run(config, owner)


if __name__ == "__main__":
    sys.exit(main() if owned() else "started by other programs only: use `zstreamer worker`")
