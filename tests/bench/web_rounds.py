"""Servers in turns, and what is made of their samples: rows, and points for plots."""

from __future__ import annotations

import contextlib
import resource
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.bench.report import LESS, Report, Row
from tests.bench.web_server import Questions, Server, Service
from tests.bench.web_wrk import Sample, median

ROUNDS = 3
WARM_UP = 1
"""Seconds for which each server is asked before the first round."""

TAIL = (LESS, 3.0)
"""p99 against p50 where there are many connections."""

OWN = 64
"""Connections, and threads of wrk, where each answer is held against its own question."""

Way = Callable[[], Sample]
"""Takes one sample."""

Found = dict[str, list[Sample]]
Servers = Mapping[str, Server]


@contextlib.contextmanager
def started(services: Sequence[Service], questions: Questions) -> Iterator[dict[str, Server]]:
    """Start servers and let each answer for a while; they end together."""
    _allow_files()
    with contextlib.ExitStack() as stack:
        servers = {each.name: stack.enter_context(Server(each, questions)) for each in services}
        for server in servers.values():
            server.wait_ready()
        for server in servers.values() if WARM_UP else ():
            server.measure(OWN, WARM_UP)
        yield servers


def take_turns(ways: Mapping[str, Way], rounds: int = ROUNDS) -> Found:
    """Take samples of each way, in rounds; who goes first changes."""
    found: Found = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            found[way].append(ways[way]())
    return found


def under(servers: Servers, connections: int, seconds: int, rounds: int = ROUNDS) -> Found:
    """Let servers take turns at so many connections."""
    return take_turns(asking(servers, connections, seconds), rounds)


def asking(servers: Servers, connections: int, seconds: int, threads: int = 2) -> dict[str, Way]:
    """A way for each server: to be asked on so many connections."""
    return {
        name: lambda server=server: server.measure(connections, seconds, threads)
        for name, server in servers.items()
    }


def own_questions(servers: Servers) -> Found:
    """Ask each server for a second with a thread a connection: see `web_wrk.ask`."""
    return take_turns(asking(servers, OWN, 1, threads=OWN), rounds=1)


def rate(
    name: str,
    samples: Sequence[Sample],
    references: Sequence[Sample] = (),
    bound: tuple[str, float] | None = None,
) -> Row:
    """Right answers a second, and latencies in words."""
    others = [sample.rate for sample in references]
    values = [sample.rate for sample in samples]
    # A reference that answered nothing is none; the bound is then missed by the value itself.
    return Row(name, values, "requests/s", others if all(others) else (), bound, times(samples))


def cpu(samples: Sequence[Sample], references: Sequence[Sample], bound: tuple[str, float]) -> Row:
    """CPU of a web process for one request, against another's."""
    title = "sleeping, Flask: CPU of the web process a request, against gunicorn gevent"
    others = [sample.cpu for sample in references]
    values = [sample.cpu for sample in samples]
    return Row(title, values, "us/request", others if all(others) else (), bound)


def times(samples: Sequence[Sample]) -> str:
    """The latencies in words."""
    if not any(sample.p50 for sample in samples):
        return ""
    texts = [f"{name} {median(samples, name):.1f}" for name in ("p50", "p90", "p99")]
    return f"{', '.join(texts)} ms"


def tail(name: str, samples: Sequence[Sample], bound: tuple[str, float] | None = TAIL) -> Row:
    """p99 against p50."""
    middles = [sample.p50 for sample in samples]
    values = [sample.p99 for sample in samples]
    return Row(f"{name}: p99 against p50", values, "ms", middles if all(middles) else (), bound)


def bad(name: str, found: Found) -> Row:
    """All answers that were wrong, late or missing; there must be none."""
    counts = {way: sum(sample.bad for sample in samples) for way, samples in found.items()}
    examples = {s.example for samples in found.values() for s in samples if s.example}
    told = [f"{count:,d} of {way}" for way, count in counts.items() if count]
    right = sum(sample.right for samples in found.values() for sample in samples)
    told += [f"such as {min(examples)[:200]!r}"] if examples else []
    told = told or [f"{right:,d} right"]
    title = f"{name}: wrong, late or missing"
    return Row(title, [sum(counts.values())], "answers", bound=(LESS, 0), told="; ".join(told))


def points(found: Found, **common: object) -> list[dict[str, object]]:
    """A point for the plots of each way: medians, and what is `common` to all."""
    names = ("rate", "p50", "p90", "p99")
    return [
        {"server": way, **common, **{name: median(samples, name) for name in names}}
        for way, samples in found.items()
    ]


def chosen(
    parts: Mapping[str, Callable[[], None]], names: Sequence[str]
) -> list[Callable[[], None]]:
    """Return the parts of these names; all of them where there is no name.

    Raises:
        ValueError: there is no such part.
    """
    if unknown := [name for name in names if name not in parts]:
        raise ValueError(f"there is no part {unknown[0]!r}; these are {', '.join(parts)}")
    return [parts[name] for name in names or parts]


def all_parts(report: Report, parts: Sequence[Callable[[], None]]) -> Report:
    """Run every part of a benchmark: one that fails takes no other with it."""
    for part in parts:
        try:
            part()
        except Exception as error:
            traceback.print_exc()
            report.error = f"{report.error} {error!r}".strip()
    return report


def _allow_files() -> None:
    """Let what is started have as many connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
