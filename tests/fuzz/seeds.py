"""Writes the inputs from which fuzzing starts: `python -m tests.fuzz.seeds`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import CORPUS, tensors, wire
from zstreamer.wire import protocol
from zstreamer.wire.messages import Role, Run, State, Submit, WorkerState

VECTORS = Path(__file__).parents[2] / "docs" / "vectors.json"

HTTP = {
    "get": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "post": b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
    "chunks": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + 2 * (b"28\r\n" + 40 * b"a" + b"\r\n")
    + b"0\r\n\r\n",
    "two": b"GET /a?b=%20c HTTP/1.1\r\nHost: x\r\n\r\nGET http://x/y HTTP/1.0\r\n\r\n",
    "expect": b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGE",
    "lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "close": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: b\r\nA: c\r\n\r\nGET",
    "nonsense": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


def _tensor(name: str, datatype: str, shape: list[int], **more: object) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield target, name and input."""
    vectors = json.loads(VECTORS.read_text())
    ports = {
        ("client", "broker"): wire.CLIENTS,
        ("worker", "broker"): wire.WORKERS,
        ("broker", "client"): wire.CLIENT,
        ("broker", "worker"): wire.WORKER,
    }
    for number, each in enumerate(vectors["messages"]):
        whom = ports.get((each["from"], each["to"]), wire.CLIENTS)
        frames = [bytes.fromhex(frame) for frame in each["frames"]]
        if sum(map(len, frames)) < 2000:
            yield "wire", f"vector-{number}", wire.write([(whom, 0, frames)])
    yield "wire", "conversation", _conversation()
    for number, each in enumerate(vectors["payloads"]):
        payload = bytes.fromhex(each["payload"])
        if len(payload) < 1000:
            yield "codec", f"vector-{number}", payload
    for name, data in HTTP.items():
        yield "http", name, data
    for name, data in _requests().items():
        yield "tensors", name, data


def _conversation() -> bytes:
    """A worker comes, a client comes and asks, the worker answers."""
    info = {"model": "m", "batch_size": 4, "pool": 0}
    worker = protocol.hello(protocol.Hello(Role.WORKER, 5, info))
    warm = protocol.plain(State(WorkerState.WARM, ""))
    client = protocol.hello(protocol.Hello(Role.CLIENT, 6, {"open": []}))
    run = Run("m", 0, 0, 0, [1, 2], [500, 500], [b"\x01", b"\x02"])
    asks = protocol.submit(*Submit(0, [run]), [])
    report = protocol.report(protocol.Report([1], [1, 2], [b"\x01", b"\x02"], 0, 9, 9), [])
    welcome = protocol.plain(protocol.Welcome(3, False, [], 8, 2**20, 2**20))
    answer = protocol.answer([1, 2], [b"\x01", [500, "x", {}]], [])
    work = protocol.work(0, [7], [100], [b"\x01"], [])
    rows = [
        (wire.WORKERS, worker), (wire.WORKERS, warm), (wire.CLIENTS, client), (wire.CLIENTS, asks),
        (wire.WORKERS, report), (wire.CLIENT, welcome), (wire.CLIENT, answer),
        (wire.WORKER, welcome), (wire.WORKER, work),
    ]  # fmt: skip
    return wire.write([(whom, 0, [bytes(each) for each in frames]) for whom, frames in rows])


def _requests() -> dict[str, bytes]:
    def body(*inputs: dict[str, object], **more: object) -> bytes:
        return json.dumps({"inputs": inputs, **more}).encode()

    plain = body(_tensor("x", "FP32", [2, 3], data=[[1, 2, 3], [4, 5, 6]]))
    pair = body(_tensor("a", "INT64", [1], data=[7]), _tensor("b", "BYTES", [1, 1], data=["x"]))
    texts = body(
        _tensor("t", "BYTES", [2], data=["a", "é"]),
        id="1",
        outputs=[{"name": "output", "parameters": {"binary_data": True}}],
    )
    binary = body(_tensor("x", "FP32", [1, 3], parameters={"binary_data_size": 12}))
    elements = body(_tensor("b", "BYTES", [2, 1], parameters={"binary_data_size": 12}))
    words = b"\x02\0\0\0hi\x02\0\0\0\xc3\xa9"
    bools = body(_tensor("x", "BOOL", [2], data=[True, False]), parameters={"timeout": 5})
    return {
        "plain": tensors.write(1, plain),
        "pair": tensors.write(2, pair),
        "texts": tensors.write(0, texts),
        "binary": tensors.write(1, binary + bytes(12), len(binary)),
        "elements": tensors.write(3, elements + words, len(elements)),
        "bools": tensors.write(0, bools),
    }


def main() -> None:
    """Write all of them; what else is in the corpus stays."""
    for target, name, data in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
