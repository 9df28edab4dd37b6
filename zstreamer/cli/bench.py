"""`zstreamer bench`: load on a running cluster or a URL, and how it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import rich_click as click

from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import ClientConfig
from zstreamer.setting import ConfigError
from zstreamer.system.exitcodes import ExitCode

if TYPE_CHECKING:
    from zstreamer.bench import Plan, Run
    from zstreamer.bench.load import Tick
    from zstreamer.bench.step import Step

MOST = 10**6
"""Calls a second, or callers."""

HEAD = ("load", "calls/s", "p50", "p95", "p99", "p99.9", "max", "errors")

_FILE = click.Path(path_type=Path, dir_okay=False)
_EXISTING = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command(
    **PLAIN,
    epilog=example(
        'zstreamer bench --model bert "Happy birthday to [MASK]."',
        "zstreamer bench --rates 100,200,400 --seconds 10 --save before.json --plot before.svg",
        "zstreamer bench --callers 1,8,64 --url http://127.0.0.1:8000",
        "zstreamer bench --compare before.json after.json",
    ),
)
@click.argument("inputs", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Inputs are JSON, each an item.")
@click.option(
    "--file", type=_EXISTING, metavar="FILE", help="JSON file: a list of items, or one item."
)
@click.option("--items", type=click.IntRange(1), default=1, help="Items of each call. [dim](1)[/]")
@click.option(
    "--rates",
    default="",
    metavar="N,…",
    help="Open loops of so many calls a second. [dim](swept, to find the knee)[/]",
)
@click.option(
    "--callers",
    default="",
    metavar="N,…",
    help="Closed loops of so many callers, each of whom waits for its answer. [dim](none)[/]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    metavar="SECONDS",
    help="Seconds of each step. [dim](5)[/]",
)
@click.option(
    "--limit",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Seconds within which 99 % of the calls are to be answered, for the knee. "
    "[dim](5 × the median of the lowest rate)[/]",
)
@click.option("--spaced", is_flag=True, help="Calls begin at equal distances, not at random.")
@click.option("--url", metavar="TEXT", help="Post to this URL instead, as a gateway's v1 route.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="TEXT",
    help="Header of each request to the URL, such as 'authorization: Bearer …'.",
)
@click.option("--save", type=_FILE, metavar="FILE", help="File for the run, as JSON.")
@click.option("--plot", type=_FILE, metavar="FILE", help="File for a picture of it, as SVG.")
@click.option(
    "--compare",
    nargs=2,
    type=_EXISTING,
    metavar="FILE FILE",
    help="Measure nothing: show two saved runs side by side.",
)
@configured(ClientConfig)
def bench(
    config: ClientConfig,
    *,
    inputs: tuple[str, ...],
    as_json: bool,
    file: Path | None,
    items: int,
    rates: str,
    callers: str,
    seconds: float,
    limit: float | None,
    spaced: bool,
    url: str | None,
    headers: tuple[str, ...],
    save: Path | None,
    plot: Path | None,
    compare: tuple[Path, Path] | None,
) -> int:
    """Load a running cluster, or a URL, and show how it answers.

    INPUTS are sent in turn, again and again; without any, the model's own example is. Without
    --rates and --callers, rates are doubled until one cannot be kept up, and then the knee is
    looked for.

    Latency is counted from the moment when a call was to begin, so calls that a stall holds up
    count as late. The load is made by this one process; where it cannot keep up it says so. The
    exit code is 1 where calls failed in a step of --rates or --callers.
    """
    from zstreamer.bench import Plan, Run

    if compare is not None:
        return _compare(*compare)
    given = _items(inputs, file, as_json=as_json) or _example(config, url)
    run = Run(url or config.address, config.model, items, limit)
    plan = Plan(
        _numbers("--rates", rates, float),
        _numbers("--callers", callers, int),
        seconds,
        min(1.0, seconds),
        limit,
        spaced,
    )
    asyncio.run(_measure(config, given, url, headers, run, plan))
    _tell_knee(run)
    if save is not None:
        save.write_text(run.to_json(), encoding="utf-8")
    if plot is not None:
        from zstreamer.bench.plot import svg

        plot.write_text(svg(run), encoding="utf-8")
    failed = any(step.errors for step in run.steps) and (plan.rates or plan.callers)
    return ExitCode.FAILED if failed else ExitCode.OK


async def _measure(
    config: ClientConfig,
    items: Sequence[object],
    url: str | None,
    headers: Sequence[str],
    run: Run,
    plan: Plan,
) -> None:
    from zstreamer.aio import Client
    from zstreamer.bench import measure
    from zstreamer.bench.http import Url
    from zstreamer.bench.targets import Cluster

    with _progress() as begin:
        if url is not None:
            target = Url(url, config.model, items, run.items, config.timeout, headers)
            try:
                await measure(target, run, plan, begin, _tell)
            finally:
                target.close()
            return
        async with Client(
            config.address,
            model=config.model,
            connect_timeout=config.connect_timeout,
            keys=config.keys or "",
        ) as client:
            await client.wait_ready(config.timeout)
            cluster = Cluster(client, items, run.items, config.timeout)
            await measure(cluster, run, plan, begin, _tell)


N = TypeVar("N", int, float)


def _numbers(option: str, text: str, of: Callable[[str], N]) -> tuple[N, ...]:
    try:
        found = tuple(of(each) for each in text.split(",")) if text else ()
    except ValueError:
        found = (of("0"),)
    if not all(0 < each <= MOST for each in found):
        raise ConfigError(f"{option} is {text!r}: give numbers above 0 with commas, as 100,200")
    return found


def _items(inputs: Sequence[str], file: Path | None, *, as_json: bool) -> list[object]:
    from zstreamer.bench.targets import decoded

    if file is not None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file} is not JSON: {error}") from None
        return [decoded(each) for each in (found if isinstance(found, list) else [found])]
    if not as_json:
        return list(inputs)
    try:
        return [decoded(json.loads(each)) for each in inputs]
    except ValueError as error:
        raise ConfigError(f"an input is not JSON ({error}): quote text twice") from None


def _example(config: ClientConfig, url: str | None) -> list[object]:
    if url is not None:
        raise ConfigError("no item given: name one, or --json and --file")
    from zstreamer.bench.targets import example_of

    found = example_of(config.address, config.model, config.keys or "")
    click.echo(f"item: the model's own example, {clean(repr(found[0])):.200}", err=True)
    return found


@contextmanager
def _progress() -> Iterator[Callable[[str], Tick]]:
    """Show a bar for each step on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    click.echo(_line(HEAD))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=1.0)

        def begin(words: str) -> Tick:
            bar.reset(task, description=words)
            return lambda share: bar.update(task, completed=share)

        yield begin


