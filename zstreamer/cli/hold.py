"""`zstreamer drain`, `refuse` and `resume`: keep peers from work, or from a broker, by name."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import rich_click as click

from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import OperatorConfig, stays_on_machine
from zstreamer.errors import BrokerUnreachable
from zstreamer.setting import ConfigError
from zstreamer.system.exitcodes import ExitCode

TIMEOUT = 10.0
"""Seconds for one broker."""


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer drain gpu-host-3:4711",
        'zstreamer drain "model bert" --broker-url http://10.0.0.5:7789,http://10.0.0.6:7789',
        "zstreamer drain broker",
    ),
)
@click.argument("name")
@configured(OperatorConfig)
def drain(config: OperatorConfig, name: str) -> int:
    """Keep workers, or a broker, from new items; what they hold they finish.

    NAME is a worker's host:pid as status shows it, a host for all of its workers, "model NAME" for
    all of a model, or broker. Drained workers stay connected, and zstreamer resume ends it. With
    several brokers give all of their URLs.
    """
    return _order(config, "drain", name)


@click.command(**PLAIN, epilog=example("zstreamer refuse web-2:311"))
@click.argument("name")
@configured(OperatorConfig)
def refuse(config: OperatorConfig, name: str) -> int:
    """End the sessions of clients and workers, and refuse them when they come back.

    NAME is a client's or a worker's host:pid, a host for all of its programs, or "model NAME" for
    all workers of a model. Calls of a refused client end with Unauthorized; what a refused worker
    held runs elsewhere. It lasts until zstreamer resume, or the broker's next start. A program that
    lies about its host is not stopped by this: revoke its key.
    """
    return _order(config, "refuse", name)


@click.command(**PLAIN, epilog=example("zstreamer resume gpu-host-3:4711"))
@click.argument("name")
@configured(OperatorConfig)
def resume(config: OperatorConfig, name: str) -> int:
    """Undo zstreamer drain and zstreamer refuse for this name."""
    return _order(config, "resume", name)


def _order(config: OperatorConfig, action: str, name: str) -> int:
    code = ExitCode.OK
    for url in config.broker_url:
        status, said = _send(url, config.operator_token, action, name)
        if status == 200:
            words = f"{action} {name}: {_outcome(said)}"
        else:
            code = ExitCode.FAILED
            words = f"not done: {said.get('error', f'it answered with status {status}')}"
        click.echo(clean(f"{url}: {words}"), err=status != 200)
    return code


def _outcome(said: dict[str, object]) -> str:
    if "draining" in said:
        return "the broker drains" if said["draining"] else "the broker takes items"
    if "refused" in said:
        return f"{said['refused']} sessions of this name have ended"
    drained = said.get("drained")
    held = len(drained) if isinstance(drained, list) else 0
    return f"{held} of {said.get('workers', 0)} workers of this name are drained now"


def _send(url: str, token: str, action: str, name: str) -> tuple[int, dict[str, object]]:
    """Return the status of the broker's answer, and what it says."""
    connection = _connection(url, token)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    body = json.dumps({"action": action, "name": name})
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
