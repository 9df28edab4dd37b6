"""`zstreamer map`: runs a model over a file of inputs, of any length."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import rich_click as click

from zstreamer.cli.json_lines import CountedInputs, Inputs, Results, open_output
from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.config import ClientConfig, MapConfig
from zstreamer.errors import BrokerUnreachable
from zstreamer.setting import ConfigError
from zstreamer.system import logs
from zstreamer.system.exitcodes import ExitCode


@click.command(
    "map",
    **PLAIN,
    epilog=example(
        "zstreamer map texts.jsonl -o out.jsonl",
        "zstreamer map texts.jsonl -o out.jsonl --resume",
        "zcat texts.jsonl.gz | zstreamer map - --model bert | gzip > out.jsonl.gz",
    ),
)
@click.argument("source", metavar="FILE", default="-")
@click.option(
    "-o",
    "--output",
    default="-",
    metavar="FILE",
    help="File for the outputs; - is standard output. [dim](-)[/]",
)
@click.option("--resume", is_flag=True, help="Continue an output file where it ends.")
@click.option("--progress/--no-progress", default=None, help="Show a bar. [dim](on a terminal)[/]")
@configured(ClientConfig, MapConfig)
def map_(
    client_config: ClientConfig,
    config: MapConfig,
    source: str,
    output: str,
    *,
    resume: bool,
    progress: bool | None,
) -> int:
    """Run a model over a file of inputs, one JSON value a line.

    FILE - is standard input. Writes one line for each input, in the order of the inputs: the index
    of the input, from 0, with its output or its error. What is done stays if it is stopped,
    and --resume goes on from there. The exit code is 7 where some inputs failed.
    """
    from zstreamer import Client

    logs.start("warning")
    with ExitStack() as stack:
        file = _input(source, stack)
        written, start = open_output(output, resume=resume)
        stack.enter_context(_writing(output))
        if written is not sys.stdout.buffer:
            stack.enter_context(written)
        shown = (
            sys.stderr.isatty() and find_spec("tqdm") is not None if progress is None else progress
        )
        kind = CountedInputs if shown and source != "-" and file.seekable() else Inputs
        client = stack.enter_context(
            Client(
                client_config.address,
                model=client_config.model,
                connect_timeout=client_config.connect_timeout,
                keys=client_config.keys or "",
            )
        )
        results = Results(written)
        stack.callback(results.close)
        outputs = client.map(
            kind(file, start, source),
            start=start,
            chunk=config.chunk,
            progress=shown,
            timeout=config.timeout,
            patience=config.patience,
        )
        begun = time.monotonic()
        try:
            for index, each in enumerate(outputs, start):
                results.write(index, each)
        finally:
            seconds = time.monotonic() - begun
            _tell(start, results.written, outputs.failed, seconds, resumable=output != "-")
    return ExitCode.ITEMS if outputs.failed else ExitCode.OK


def _input(source: str, stack: ExitStack) -> BinaryIO:
    if source == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(source).open("rb"))
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}") from None


@contextmanager
def _writing(output: str) -> Iterator[None]:
    """Say what is wrong with the output where it can no longer be written."""
    try:
        yield
    except BrokerUnreachable:  # an OSError too
        raise
    except OSError as error:
        name = "standard output" if output == "-" else output
        raise ConfigError(f"{name} cannot be written: {error.strerror}") from None


def _tell(start: int, count: int, failed: int, seconds: float, *, resumable: bool) -> None:
    words = f"{count:,} items in {seconds:.1f} s, {failed:,} failed"
    if sys.exc_info()[0] is not None:
        words += f"; stopped before item {start + count}"
        if resumable:
            words += ", and --resume goes on there"
    click.echo(words, err=True)
