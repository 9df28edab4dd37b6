"""`zstreamer route`: show or change which version of a model gets which items."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import rich_click as click

from zstreamer.cli.operator import carried_out
from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.cli.terminal import clean
from zstreamer.config import OperatorConfig
from zstreamer.system.exitcodes import ExitCode

NONE = "none"


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer route",
        "zstreamer route bert 1=90 2=10",
        "zstreamer route bert --shadow 3 --shadow-share 0.5",
        "zstreamer route bert --hold 2=4",
        "zstreamer route stable --alias bert@1",
        "zstreamer route bert --clear",
    ),
)
@click.argument("name", default="", required=False)
@click.argument("weights", nargs=-1, metavar="[VERSION=WEIGHT]...")
@click.option(
    "--hold",
    multiple=True,
    metavar="VERSION=N",
    help="Give a version nothing until N of its workers are warm; N of 1 ends that.",
)
@click.option(
    "--shadow",
    metavar="VERSION",
    help="Have a version run copies of items, and drop its answers; none ends that.",
)
@click.option(
    "--shadow-share",
    type=float,
    metavar="SHARE",
    help="Share of the items that is copied. [dim](1)[/]",
)
@click.option(
    "--alias", metavar="MODEL|MODEL@VERSION", help="What NAME stands for; none ends that."
)
@click.option("--clear", is_flag=True, help="Forget all that was said of NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print the brokers' answers as JSON.")
@configured(OperatorConfig)
def route(
    config: OperatorConfig,
    *,
    name: str,
    weights: tuple[str, ...],
    hold: tuple[str, ...],
    shadow: str | None,
    shadow_share: float | None,
    alias: str | None,
    clear: bool,
    as_json: bool,
) -> int:
    """Show or change which version of a model gets which items.

    Workers announce a version with zstreamer worker --version. Weights are shares of their sum.
    They replace those that were there, as --hold does; =WEIGHT is for workers without a version.
    Without weights versions share as they have warm workers. What is changed here holds until the
    broker restarts, or its --routes file changes. With several brokers give all of their URLs.
    """
    change: dict[str, object] = {}
    if clear:
        change = dict.fromkeys(("weights", "hold", "shadow", "shadow_share", "alias"))
    if weights:
        change["weights"] = dict(_pair(each, "90") for each in weights)
    if hold:
        change["hold"] = {version: int(n) for version, n in (_pair(each, "4") for each in hold)}
    if shadow is not None:
        change["shadow"] = None if shadow == NONE else shadow
    if shadow_share is not None:
        change["shadow_share"] = shadow_share
    if alias is not None:
        change["alias"] = None if alias == NONE else alias
    if change and not name:
        raise click.UsageError("give the name whose route is to change")
    return _order(config, name, change or None, as_json)


def _pair(text: str, number: str) -> tuple[str, float]:
    version, found, amount = text.partition("=")
    try:
        if found:
            return version, float(amount)
    except ValueError:
        pass
    raise click.UsageError(f"{text!r} is no VERSION=NUMBER: write it as 2={number}")


def _order(
    config: OperatorConfig, name: str, change: dict[str, object] | None, as_json: bool
) -> int:
    answers: dict[str, object] = {}
    for url, said in carried_out(config, "route", name, change):
        answers[url] = said.get("routes")
        if not as_json:
            _show(url, name, answers[url])
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    return ExitCode.OK if len(answers) == len(config.broker_url) else ExitCode.FAILED


def _show(url: str, name: str, routes: object) -> None:
    found: Mapping[str, Any] = routes if isinstance(routes, Mapping) else {}
    if not found:
        what = f"{name} has" if name else "no model has"
        click.echo(clean(f"{url}: {what} versions, routes or aliases: none"))
    for each, row in found.items():
        if "alias" in row:
            click.echo(clean(f"{url}: {each} stands for {row['alias']}"))
            continue
        click.echo(clean(f"{url}: {each}"))
        for version, one in row["versions"].items():
            click.echo(clean(f"  {_version(version, one)}"))
        for version in _without_workers(row):
            click.echo(clean(f"  {version}"))
        if row["shadow"]:
            click.echo(clean(f"  {_shadow(row['shadow'])}"))


def _version(version: str, row: Mapping[str, Any]) -> str:
    words = f"{version or 'no version'}: {100 * row['share']:.1f} % of the items"
    words += f", {row['given']:,} so far, {row['warm']} of {row['workers']} workers warm"
    if row["held"] and row["warm"]:
        words += f", held back until {row['hold']} are"
    return words


def _without_workers(row: Mapping[str, Any]) -> list[str]:
    """Say what holds for versions that no worker has announced yet."""
    weights, holds = (row["route"].get(key) or {} for key in ("weights", "hold"))
    found = []
    for version in dict.fromkeys((*weights, *holds)):
        if version not in row["versions"]:
            words = f"{version or 'no version'}: no worker yet"
            words += f", weight {weights[version]:g}" if version in weights else ""
            words += f", held back until {holds[version]} are warm" if version in holds else ""
            found.append(words)
    return found


def _shadow(row: Mapping[str, Any]) -> str:
    return (
        f"shadow {row['version']}, {100 * row['share']:g} % copied: {row['same']:,} same, "
        f"{row['different']:,} different, {row['failed']:,} failed, {row['skipped']:,} not copied"
    )
