"""`zstreamer doctor`: says what is wrong with a running cluster, worst first."""

from __future__ import annotations

import json

import rich_click as click

from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import ClientConfig
from zstreamer.system.exitcodes import ExitCode


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer doctor",
        "zstreamer doctor --address tcp://10.0.0.5:7787,tcp://10.0.0.6:7787 --seconds 10",
        "zstreamer doctor --url http://127.0.0.1:8000/",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 600),
    default=3.0,
    metavar="SECONDS",
    help="Seconds to look. [dim](3)[/]",
)
@click.option("--only", metavar="TEXT", help="Look at this model only. [dim](all)[/]")
@click.option(
    "--url",
    metavar="TEXT",
    help="A page of the web server in front, to look at too. [dim](none)[/]",
)
@configured(ClientConfig, without=("model", "timeout", "connect_timeout"))
def doctor(
    config: ClientConfig, *, as_json: bool, seconds: float, only: str | None, url: str | None
) -> int:
    """Say what is wrong with a running cluster, how that is known, and what to do.

    Looks at the brokers for some seconds; the worst comes first. The exit code is 0 where nothing
    is wrong, 1 where something is, and 3 where a broker cannot be reached.
    """
    from zstreamer.doctor import examine

    report = examine(config.address, seconds=seconds, model=only, url=url, keys=config.keys or "")
    if as_json:
        click.echo(json.dumps(report.plain(), indent=2))
    else:
        for line in str(report).splitlines():
            click.echo(clean(line))
    if any(each.severity >= 99 for each in report.findings):
        return ExitCode.UNREACHABLE
    return ExitCode.OK if report.healthy else ExitCode.FAILED
