"""The test vectors: messages and payloads with their bytes, for other languages too.

docs/vectors.json holds them and docs/protocol.md shows them. After a change of the file,

    python -m tests.helpers.vectors

writes the tables of docs/protocol.md anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
import pytest

from zstreamer import errors
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Frames, Message

DOCS = Path(__file__).parents[2] / "docs"
FILE = DOCS / "vectors.json"
PAGE = DOCS / "protocol.md"

Json: TypeAlias = Any
"""What json.loads returns."""

CLASSES: Mapping[str, type[Message]] = {
    "HELLO": protocol.Hello,
    "WELCOME": protocol.Welcome,
    "REFUSE": protocol.Refuse,
    "SUBMIT": protocol.Submit,
    "CANCEL": protocol.Cancel,
    "ACK": protocol.Ack,
    "ANSWER": protocol.Answer,
    "PART": protocol.Part,
    "PART_OK": protocol.PartOk,
    "NOTICE": protocol.Notice,
    "PING": protocol.Ping,
    "WORK": protocol.Work,
    "REPORT": protocol.Report,
    "STATE": protocol.State,
    "STATUS": protocol.Status,
}


TEXTS: Mapping[str, Callable[[str], object]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
    "uuid": UUID,
}
"""The values that travel as text, by the names that they have on the wire."""


def load() -> Json:
    """Return the content of the file."""
    return json.loads(FILE.read_text())


def message(form: Json) -> Message:
    """Return the message that a vector describes, as `protocol.decode` returns it."""
    fields = {name: _plain(value) for name, value in form.items() if name != "kind"}
    if form["kind"] == "SUBMIT":
        fields["runs"] = [protocol.Run(**run) for run in fields["runs"]]
    if "traces" in fields:
        fields["traces"] = [protocol.Traced(**trace) for trace in fields["traces"]]
    return CLASSES[form["kind"]](**fields)


def _plain(form: Json) -> Json:
    if isinstance(form, dict) and form.keys() in ({"bin"}, {"frame"}):
        (shown,) = form.values()
        return bytes.fromhex(shown)
    if isinstance(form, dict) and form.keys() == {"int"}:
        return int(form["int"])
    if isinstance(form, dict):
        return {name: _plain(value) for name, value in form.items()}
    return [_plain(each) for each in form] if isinstance(form, list) else form


def encode(form: Json) -> Frames:
    """Return the frames that zstreamer writes for the message that a vector describes."""
    what = message(_without_frames(form))
    frames: Frames = list(_frames_of(form))
    match what:
        case protocol.Hello():
            packed = protocol.hello(what)
        case protocol.Submit():
            packed = protocol.submit(what.ack, what.runs, frames, what.traces)
        case protocol.Answer():
            packed = protocol.answer(what.ids, what.slots, frames)
        case protocol.Work():
            columns = what.tickets, what.budgets, what.slots
            packed = protocol.work(what.flags, *columns, frames, None, what.traces)
        case protocol.Report():
            packed = protocol.report(what, frames)
        case protocol.Part():
            packed = protocol.part(what.transfer, frames[0])
        case _:
            packed = protocol.plain(what)
    return packed


def _without_frames(form: Json) -> Json:
    if isinstance(form, dict):
        if form.keys() == {"frame"}:
            return None
        return {name: _without_frames(value) for name, value in form.items()}
    return [_without_frames(each) for each in form] if isinstance(form, list) else form


def _frames_of(form: Json) -> list[bytes]:
    if isinstance(form, dict) and form.keys() == {"frame"}:
        return [bytes.fromhex(form["frame"])]
    inner = form.values() if isinstance(form, dict) else form if isinstance(form, list) else ()
    return [frame for each in inner for frame in _frames_of(each)]


def value(form: Json) -> object:
    """Return the Python value of a payload's vector."""
    if isinstance(form, list):
        return [value(each) for each in form]
    if isinstance(form, dict) and len(form) == 1 and (name := next(iter(form))) in TEXTS:
        return TEXTS[name](form[name])
    return _value_of(form) if isinstance(form, dict) else form


