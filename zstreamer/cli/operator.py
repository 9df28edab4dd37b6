"""Orders of an operator to a running broker, over its HTTP port."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urlsplit

import rich_click as click

from zstreamer.cli.terminal import clean
from zstreamer.config import OperatorConfig, stays_on_machine
from zstreamer.errors import BrokerUnreachable
from zstreamer.setting import ConfigError

TIMEOUT = 10.0
"""Seconds for one broker."""


def order(
    url: str, token: str, action: str, name: str, change: dict[str, object] | None = None
) -> tuple[int, dict[str, object]]:
    """Return the status of the broker's answer, and what it says.

    Args:
        url: its HTTP port.
        token: of the operator; empty for none.
        action: what is to be done, as `zstreamer.broker.operator` describes it.
        name: to whom.
        change: of a route; None for none.

    Raises:
        ConfigError: the URL is none of a broker.
        BrokerUnreachable: it does not answer.
    """
    connection = _connection(url, token)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    body = json.dumps({"action": action, "name": name, "change": change})
    try:
        connection.request("POST", "/operator", body, headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokerUnreachable(
            f"no broker's HTTP port answers at {url}: {error}; check --broker-url, and that the "
            "broker has an --http-port"
        ) from None
    finally:
        connection.close()
    return answer.status, said if isinstance(said, dict) else {}


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


def _connection(url: str, token: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigError(
            f"broker_url {url!r} is no URL of a broker: give http://HOST:7789, or https://HOST "
            "where a proxy in front of it speaks TLS"
        )
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port or 443, timeout=TIMEOUT)
    if token and not stays_on_machine(f"tcp://{host}:{port or 7789}"):
        words = f"{url}: the operator's token goes there in clear text: give an https:// URL of a "
        click.echo(clean(words + "proxy, or go through a tunnel (ssh -L)"), err=True)
    return http.client.HTTPConnection(host, port or 7789, timeout=TIMEOUT)
