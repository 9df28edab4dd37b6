"""`zstreamer status`: what a broker knows of its models, workers and queues."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from zstreamer.config import ClientConfig

from .options import PLAIN, configured, example

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]


@click.command(
    **PLAIN,
    epilog=example("zstreamer status", "zstreamer status --address tcp://10.0.0.5:7787 --json"),
)
@click.option("--json", "as_json", is_flag=True, help="Print the broker's own words as JSON.")
@configured(ClientConfig, without=("model", "timeout"))
def status(config: ClientConfig, *, as_json: bool) -> int:
    """Show a broker's models, workers, queue and rates."""
    from zstreamer.client.status import fetch

    found = [
        (address, fetch(address, config.connect_timeout)) for address in config.address.split(",")
    ]
    if as_json:
        click.echo(json.dumps(found[0][1] if len(found) == 1 else dict(found), indent=2))
    else:
        for address, each in found:
            _show(address, each)
    return 0


def _show(address: str, status: Row) -> None:
    from rich.console import Console

    console = Console()
    broker = status["broker"]
    state = "draining" if broker.get("draining") else "up"
    console.print(
        f"[bold]broker[/] {address}: {state} for {_span(broker['uptime'])}, "
        f"{broker.get('clients', 0)} clients, {broker.get('queued_items', 0):,} items "
        f"({_size(broker.get('queued_bytes', 0))}) queued"
    )
    if not status["models"]:
        console.print("no worker has come yet: start one with zstreamer worker MODULE:NAME")
        return
    models = [{"model": name, **each} for name, each in status["models"].items()]
    console.print(_table("models", MODEL_COLUMNS, models))
    workers = [{"model": one["model"], **each} for one in models for each in one["workers"]]
    console.print(_table("workers", WORKER_COLUMNS, workers))


def _table(title: str, columns: Columns, rows: Sequence[Row]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="cyan")
    for heading, _, _ in columns:
        table.add_column(heading, justify="left" if heading in LEFT else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(key), show) for _, key, show in columns))
    return table


def _cell(value: object, show: Callable[[Any], str]) -> str:
    return show(value) if value or value == 0 else "–"


def _amount(value: float) -> str:
    return f"{value:,.0f}"


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
    ("served", "served", _amount),
    ("items/s at most", "capacity", _amount),
    ("ready", "ready", _yes),
    ("trouble", "trouble", str),
)

WORKER_COLUMNS: Columns = (
    ("model", "model", str),
    ("host", "host", str),
    ("pid", "pid", str),
    ("device", "device", str),
    ("state", "state", str),
    ("batch", "batch_size", _amount),
    ("waiting", "waiting", _amount),
    ("running", "running", _amount),
    ("served", "served", _amount),
    ("ms/batch", "beta_ms", _fine),
    ("ms/item", "alpha_ms", _fine),
)

LEFT = {"model", "host", "device", "state", "trouble"}