def _tensor(form: Json) -> object:
    torch = pytest.importorskip("torch", reason="needs torch")
    dtype = getattr(torch, form["tensor"])
    return torch.tensor(form["elements"], dtype=dtype).reshape(form["shape"])


def _value_of(form: Json) -> object:
    match list(form):
        case ["bin" | "int"]:
            return _plain(form)
        case ["map"]:
            return {value(key): value(inner) for key, inner in form["map"]}
        case ["dtype", "scalar"]:
            return np.dtype(form["dtype"]).type(value(form["scalar"]))
        case ["dtype", "shape", "elements"]:
            return np.array(form["elements"], form["dtype"]).reshape(form["shape"])
        case ["tensor", "shape", "elements"]:
            return _tensor(form)
    return {name: value(inner) for name, inner in form.items()}


def message_table(vectors: Json) -> str:
    """Return the messages as docs/protocol.md shows them."""
    rows = ["| what | message | frames |", "| --- | --- | --- |"]
    for vector in vectors["messages"]:
        frames = "<br>".join(f"`{f}`" if f else "(empty)" for f in vector["frames"])
        rows.append(f"| {vector['what']} | `{_compact(vector['message'])}` | {frames} |")
    return "\n".join(rows)


def payload_table(vectors: Json) -> str:
    """Return the payloads as docs/protocol.md shows them."""
    rows = ["| what | value | payload |", "| --- | --- | --- |"]
    for vector in vectors["payloads"]:
        shown = _compact(vector["value"])
        rows.append(f"| {vector['what']} | `{shown}` | `{vector['payload']}` |")
    return "\n".join(rows)


def refused_table(vectors: Json) -> str:
    """Return what must be refused as docs/protocol.md shows it."""
    rows = ["| what | frames, or payload |", "| --- | --- |"]
    for vector in vectors["refused"]["messages"]:
        frames = "<br>".join(f"`{f}`" if f else "(empty)" for f in vector["frames"])
        rows.append(f"| message: {vector['what']} | {frames} |")
    for vector in vectors["refused"]["payloads"]:
        payload = f"`{vector['payload']}`" if vector["payload"] else "(empty)"
        rows.append(f"| payload: {vector['what']} | {payload} |")
    return "\n".join(rows)


def error_table() -> str:
    """Return the codes of errors as docs/protocol.md shows them; the words are the classes'."""
    rows = ["| code | error | details | again? | what it means, and what to do |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for code, cls in sorted(errors.CLASSES.items()):
        details = ", ".join(f"`{name}`" for name in cls().details()) or "–"
        again = "yes" if cls.retryable else "no"
        words = (cls.__doc__ or "").partition("\n")[0].replace("``", "`")
        rows.append(f"| {int(code)} | {cls.__name__} | {details} | {again} | {words} |")
    return "\n".join(rows)


def tables() -> dict[str, str]:
    """Return what stands between the marks of docs/protocol.md."""
    vectors = load()
    return {
        "errors": error_table(),
        "messages": message_table(vectors),
        "payloads": payload_table(vectors),
        "refused": refused_table(vectors),
    }


def shown(mark: str) -> str:
    """Return what docs/protocol.md shows under a mark."""
    return _marked(PAGE.read_text(), mark).group().strip()


def _marked(page: str, mark: str) -> re.Match[str]:
    found = re.search(f"(?s)(?<=<!-- {mark} -->\n).*?(?=<!-- end of {mark} -->)", page)
    assert found, f"docs/protocol.md has no mark {mark!r}"
    return found


def _compact(form: Json) -> str:
    return json.dumps(form, ensure_ascii=False).replace("|", "\\|")


def _write() -> None:
    page = PAGE.read_text()
    for mark, table in tables().items():
        found = _marked(page, mark)
        page = f"{page[: found.start()]}\n{table}\n\n{page[found.end() :]}"
    PAGE.write_text(page)


if __name__ == "__main__":
    _write()
