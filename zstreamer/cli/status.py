"""`zstreamer status`: what a broker knows of its models, workers and queues."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import ClientConfig, addresses

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[str, Any]

UNLIMITED = 10_000
"""Columns of what is no terminal: a pipe or a file has no edge."""

MEASURABLE = 1_000_000
"""Items a second beyond which a batch ends too soon for a clock to tell."""

EVERY = 1.0
"""Seconds between two looks of --watch."""

LEAST_TEXT = 8
"""Characters to which a column of words is narrowed before the table leaves the terminal."""


@click.command(
    **PLAIN,
    epilog=example("zstreamer status", "zstreamer status --address tcp://10.0.0.5:7787 --json"),
)
@click.option("--json", "as_json", is_flag=True, help="Print the broker's answer as JSON.")
@click.option("--watch", is_flag=True, help="Show it again each second, until Ctrl-C.")
@configured(ClientConfig, without=("model", "timeout"))
def status(config: ClientConfig, *, as_json: bool, watch: bool) -> int:
    """Show a broker's models, workers, queue and rates."""
    while True:
        found = _fetched(config)
        if watch:
            click.clear()
        if as_json:
            click.echo(json.dumps(found[0][1] if len(found) == 1 else dict(found), indent=2))
        else:
            for address, each in found:
                _show(address, each)
        if not watch:
            return 0
        time.sleep(EVERY)


def _fetched(config: ClientConfig) -> list[tuple[str, Row]]:
    from zstreamer.client.status import fetch
    from zstreamer.wire.lookup import resolved

    keys = config.keys or ""
    places = resolved(addresses(config.address))
    return [(each, fetch(each, config.connect_timeout, keys, look=True)) for each in places]


def _show(address: str, status: Row) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else UNLIMITED, highlight=False)
    broker = status["broker"]
    state = "draining" if broker.get("draining") else "up"
    console.print(
        f"[bold]broker[/] {address}: {state} for {_span(broker['uptime'])}, "
        f"{broker.get('clients', 0)} clients, {broker.get('queued_items', 0):,} items "
        f"({_size(broker.get('queued_bytes', 0))}) queued"
    )
    if not status["models"]:
        console.print("no worker is connected: start one with zstreamer worker MODULE:NAME")
        return
    models = [{"model": name, **each} for name, each in status["models"].items()]
    _print(console, _table("models", MODEL_COLUMNS, models))
    workers = [
        {"model": one["model"], **each, "state": _state(each), "batch_size": _batch(each)}
        for one in models
        for each in one["workers"]
    ]
    _print(console, _table("workers", WORKER_COLUMNS, workers))
    for one in models:
        _print_trouble(one["model"], str(one.get("trouble") or "").strip().splitlines())


def _print_trouble(model: str, lines: Sequence[str]) -> None:
    """Show a traceback below the tables, in which its last line stands."""
    if len(lines) > 1:
        sys.stdout.write(f"\nwhy no worker of model {clean(model)} is ready:\n")
        sys.stdout.writelines(f"  {clean(line)}\n" for line in lines)


def _print(console: Console, table: Table) -> None:
    least = sum(1 + (column.min_width or 0) for column in table.columns) - 1
    console.width = max(console.width, least)  # the terminal breaks the lines, rich would cut them
    console.print(table)


def _table(title: str, columns: Columns, rows: Sequence[Row]) -> Table:
    """A table that breaks words where it must, and no number ever."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", header_style="cyan")
    table.box, table.padding, table.show_edge = SIMPLE_HEAD, 0, False
    for heading, key, show in columns:
        cells = [_cell(row.get(key), show) for row in rows]
        least = max(map(len, [*heading.splitlines(), *cells]))
        if heading in LEFT:
            table.add_column(heading, min_width=min(least, LEAST_TEXT), overflow="fold")
        else:
            table.add_column(heading, justify="right", min_width=least, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_cell(row.get(key), show)) for _, key, show in columns))
    return table


def _state(worker: Row) -> str:
    """A worker's state, and for how long its batch has run where that is worth a look."""
    age = worker.get("batch_age", 0.0)
    return f"{worker['state']}, {age:,.0f} s" if age >= 1 else str(worker["state"])


def _batch(worker: Row) -> str:
    """The mean of the batches that it has run so far, where that is known, and their most."""
    most = _amount(worker.get("batch_size", 0))
    if "items" in worker and worker.get("batches"):
        return f"{worker['items'] / worker['batches']:.1f}/{most}"
    return f"{worker['begun'] / worker['batches']:.1f}/{most}" if worker.get("batches") else most


def _cell(value: object, show: Callable[[Any], str]) -> str:
    return clean(show(value) if value or value == 0 else "–")


def _last_line(text: str) -> str:
    """The last line of a traceback says what was raised; the others stand below the table."""
    return (text.strip().splitlines() or [""])[-1].strip()


def _amount(value: float) -> str:
    return f"{value:,.0f}"


def _rate(value: float) -> str:
    return _amount(value) if value <= MEASURABLE else "–"


def _age(value: float) -> str:
    return f"{value:,.1f}"


def _fine(value: float) -> str:
    return f"{value:,.2f}"


def _span(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


Columns = Sequence[tuple[str, str, Callable[[Any], str]]]

MODEL_COLUMNS: Columns = (
    ("model", "model", str),
    ("queued", "queued", _amount),
    ("running", "running", _amount),
    ("oldest\ns", "oldest", _age),
    ("served", "served", _amount),
    ("items/s\nat most", "capacity", _rate),
    ("ready", "ready", _yes),
    ("trouble", "trouble", _last_line),
)

WORKER_COLUMNS: Columns = (
    ("model", "model", str),
    ("host", "host", str),
    ("pid", "pid", str),
    ("device", "device", str),
    ("state", "state", str),
    ("batch", "batch_size", str),
    ("waiting", "waiting", _amount),
    ("running", "running", _amount),
    ("served", "served", _amount),
    ("ms/\nbatch", "beta_ms", _fine),
    ("ms/\nitem", "alpha_ms", _fine),
)

LEFT = {"model", "host", "device", "state", "trouble"}
