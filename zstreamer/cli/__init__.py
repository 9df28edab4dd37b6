"""The `zstreamer` command: broker, worker, gateway, up, call, map, status, addresses and keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import rich_click as click

from zstreamer.cli import addresses, call, gateway, job, keys, serve, status
from zstreamer.cli.options import PLAIN, example
from zstreamer.cli.terminal import clean, forgive
from zstreamer.errors import BrokerUnreachable, ZStreamerError
from zstreamer.setting import ConfigError
from zstreamer.system.exitcodes import ExitCode

COMMANDS: Final = (
    serve.broker,
    serve.worker,
    gateway.gateway,
    serve.up,
    call.call,
    job.map_,
    status.status,
    addresses.command,
    keys.keys,
)


@click.group(
    **PLAIN,
    epilog=example(
        "zstreamer broker",
        "zstreamer worker bert_model:ManagedBertModel --num 2",
        'zstreamer call "Happy birthday to [MASK]."',
    ),
)
@click.version_option(package_name="zstreamer", message="%(package)s %(version)s")
def group() -> None:
    """Batch single model inputs from many processes onto GPU workers."""


for command in COMMANDS:
    group.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; arguments: those of the program where not given."""
    sys.exit(run(group, arguments))


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code, once any error is printed as a clear line."""
    name = "zstreamer" if command is group else f"python -m {command.name}"
    forgive()
    try:
        given = None if arguments is None else list(arguments)
        return int(command.main(given, prog_name=name, standalone_mode=False) or ExitCode.OK)
    except click.ClickException as error:
        return _say(error.format_message(), ExitCode.USAGE)
    except ConfigError as error:
        return _say(str(error), ExitCode.USAGE)
    except BrokerUnreachable as error:
        return _say(str(error), ExitCode.UNREACHABLE)
    except ZStreamerError as error:
        return _say(f"{type(error).__name__}: {error}", ExitCode.FAILED)
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED


def _say(text: str, code: ExitCode) -> ExitCode:
    label = click.style("error:", fg="red", bold=True)
    click.echo(f"{label} {clean(' '.join(text.split()), sys.stderr)}", err=True)
    return code
