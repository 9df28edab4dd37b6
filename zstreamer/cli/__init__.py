"""The `zstreamer` command: broker, worker, gateway, up, call, map, status, top, doctor, bench …"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Final

import rich_click as click

from zstreamer.cli import (
    addresses,
    bench,
    call,
    doctor,
    gateway,
    hold,
    job,
    keys,
    serve,
    status,
    top,
)
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
    top.top,
    doctor.doctor,
    bench.bench,
    hold.drain,
    hold.refuse,
    hold.resume,
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


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
"""A full disk, a quota, or a terminal that has gone."""


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
    except (click.ClickException, ConfigError) as error:
        words = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return _say(words, ExitCode.USAGE)
    except BrokerUnreachable as error:
        return _say(str(error), ExitCode.UNREACHABLE)
    except ZStreamerError as error:
        return _say(f"{type(error).__name__}: {error}", ExitCode.FAILED)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        return _say(f"the output cannot be written: {error.strerror}", ExitCode.FAILED)
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED


def _say(text: str, code: ExitCode) -> ExitCode:
    label = click.style("error:", fg="red", bold=True)
    click.echo(f"{label} {clean(' '.join(text.split()), sys.stderr)}", err=True)
    return code
