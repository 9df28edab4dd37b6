"""`zstreamer keys`: makes, lists and revokes keys of clients, workers and callers over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import rich_click as click
from click import pass_context, pass_obj

from zstreamer.cli.options import PLAIN, example
from zstreamer.keys.certificate import Certificate
from zstreamer.keys.folder import Folder
from zstreamer.keys.ring import Role
from zstreamer.setting import ConfigError


def _command(name: str | None = None) -> Callable[[Callable[..., int]], click.Command]:
    made: Callable[[Callable[..., int]], click.Command] = click.command(name, **PLAIN)
    return made


@_command()
@pass_obj
def init(folder: Folder) -> int:
    """Make the folder and the broker's own key."""
    made = folder.create()
    click.echo(f"{folder.path}: the broker's key is {made.public.decode()}")
    click.echo(f"start it with: zstreamer broker --keys {folder.path}")
    return 0


@_command()
@click.argument("name")
@click.option(
    "--tenant",
    default="",
    metavar="TEXT",
    help="Tenant to whom its work counts; * if the program says that itself.",
)
@pass_obj
def client(folder: Folder, name: str, tenant: str) -> int:
    """Make the key of a program that calls models."""
    return _issued(folder, Role.CLIENT, name, tenant, ())


@_command()
@click.argument("name")
@click.option(
    "--model", "models", multiple=True, metavar="TEXT", help="A model that it may serve; else any."
)
@pass_obj
def worker(folder: Folder, name: str, models: tuple[str, ...]) -> int:
    """Make the key of workers."""
    return _issued(folder, Role.WORKER, name, "", models)


def _issued(folder: Folder, role: Role, name: str, tenant: str, models: Sequence[str]) -> int:
    made, path = folder.add(role, name, tenant, models)
    click.echo(f"{role.value} {name}: {made.public.decode()}")
    click.echo(f"move this file to the machine of its program, and give it as --keys: {path}")
    return 0


@_command()
@click.argument("name")
@click.option(
    "--tenant",
    default="",
    metavar="TEXT",
    help="Tenant to whom its work counts; * if a header of its requests says that.",
)
@pass_obj
def http(folder: Folder, name: str, tenant: str) -> int:
    """Make a bearer token for a caller of the gateway, and print it once.

    The token alone goes to standard output, so that it can be sent on to where secrets are kept.
    """
    token = folder.add_caller(name, tenant)
    click.echo(f"http {name}: the token follows; it is not shown again", err=True)
    click.echo(token)
    return 0


@_command("list")
@pass_obj
def listed(folder: Folder) -> int:
    """Show who may pass."""
    folder.check()
    rows = [("kind", "name", "tenant", "models", "made", "public key")]
    rows += [_row(each) for each in folder.listed()]
    rows += [("http", each.name, each.tenant or "-", "-", "-", "-") for each in folder.callers()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    return 0


def _row(one: Certificate) -> tuple[str, str, str, str, str, str]:
    models = ",".join(one.models) or "-"
    return (one.role.value, one.name, one.tenant or "-", models, one.made, one.public.decode())


@_command()
@click.argument("name", default="")
@pass_obj
def show(folder: Folder, name: str) -> int:
    """Show one key without its secret; without NAME the broker's, as programs' files have it."""
    folder.check()
    if not name:
        for server in folder.servers:
            click.echo(f'server-key = "{server.decode()}"')
        return 0
    for each in folder.listed():
        if each.name == name:
            sys.stdout.write(each.bare().text())
            return 0
    raise ConfigError(f"no key is called {name!r}: `zstreamer keys list` shows their names")


@_command()
@click.argument("name")
@pass_obj
def revoke(folder: Folder, name: str) -> int:
    """Take a key off its list; its sessions end within a second.

    Copies of the same key under other names go, too.
    """
    kept = folder.revoke(name)
    click.echo(f"{name} is revoked; its public half is kept in {' and '.join(map(str, kept))}")
    return 0


@_command()
@click.option("--finish", is_flag=True, help="Have the broker take the next key now.")
@pass_obj
def rotate(folder: Folder, finish: bool) -> int:
    """Give the broker another key, in two steps.

    The first makes the next key. Programs must trust it before the second, --finish, has the broker
    take it. Who is connected stays connected.
    """
    if finish:
        made = folder.finish_rotation()
        click.echo(f"the broker's key is now {made.public.decode()}")
        return 0
    files = folder.rotate()
    click.echo(f"files in {folder.path} that trust the next key now: {len(files)}")
    click.echo("add this line to the section `broker` of every file that was moved elsewhere:")
    click.echo(f'    server-key = "{folder.servers[-1].decode()}"')
    click.echo("programs read it at their next connection; then: zstreamer keys rotate --finish")
    return 0


@click.group(
    **PLAIN,
    epilog=example(
        "zstreamer keys init",
        "zstreamer keys client web --tenant shop",
        "zstreamer keys worker gpu1 --model bert",
        "zstreamer keys revoke web",
    ),
)
@click.option(
    "--keys",
    "path",
    envvar="ZSTREAMER_KEYS",
    default="keys",
    metavar="FOLDER",
    help="Folder of the broker's keys. [dim](keys)[/]",
)
@pass_context
def keys(context: click.Context, path: str) -> None:
    """Make, list and revoke the keys of one broker.

    A running broker and gateway notice within a second. Secrets are written into files that only
    their owner may read; a bearer token alone is printed, once.
    """
    context.obj = Folder(path)


for each in (init, client, worker, http, listed, show, revoke, rotate):
    keys.add_command(each)
