"""Starts the agents of one command, one for each worker, and starts again those that die.

An agent looks after its model's process itself; what is left to the supervisor is the agent's
own death, which only a signal or the machine brings about. An agent whose model cannot start
exits with `ExitCode.MODEL` and is not started again.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import asdict
from functools import partial

from zstreamer.config import AgentConfig, WorkerConfig
from zstreamer.system import logs, slots
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Owner, Process, owned, read_config
from zstreamer.system.signals import StopRequests
from zstreamer.system.slots import ProcessSlot
from zstreamer.worker.repository import host

FINAL = (ExitCode.MODEL, ExitCode.USAGE, ExitCode.OK)
"""What an agent ends with that is not to be started again."""


def run(config: WorkerConfig, owner: Owner | None = None) -> int:
    """Run ``config.num`` workers, or a repository's, until SIGINT or SIGTERM, then drain them.

    Returns:
        0 after a drain, `ExitCode.MODEL` where no model could start, `ExitCode.USAGE` where no
        agent could use what it was told, `ExitCode.NOT_DRAINED` where a second signal or the end
        of ``drain_grace`` cut the drain short.
    """
    starts = [
        partial(Process, "zstreamer.worker.agent", agent_config(config, number))
        for number in range(config.num)
    ]
    if config.repository is not None:
        with StopRequests() as stop:
            return host.run(config, stop, owner)
    agents = [
        ProcessSlot(f"agent number={number}", start, FINAL) for number, start in enumerate(starts)
    ]
    with StopRequests() as stop:
        slots.serve(agents, stop, owner)
        codes = [each.code for each in agents if each.done]
        codes += slots.drain(agents, stop, owner, config.drain_grace)
    return exit_code(codes)


def exit_code(codes: Collection[int | None]) -> int:
    """Return what the supervisor of agents that have ended with these codes ends with itself."""
    if any(code not in FINAL for code in codes):
        return ExitCode.NOT_DRAINED
    for none_served in (ExitCode.MODEL, ExitCode.USAGE):  # to start them again would not help
        if codes and none_served in codes and ExitCode.OK not in codes:
            return none_served
    return ExitCode.OK


def agent_config(config: WorkerConfig, number: int) -> AgentConfig:
    """Return what the agent of worker ``number`` is told; devices are dealt out in turn."""
    devices = config.devices
    device = devices[number % len(devices)] if devices else ""
    values = {**asdict(config), "number": number, "device": device}
    return AgentConfig(**values)


def main() -> int:
    """Run the workers that a `Streamer` or another program of ours started."""
    config, owner = read_config(AgentConfig)
    logs.start(config.log_level, config.log_format)
    return run(config, owner)


if __name__ == "__main__":
    sys.exit(main() if owned() else "started by other programs only: use `zstreamer worker`")
