"""What is wrong with processes and machines, and between several brokers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zstreamer.doctor.evidence import Broker, Row, number
from zstreamer.doctor.finding import Finding

SKEW = 5.0
"""Seconds by which two clocks may differ; what workers say may be a second old."""

NEARLY = 0.85
"""Share of a limit from which on it is worth a word."""

NEARLY_MEMORY = 0.93
"""The same for the memory of a worker's machine, which a system fills on purpose."""

SPARE = 64
"""Descriptors that a broker keeps for itself."""

SLOW_ANSWER = 0.5
"""Seconds that a broker may take to say how it is."""


def findings(brokers: Sequence[Broker], release: str) -> Iterator[Finding]:
    """Yield what is wrong with the machines, the releases and the brokers.

    Args:
        brokers: all that were looked at.
        release: of the doctor itself.
    """
    for broker in brokers:
        yield from _itself(broker)
        yield from _limits("the broker", broker.last, NEARLY, SPARE)
        for model in broker.models.values():
            for worker in model.workers:
                yield from _limits(f"worker {worker.name}", worker.last, NEARLY_MEMORY, 0)
        yield from _clocks(broker)
        yield from _releases(broker, release)
    yield from _differences(brokers)


def _itself(broker: Broker) -> Iterator[Finding]:
    if broker.last.get("draining"):
        yield Finding(
            "broker-draining",
            72,
            f"the broker at {broker.address} drains: it refuses new items",
            "it says so itself",
            "it ends when its work is done; if an operator has drained it, zstreamer resume broker",
        )
    if broker.took > SLOW_ANSWER:
        yield Finding(
            "broker-slow",
            78,
            f"the broker at {broker.address} answers slowly",
            f"it usually took {broker.took:.2f} s to say how it is",
            "look whether its CPU is taken by others or it waits for memory; give it a core of "
            "its own",
        )
    if not broker.models:
        yield Finding(
            "no-workers",
            91,
            f"no worker is connected to the broker at {broker.address}",
            f"{number(broker.last.get('clients')):.0f} clients are",
            "start one: zstreamer worker MODULE:NAME --broker with the broker's worker address "
            "(port 7788 unless told otherwise)",
        )


def _limits(who: str, row: Row, nearly: float, spare: int) -> Iterator[Finding]:
    used, limit = number(row.get("descriptors")), number(row.get("descriptor_limit"))
    most = limit - min(spare, limit // 2)
    if most > 0 and used >= NEARLY * most:
        yield Finding(
            "descriptors",
            79,
            f"{who} has nearly no file descriptors left: connections are turned away",
            f"{used:,.0f} are open of {limit:,.0f}"
            + (f", of which it keeps {limit - most:,.0f} for itself" if spare else ""),
            "raise the limit (ulimit -n, LimitNOFILE=), or look for clients that do not close "
            "their connections",
        )
    memory, most_memory = number(row.get("memory")), number(row.get("memory_limit"))
    if most_memory > 0 and memory >= nearly * most_memory:
        yield Finding(
            "memory",
            80,
            f"{who} has nearly no memory left",
            f"{memory / 2**20:,.0f} MiB are in use of {most_memory / 2**20:,.0f} MiB",
            "the broker: look for large payloads and clients that do not read (zstreamer status), "
            "or raise --max-memory; a worker: fewer workers on its machine, smaller batches",
        )


def _clocks(broker: Broker) -> Iterator[Finding]:
    last = broker.samples[-1]
    rows = [("the broker's machine", broker.last)]
    rows += [
        (f"the machine of worker {worker.name}", worker.last)
        for model in broker.models.values()
        for worker in model.workers
    ]
    skews = [(number(row.get("time")) - last.at, who) for who, row in rows if row.get("time")]
    if skews and abs((worst := max(skews, key=lambda each: abs(each[0])))[0]) > SKEW:
        yield Finding(
            "clock",
            50,
            f"the clock of {worst[1]} is wrong, or the one here is",
            f"it is {abs(worst[0]):,.0f} s {'ahead of' if worst[0] > 0 else 'behind'} this one",
            "have all machines follow one time server (chronyd, systemd-timesyncd); budgets do not "
            "depend on it, but logs and traces cannot be compared",
        )


def _releases(broker: Broker, release: str) -> Iterator[Finding]:
    found: dict[str, list[str]] = {release: ["this program"]}
    found.setdefault(str(broker.last.get("release")), []).append("the broker")
    for model in broker.models.values():
        for worker in model.workers:
            if own := worker.last.get("release"):
                found.setdefault(str(own), []).append(f"worker {worker.name}")
    for each in broker.sessions:
        if own := each.get("release"):
            found.setdefault(str(own), []).append(f"client {each.get('host')}:{each.get('pid')}")
    if len(found) > 1:
        yield Finding(
            "releases",
            58,
            f"releases of zstreamer differ: {', '.join(sorted(found))}",
            "; ".join(f"{each}: {_few(who)}" for each, who in sorted(found.items())),
            "finish the update: neighbouring releases work together, but not for ever",
        )


def _few(who: list[str]) -> str:
    return ", ".join(who[:3]) + (f" and {len(who) - 3} more" if len(who) > 3 else "")


def _differences(brokers: Sequence[Broker]) -> Iterator[Finding]:
    known = {b.address: {n for n, m in b.models.items() if m.workers} for b in brokers}
    everything = set().union(*known.values())
    missing = {
        address: everything - names for address, names in known.items() if everything - names
    }
    if len(brokers) > 1 and missing:
        words = (f"{a} has no worker for {', '.join(sorted(n))}" for a, n in missing.items())
        yield Finding(
            "brokers-differ",
            71,
            "the brokers know different models",
            "; ".join(words),
            "give each worker the worker addresses of all brokers: --broker tcp://A:7788,tcp://B:7788",
        )
