"""A page that people follow: its blocks, what each is for, and whether a print is what it shows.

    ```python app.py                a file
    ```sh                           commands that end, here
    ```sh terminal web              a program that goes on, in a terminal of this name
    ```sh on 10.0.0.7               commands on another machine
    ```sh needs torch               commands for where this module or program is installed
    ```sh install                   commands that make the environment
    ```text                         what the block before it prints
    ```text terminal web            what a terminal shows by now, among other lines
    ```sh example                   to be read only, and so for other languages

What is shown is what must be printed, but for two things: … stands for anything, and so do the
figures in a line that says "about".
"""

import re
from dataclasses import dataclass, field

WORDS = ("terminal", "on", "needs")
"""Words in a block's first line that another one follows."""

ALONE = ("install", "example")


@dataclass
class Block:
    """What stands between two fences.

    Args:
        language: sh, python, text …
        words: what the first line says besides: `{"terminal": "web"}`.
        name: of the file that it is, where it is one.
        text: without the fences.
        line: where it begins, from 1.
        part: the heading that it is under.
    """

    language: str
    words: dict[str, str]
    name: str
    text: str
    line: int
    part: str

    def __str__(self):
        return f"line {self.line} ({self.part})"


@dataclass
class _Open:
    fence: str
    info: list[str]
    line: int
    lines: list[str] = field(default_factory=list)


def blocks(page):
    """All blocks of a page in Markdown, in order."""
    found, part, opened = [], "", None
    for number, line in enumerate(page.splitlines(), 1):
        fence = re.match(r"`{3,}", line)
        if opened is None:
            if fence:
                opened = _Open(fence[0], line[len(fence[0]) :].split(), number)
            elif line.startswith("#"):
                part = line.strip("# ")
        elif line == opened.fence:
            found.append(_block(opened, part))
            opened = None
        else:
            opened.lines.append(line)
    assert opened is None, f"the block of line {opened.line} has no end"
    return found


def _block(opened, part):
    language, *rest = opened.info or [""]
    words, name = {}, ""
    while rest:
        word = rest.pop(0)
        if word in WORDS:
            words[word] = rest.pop(0)
        elif word in ALONE:
            words[word] = ""
        else:
            assert not name, f"line {opened.line}: what is {word!r}?"
            name = word
    return Block(language, words, name, "\n".join(opened.lines), opened.line, part)


def matches(shown, printed):
    """Whether these lines are what is shown."""
    return re.fullmatch("\n".join(map(_pattern, shown.splitlines())), _tidy(printed)) is not None


def missing(shown, printed):
    """The lines that are shown and have not been printed; what else was printed is no matter."""
    left, absent = _tidy(printed).splitlines(), []
    for line in shown.splitlines():
        hit = next((each for each in left if re.fullmatch(_pattern(line), each)), None)
        if hit is None:
            absent.append(line)
        else:
            left.remove(hit)
    return absent


def _tidy(printed):
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())


def _pattern(line):
    pattern = re.escape(line.rstrip()).replace("…", ".*")
    return re.sub(r"\d[\d,]*(\\\.\d+)?", r"[\\d,.]+", pattern) if "about" in line else pattern
