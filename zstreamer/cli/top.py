"""`zstreamer top`: the models and workers of a broker, as they are now, second by second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import rich_click as click

from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import ClientConfig, addresses

if TYPE_CHECKING:
    from rich.table import Table

    from zstreamer.doctor.evidence import Broker, Model, Sample, Worker


@click.command(**PLAIN, epilog=example("zstreamer top", "zstreamer top --every 5"))
@click.option(
    "--every",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    metavar="SECONDS",
    help="Seconds between two looks. [dim](1)[/]",
)
@click.option(
    "--times", type=click.IntRange(1), metavar="N", help="How many looks. [dim](until Ctrl-C)[/]"
)
@configured(ClientConfig, without=("model", "timeout"))
def top(config: ClientConfig, *, every: float, times: int | None) -> int:
    """Show a broker's models and workers live: throughput, queue, latency and batch sizes.

    Figures are those of the time since the last look. Ctrl-C ends it.
    """
    from rich.console import Console, Group
    from rich.live import Live

    from zstreamer.doctor.evidence import Broker

    places = addresses(config.address)
    before = {each: _sample(each, config) for each in places}
    console = Console(highlight=False)
    looks = 0
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while times is None or looks < times:
            time.sleep(every)
            looks += 1
            tables = []
            for each in places:
                now = _sample(each, config)
                tables += _tables(Broker(each, [before[each], now]))
                before[each] = now
            live.update(Group(*tables), refresh=True)
    return 0


def _sample(address: str, config: ClientConfig) -> Sample:
    from zstreamer.client.status import fetch
    from zstreamer.doctor.evidence import Sample

    return Sample(
        time.time(), 0.0, fetch(address, config.connect_timeout, config.keys or "", look=True)
    )


def _tables(broker: Broker) -> list[Table]:
    from rich.text import Text

    state = "draining" if broker.last.get("draining") else "up"
    models = _table(f"{broker.address}  {state}, {broker.last.get('clients', 0)} clients", MODELS)
    workers = _table("workers", WORKERS)
    for model in broker.models.values():
        models.add_row(*(Text(clean(each)) for each in _model(model)))
        for worker in model.workers:
            workers.add_row(*(Text(clean(each)) for each in _worker(model, worker)))
    return [models, workers]


MODELS = ("model", "items/s", "queued", "oldest s", "open", "mean ms", "batch", "busy", "failed/s")
WORKERS = ("worker", "model", "state", "items/s", "batch", "busy", "held", "runs s", "ms/batch")
_WORDS = ("model", "worker", "state")


def _table(title: str, columns: tuple[str, ...]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(clean(title)), title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.show_edge = False
    for column in columns:
        words = column in _WORDS
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table


def _model(model: Model) -> list[str]:
    done = model.grown("answered")
    return [
        model.name,
        f"{model.rate('answered'):,.0f}",
        f"{model.queued[-1]:,.0f}",
        f"{_number(model.last.get('oldest')):,.1f}",
        f"{model.open_mean:,.1f}",
        f"{model.grown('seconds') / done * 1000:,.1f}" if done else "–",
        f"{model.mean_batch:,.1f}/{model.batch_size}",
        f"{model.busy:.0%}",
        f"{model.rate('failed'):,.0f}",
    ]


def _worker(model: Model, worker: Worker) -> list[str]:
    batches = worker.grown("batches")
    return [
        worker.name,
        model.name,
        worker.state,
        f"{worker.grown('served') / model.seconds:,.0f}" if model.seconds else "–",
        f"{worker.grown('items') / batches:,.1f}" if batches else "–",
        f"{worker.busy:.0%}" if worker.seconds else "–",
        f"{worker.value('waiting') + worker.value('running'):,.0f}",
        f"{worker.value('batch_age'):,.1f}",
        f"{worker.batch_seconds * 1000:,.1f}" if batches else "–",
    ]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
