"""`zstreamer roll`: replace a model's version by another without losing an item."""

from __future__ import annotations

import time

import rich_click as click

from zstreamer.cli.operator import order
from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.rolling import Phase, Roll, Row
from zstreamer.cli.terminal import clean
from zstreamer.config import OperatorConfig
from zstreamer.errors import BrokerUnreachable
from zstreamer.setting import VERSION, VERSION_WORDS, ConfigError
from zstreamer.system.exitcodes import ExitCode

LOOK = 0.3
"""Seconds between two looks."""


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer roll bert --to 2",
        "zstreamer roll bert --to 2 --workers 4 --steps 1,10,50,100 --pause 60",
    ),
)
@click.argument("model")
@click.option("--to", required=True, metavar="VERSION", help="The version that is to replace all.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Workers of it that must be warm first. (as many as the other versions have)",
)
@click.option(
    "--steps",
    default="10,50,100",
    show_default=True,
    metavar="A,B,…",
    help="Per cent of the items that it gets, step by step.",
)
@click.option(
    "--pause",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds of each step but the last.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds to wait for its workers, and for the others to finish.",
)
@configured(OperatorConfig)
def roll(
    config: OperatorConfig,
    *,
    model: str,
    to: str,
    workers: int | None,
    steps: str,
    pause: float,
    timeout: float,
) -> int:
    """Replace the other versions of a model by one: wait, shift the items, drain the old workers.

    Begin before the new version's workers are started, else they get items as soon as they are
    warm. Nothing is shifted before they are, and if they fail meanwhile all goes as before. With
    several brokers give all of their URLs.
    """
    if not VERSION.fullmatch(to):
        raise ConfigError(f"--to is {to!r}: a version has {VERSION_WORDS}")
    plan = Roll(
        model,
        to,
        time.monotonic(),
        workers=workers,
        steps=_percentages(steps),
        pause=pause,
        timeout=timeout,
    )
    for url in config.broker_url:  # an earlier replacement may have drained this version
        _send(config, url, "resume", f"model {model}@{to}", None, may_fail=True)
    try:
        _follow(config, plan, model)
    except KeyboardInterrupt:
        plan.give_up("stopped")
        _step(config, plan, model)
        _tell(plan)
        raise
    return ExitCode.OK if plan.phase is Phase.DONE else ExitCode.FAILED


def _percentages(text: str) -> list[float]:
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or sorted(set(found)) != found or found[0] <= 0 or found[-1] != 100:
        raise ConfigError(f"--steps is {text!r}: give rising percentages to 100, such as 10,50,100")
    return found


def _follow(config: OperatorConfig, plan: Roll, model: str) -> None:
    first = True
    while not plan.ended:
        if not first:
            time.sleep(LOOK)
        rows = {url: _row(config, url, model, must=first) for url in config.broker_url}
        first = False
        plan.look(time.monotonic(), rows)
        _order(config, plan, rows)
        _tell(plan)


def _step(config: OperatorConfig, plan: Roll, model: str) -> None:
    _order(config, plan, {url: _row(config, url, model) for url in config.broker_url})


def _order(config: OperatorConfig, plan: Roll, rows: dict[str, Row | None]) -> None:
    for url, row in rows.items():
        for action, name, change in plan.orders(url, row):
            _send(config, url, action, name, change)


def _row(config: OperatorConfig, url: str, model: str, *, must: bool = False) -> Row | None:
    try:
        said = _send(config, url, "route", model, None)
    except BrokerUnreachable:
        if must:
            raise
        return None
    routes = said.get("routes")
    row = routes.get(model, {}) if isinstance(routes, dict) else {}
    if "alias" in row:
        raise ConfigError(f"{model} is another name of {row['alias']}: give the model's own")
    return row if isinstance(row, dict) else {}


def _send(
    config: OperatorConfig,
    url: str,
    action: str,
    name: str,
    change: dict[str, object] | None,
    *,
    may_fail: bool = False,
) -> dict[str, object]:
    status, said = order(url, config.operator_token, action, name, change)
    if status != 200 and not may_fail:
        why = said.get("error", f"it answered with status {status}")
        raise ConfigError(f"{url}: not done: {action} {name}: {why}")
    return said


def _tell(plan: Roll) -> None:
    for line in plan.words:
        click.echo(clean(line))
    plan.words.clear()
