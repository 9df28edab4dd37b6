"""`zstreamer drain`, `refuse` and `resume`: keep peers from work, or from a broker, by name."""

from __future__ import annotations

import rich_click as click

from zstreamer.cli.operator import carried_out
from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import OperatorConfig
from zstreamer.system.exitcodes import ExitCode


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
    all of a model, "model NAME@VERSION" for those of a version, or broker. Drained workers stay
    connected, and zstreamer resume ends it. With several brokers give all of their URLs.
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
    done = 0
    for url, said in carried_out(config, action, name):
        done += 1
        click.echo(clean(f"{url}: {action} {name}: {_outcome(said)}"))
    return ExitCode.OK if done == len(config.broker_url) else ExitCode.FAILED


def _outcome(said: dict[str, object]) -> str:
    if "draining" in said:
        return "the broker drains" if said["draining"] else "the broker takes items"
    if "refused" in said:
        return f"{said['refused']} sessions of this name have ended"
    drained = said.get("drained")
    held = len(drained) if isinstance(drained, list) else 0
    return f"{held} of {said.get('workers', 0)} workers of this name are drained now"
