"""Follows a page as a newcomer would: writes its files, runs its commands, compares the prints.

    scripts/five_minutes [--until PART] [--install] [--page FILE]

Each block is told as it is followed, and those that are not followed with the reason.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers.cluster import ROOT
from tests.helpers.document import blocks, matches
from tests.helpers.machines import HERE, environment, machines
from tests.helpers.terminal import PATIENCE, Terminal, Wrong

PAGE = ROOT / "docs" / "five_minutes.md"
ANYWHERE = "/path/to/zstreamer"
"""What the page calls this repository."""

INSTALLING = 900
"""Seconds."""


class Walk:
    """Follows blocks on some machines.

    Args:
        where: the machines, as `tests.helpers.machines` makes them.
        folder: an empty one; each machine has one of its own in it.
        programs: the folder of the python and the zstreamer that are meant.
        tell: is called with a line about each block.

    Attributes:
        printed: what each block of commands that end has printed, with the block.
    """

    def __init__(self, where, folder, programs, tell):
        self.printed = []
        self._where = where
        self._folder = Path(folder)
        self._env = environment(folder, programs)
        self._tell = tell
        self._terminals = {}
        self._last = None
        self._make_copier()

    def follow(self, block):
        """Do what a block is for."""
        if reason := self._reason_not_to(block):
            self._tell(f"{block}: not followed, {reason}")
            self._last = None
        elif block.name:
            self._folder_of(HERE).joinpath(block.name).write_text(block.text + "\n")
            self._tell(f"{block}: {block.name} written")
        elif block.language == "text":
            self._compare(block)
        elif block.language == "sh":
            self._run(block)
        else:
            raise Wrong("it is no file, no command and no print; mark it as an example")

    def screens(self):
        """What the terminals show, the last lines of each."""
        ends = {name: each.printed().splitlines()[-10:] for name, each in self._terminals.items()}
        return "\n".join(f"{name}:\n  " + "\n  ".join(end) for name, end in ends.items())

    def close(self):
        """Press Ctrl-C in all terminals, the last one first."""
        with contextlib.ExitStack() as stack:
            for terminal in self._terminals.values():
                stack.callback(terminal.stop)
            self._terminals = {}

    def _reason_not_to(self, block):
        module = block.words.get("needs")
        if "example" in block.words:
            return "it is to be read only"
        if "install" in block.words:
            return "the environment is there (--install makes one)"
        if module and not self._has(module):
            return f"{module} is not installed"
        prints = block.language == "text" and not block.name and "terminal" not in block.words
        if prints and self._last is None:
            return "as what would print it was not"
        return ""

    def _has(self, name):
        """Whether there is such a module or program, for the python that is meant."""
        look = f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is None)"
        absent = subprocess.run(["python", "-c", look], env=self._env, check=False).returncode
        return not absent or shutil.which(name, path=self._env["PATH"])

    def _run(self, block):
        machine, name = block.words.get("on", HERE), block.words.get("terminal")
        self._leave(machine)
        text = self._where.text(block.text).replace(ANYWHERE, str(ROOT))
        command = [*self._where.prefix(machine), "bash", "-c", text]
        folder = self._folder_of(machine)
        self._last = block
        if name is None:
            self.printed.append((block, self._printed_by(command, folder)))
        else:
            if name in self._terminals:
                self._terminals.pop(name).stop()
            self._terminals[name] = Terminal(command, folder, self._env)
        at = "" if machine == HERE else f" on {machine}"
        words = " ".join(text.split())[:70]
        self._tell(f"{block}: {name or 'run'}{at}: {words}")

    def _leave(self, machine):
        """Stop what runs on the first machine before the others are used, and the other way."""
        before = None if self._last is None else self._last.words.get("on", HERE)
        if before and (before == HERE) != (machine == HERE):
            self.close()

    def _printed_by(self, command, folder):
        done = subprocess.Popen(
            command,
            cwd=folder,
            env=self._env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with done:
            try:
                printed, _ = done.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(done.pid, signal.SIGKILL)
                raise Wrong(f"it does not end; it printed:\n{done.communicate()[0]}") from None
        if done.returncode:
            raise Wrong(f"it ended with {done.returncode}; it printed:\n{printed}")
        return printed

    def _compare(self, block):
        shown = self._where.text(block.text)
        name = block.words.get("terminal") or self._last.words.get("terminal")
        if name:
            self._terminals[name].wait_for(shown)
        elif not matches(shown, printed := self.printed[-1][1]):
            raise Wrong(f"printed was:\n{printed}")
        self._tell(f"{block}: printed as shown")

    def _folder_of(self, machine):
        folder = self._folder / self._where.text(machine)
        folder.mkdir(exist_ok=True)
        return folder

    def _make_copier(self):
        """An scp that copies to the folders of the machines."""
        program = self._folder / "bin" / "scp"
        program.parent.mkdir()
        copy = f'd={shlex.quote(str(self._folder))}/${{@: -1:1}}; d=${{d%:}}; mkdir -p "$d"'
        program.write_text(f'#!/usr/bin/env bash\n{copy}; cp "${{@:1:$#-1}}" "$d"\n')
        program.chmod(0o755)


def walk(page, until_part="", programs="", tell=print):
    """Follow a page up to a part; return what its commands printed, each with its block.

    Raises:
        Wrong: something is not as the page says; the message has the line.
    """
    found = blocks(page)
    parts = list(dict.fromkeys(each.part for each in found))
    if until_part:
        end = next(number for number, part in enumerate(parts) if until_part in part)
        found = [each for each in found if each.part in parts[:end]]
    addresses = dict.fromkeys(each.words["on"] for each in found if "on" in each.words)
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(machines(list(addresses)))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="zst-"))
        tell(where.told)
        walked = Walk(where, folder, programs or Path(sys.executable).parent, tell)
        stack.callback(walked.close)
        for block in found:
            try:
                walked.follow(block)
            except Wrong as wrong:
                shows = f"{block}: {wrong}\nand the page has:\n{block.text}"
                raise Wrong(f"{shows}\n\n{walked.screens()}") from None
    return walked.printed


def install(page, folder):
    """Make the environment as the page says; return the folder of its programs."""
    for block in blocks(page):
        if "install" in block.words:
            print(f"{block}: installing, which takes a while", flush=True)
            text = block.text.replace(ANYWHERE, str(ROOT))
            subprocess.run(["bash", "-ec", text], cwd=folder, check=True, timeout=INSTALLING)
    return Path(folder) / "venv" / "bin"


def main():
    """Follow the page; return the program's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--until", default="", metavar="PART", help="stop before this heading")
    parser.add_argument("--install", action="store_true", help="make the page's environment too")
    parser.add_argument("--page", type=Path, default=PAGE, help="another one to follow")
    options = parser.parse_args()
    page = options.page.read_text()
    with tempfile.TemporaryDirectory(prefix="zst-") as folder:
        programs = install(page, folder) if options.install else ""
        try:
            printed = walk(page, options.until, programs, lambda line: print(line, flush=True))
        except Wrong as wrong:
            print(f"wrong: {wrong}", file=sys.stderr)
            return 1
    for block, text in printed:
        if "about" in text:
            print(f"{block}: {text.splitlines()[0]}")
    print("the page holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
