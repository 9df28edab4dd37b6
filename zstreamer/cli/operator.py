"""Orders of an operator to a running broker, with a warning where their token can be read."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

import rich_click as click

from zstreamer.cli.terminal import clean
from zstreamer.client import operator
from zstreamer.config import OperatorConfig, stays_on_machine


def order(
    url: str, token: str, action: str, name: str, change: dict[str, object] | None = None
) -> tuple[int, dict[str, object]]:
    """Return the status of the broker's answer, and what it says; see `operator.order`.

    Raises:
        ConfigError: the URL is none of a broker.
        BrokerUnreachable: it does not answer.
    """
    point_out(url, token)
    return operator.order(url, token, action, name, change)


def carried_out(
    config: OperatorConfig, action: str, name: str, change: dict[str, object] | None = None
) -> Iterator[tuple[str, dict[str, object]]]:
    """Give all brokers an order; yield URL and answer of each that has carried it out.

    Why another has not is said on standard error. Arguments and errors as for `order`.
    """
    for url in config.broker_url:
        status, said = order(url, config.operator_token, action, name, change)
        if status == HTTPStatus.OK:
            yield url, said
        else:
            why = said.get("error", f"it answered with status {status}")
            click.echo(clean(f"{url}: not done: {why}"), err=True)


def point_out(url: str, token: str) -> None:
    """Say that a token goes over a network in clear text, where it does.

    Raises:
        ConfigError: the URL is none of a broker.
    """
    scheme, host, port = operator.place(url)
    if token and scheme == "http" and not stays_on_machine(f"tcp://{host}:{port}"):
        words = f"{url}: the operator's token goes there in clear text: give an https:// URL of a "
        click.echo(clean(words + "proxy, or go through a tunnel (ssh -L)"), err=True)
