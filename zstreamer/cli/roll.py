"""`zstreamer roll`: replace a model's version by another without losing an item."""

from __future__ import annotations

import time
from http import HTTPStatus

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

LAST = 30.0
"""Seconds that a broker has to take the last orders, once the end is known."""


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
    help="Workers of it that must be warm first. [dim](as many as the other versions have)[/]",
)
@click.option(
    "--steps",
    default="10,50,100",
    metavar="A,B,…",
    help="Per cent of the items that it gets, step by step. [dim](10,50,100)[/]",
)
@click.option(
    "--pause",
    type=click.FloatRange(min=0),
    default=5.0,
    metavar="SECONDS",
    help="Seconds of each step but the last. [dim](5)[/]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=600.0,
    metavar="SECONDS",
    help="Seconds to wait for its workers, and for the others to finish. [dim](600)[/]",
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
        order(url, config.operator_token, "resume", f"model {model}@{to}")
    try:
        told = _follow(config, plan, model)
    except BaseException as error:
        plan.give_up("stopped" if isinstance(error, KeyboardInterrupt) else "an order failed")
        _finish(config, plan, model)
        raise
    return ExitCode.OK if told and plan.phase is Phase.DONE else ExitCode.FAILED


def _percentages(text: str) -> list[float]:
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or sorted(set(found)) != found or found[0] <= 0 or found[-1] != 100:
        raise ConfigError(f"--steps is {text!r}: give rising percentages to 100, such as 10,50,100")
    return found


def _follow(config: OperatorConfig, plan: Roll, model: str) -> bool:
    """Carry the plan out; return whether all brokers have what it ended with."""
    while True:
        rows = {url: _row(config, url, model) for url in config.broker_url}
        plan.look(time.monotonic(), rows)
        told = [_order(config, plan, url, row) for url, row in rows.items()]
        _tell(plan)
        if plan.ended:
            return all(told) or _finish(config, plan, model)
        time.sleep(LOOK)


def _finish(config: OperatorConfig, plan: Roll, model: str) -> bool:
    """Have all brokers as the plan's end wants them; return whether they are.

    One that does not answer is asked again, for `LAST` seconds. One that refuses is not.
    """
    end = time.monotonic() + LAST
    waiting, refused = [url for url in config.broker_url if url in plan.begun], False
    while waiting:
        for url in list(waiting):
            try:
                done = _order(config, plan, url, _row(config, url, model))
            except ConfigError as error:
                plan.words.append(str(error))
                done = refused = True
            if done:
                waiting.remove(url)
        if waiting and time.monotonic() >= end:
            fix = f"look at its route with: zstreamer route {model}"
            plan.words += [f"{url} does not answer, and was not told; {fix}" for url in waiting]
            break
        _tell(plan)
        if waiting:
            time.sleep(LOOK)
    _tell(plan)
    return not (waiting or refused)


def _order(config: OperatorConfig, plan: Roll, url: str, row: Row | None) -> bool:
    """Tell a broker what it must do; return whether it has done it."""
    if row is None:
        return url not in plan.begun
    return all(
        _send(config, url, action, name, change) is not None
        for action, name, change in plan.orders(url, row)
    )


def _row(config: OperatorConfig, url: str, model: str) -> Row | None:
    said = _send(config, url, "route", model, None)
    if said is None:
        return None
    routes = said.get("routes")
    row = routes.get(model, {}) if isinstance(routes, dict) else {}
    if "alias" in row:
        raise ConfigError(f"{model} is another name of {row['alias']}: give the model's own")
    return row if isinstance(row, dict) else {}


def _send(
    config: OperatorConfig, url: str, action: str, name: str, change: dict[str, object] | None
) -> dict[str, object] | None:
    """Return what a broker answers; None where it does not answer now."""
    try:
        status, said = order(url, config.operator_token, action, name, change)
    except BrokerUnreachable:
        return None
    if status == HTTPStatus.SERVICE_UNAVAILABLE:  # its loop is busy
        return None
    gone = status == HTTPStatus.NOT_FOUND and action == "drain"  # the workers have left
    if status != HTTPStatus.OK and not gone:
        why = said.get("error", f"it answered with status {status}")
        raise ConfigError(f"{url}: not done: {action} {name}: {why}")
    return said


def _tell(plan: Roll) -> None:
    for line in plan.words:
        click.echo(clean(line))
    plan.words.clear()
