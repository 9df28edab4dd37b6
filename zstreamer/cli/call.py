"""`zstreamer call`: sends inputs to a model and prints its answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import rich_click as click

from zstreamer.cli.json_lines import plain
from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import ClientConfig
from zstreamer.setting import ConfigError
from zstreamer.system.exitcodes import ExitCode


@click.command(
    **PLAIN,
    epilog=example(
        'zstreamer call "Happy birthday to [MASK]."',
        "zstreamer call --model bert - < sentences.txt",
        """zstreamer call --json '{"text": "Hello", "beams": 4}'""",
    ),
)
@click.argument("inputs", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Inputs and answers are JSON, one per line.")
@configured(ClientConfig)
def call(config: ClientConfig, inputs: tuple[str, ...], *, as_json: bool) -> int:
    """Send inputs to a model and print its answers.

    Without INPUTS, or with -, each line of standard input is one input. Prints one answer per line,
    in the order of the inputs. A failed input gives an empty line (null with --json), and its error
    goes to standard error; the exit code is then 1.
    """
    from zstreamer import Client

    items = [_item(line, as_json=as_json) for line in _lines(inputs)]
    with Client(
        config.address,
        model=config.model,
        timeout=config.timeout,
        connect_timeout=config.connect_timeout,
        keys=config.keys or "",
    ) as client:
        return _print(client.predict(items, return_exceptions=True), as_json=as_json)


def _lines(inputs: tuple[str, ...]) -> Iterable[str]:
    if inputs and inputs != ("-",):
        return inputs
    if sys.stdin.isatty():
        click.echo("reading one input per line; Ctrl-D ends the input", err=True)
    return (line.rstrip("\r\n") for line in sys.stdin)


def _item(line: str, *, as_json: bool) -> object:
    try:
        return json.loads(line) if as_json else line
    except ValueError as error:
        raise ConfigError(
            f"the input {line!r} is not JSON ({error}): quote text twice, as '\"hi\"'"
        ) from None


def _print(answers: Iterable[object], *, as_json: bool) -> int:
    code = ExitCode.OK
    for index, answer in enumerate(answers):
        if isinstance(answer, Exception):
            code = ExitCode.FAILED
            click.echo(_lines_of(f"input {index}: {type(answer).__name__}: {answer}"), err=True)
        shown = _shown(answer, as_json=as_json)
        # A program reads what was answered; a terminal would obey it. click.echo changes both.
        sys.stdout.write((_lines_of(shown) if sys.stdout.isatty() else shown) + "\n")
    return code


def _lines_of(text: str) -> str:
    return "\n".join(clean(line) for line in text.splitlines())


def _shown(answer: object, *, as_json: bool) -> str:
    if isinstance(answer, Exception):
        return "null" if as_json else ""
    if isinstance(answer, str) and not as_json:
        return answer
    return json.dumps(answer, ensure_ascii=False, default=plain)
