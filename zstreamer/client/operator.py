"""Orders of an operator to a running broker, over its HTTP port."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

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
    connection = _connection(url)
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


def place(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a broker's HTTP port; raises ConfigError where it is none."""
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
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 7789)


def _connection(url: str) -> http.client.HTTPConnection:
    scheme, host, port = place(url)
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    return kind(host, port, timeout=TIMEOUT)
