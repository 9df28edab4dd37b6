"""The workers of several [[worker]] tables, which share the cores and the ports of one machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from zstreamer.config import AgentConfig, WorkerConfig
from zstreamer.setting import ConfigError


def beside(configs: Sequence[WorkerConfig]) -> list[AgentConfig]:
    """Return what the workers of each table are told, so that they share the machine.

    Each counts the workers of the others when it takes its share of the cores. Tables that name
    the same port for their pages have ports that follow each other, in the order of the tables.

    Raises:
        ConfigError: the ports of two tables overlap although they begin at different ones.
    """
    workers = sum(each.num for each in configs)
    taken: Counter[int] = Counter()
    owner: dict[int, str] = {}
    found = []
    for config in configs:
        first = config.metrics_port
        port = first and first + taken[first]
        taken[first] += config.num
        for each in range(port, port + config.num) if first else ():
            if each in owner:
                raise ConfigError(
                    f"two [[worker]] tables have a worker with the metrics port {each}, those of "
                    f"models {owner[each]!r} and {config.model!r}: give both the same "
                    "metrics_port, from which on all are counted, or ports further apart"
                )
            owner[each] = config.model
        told = {"metrics_port": port, "others": workers - config.num}
        found.append(AgentConfig(**{**asdict(config), **told}))
    return found