def _tell(step: Step) -> None:
    errors = ", ".join(f"{count} {kind}" for kind, count in step.errors.items()) or "0"
    times = (_time(each) for each in (step.p50, step.p95, step.p99, step.p999, step.max))
    click.echo(_line((step.name, f"{step.throughput:,.5g}", *times, errors)))
    if step.late > max(0.001, 0.1 * step.p99):
        words = f"this program began calls up to {_time(step.late)} late: it is at its own limit"
        click.echo(f"  {words}", err=True)


def _tell_knee(run: Run) -> None:
    from zstreamer.bench.sweep import limit_of

    if not any(step.rate for step in run.steps):
        return
    within = f"99 % within {_time(limit_of(run.steps, run.limit))}"
    if run.knee is None:
        click.echo(f"no rate was kept up ({within})")
    else:
        click.echo(f"knee: {run.knee.name} ({within}), {run.knee.rate * run.items:g} items/s")


def _compare(first: Path, second: Path) -> int:
    from zstreamer.bench.compare import rows
    from zstreamer.bench.run import read

    found = rows(read(first), read(second))
    if not found:
        raise ConfigError(
            "the runs have no step in common: give both the same --rates or --callers"
        )
    head = ("load", "figure", first.stem, second.stem, "ratio", "")
    click.echo(_line(head))
    for row in found:
        plain = row.name in ("knee", "throughput", "errors")
        values = (f"{v:,.5g}" if plain else _time(v) for v in (row.before, row.after))
        word = "" if row.better is None else "better" if row.better else "worse"
        click.echo(_line((row.step, row.name, *values, f"{row.ratio:.2f}", word)))
    return ExitCode.OK


def _line(cells: Sequence[str]) -> str:
    first, *others = cells
    return f"{first:<12}" + "".join(f"{each:>11.11}" for each in others[:-1]) + f"  {others[-1]}"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
