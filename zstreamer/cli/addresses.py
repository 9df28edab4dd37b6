"""`zstreamer addresses`: which brokers an address names, and which of them answer."""

from __future__ import annotations

import json

import rich_click as click

from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import ClientConfig, addresses
from zstreamer.errors import ZStreamerError
from zstreamer.system.exitcodes import ExitCode


@click.command(
    name="addresses",
    **PLAIN,
    epilog=example(
        "zstreamer addresses --address tcp+dns://zs-broker:7787",
        "zstreamer addresses --address file:/shared/broker --json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: address to state.")
@configured(ClientConfig, without=("model", "timeout"))
def command(config: ClientConfig, *, as_json: bool) -> int:
    """Show which brokers an address names, and which of them answer.

    Prints one line for each broker: its address, then up, draining, or why it does not answer. The
    exit code is 0 if any broker answers.
    """
    from zstreamer.wire.lookup import resolved

    states = {address: _state(address, config) for address in resolved(addresses(config.address))}
    if as_json:
        click.echo(json.dumps(states, indent=2))
    else:
        for address, state in states.items():
            click.echo(f"{address}  {clean(state)}")
    up = any(state in ("up", "draining") for state in states.values())
    return ExitCode.OK if up else ExitCode.UNREACHABLE


def _state(address: str, config: ClientConfig) -> str:
    from zstreamer.client.status import fetch

    try:
        broker = fetch(address, config.connect_timeout, config.keys or "")["broker"]
    except ZStreamerError as error:
        return error.message
    return "draining" if isinstance(broker, dict) and broker.get("draining") else "up"
