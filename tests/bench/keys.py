"""What keys cost: the same loads on a broker that asks for them and on one that does not, in turns.

Below them lies a floor, libzmq's own CURVE: a program in bare pyzmq that returns each message, with
keys and without.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import zmq

from tests.bench import sockets, usage
from tests.bench.broker import MB
from tests.bench.pairs import Pairs, Sample, Shape, in_bytes
from tests.bench.program import READY, Program, begin
from tests.bench.report import Report, Row
from tests.bench.roundtrip import ITEM, MODEL, WARM_UP, percentile, trips
from tests.helpers.cluster import Cluster, free_port
from tests.helpers.keys import Keys
from zstreamer.keys.credentials import Credentials
from zstreamer.keys.ring import Role
from zstreamer.keys.secrets import Curve, Pair, Secret

ROUNDS = 5

SHAPES = (
    Shape(16, workers=16, clients=16),
    Shape(64, workers=16, clients=16),
    Shape(1, size=MB, workers=4, clients=4, flight=4),
)

FLOORS = (16 * 80, 64 * 80, MB)
"""Bytes of a message: bundles of 16 and 64 items of 64 B, and one item of 1 MB."""

FLIGHT = 16
"""Messages of the floor that are under way at once."""


def run(seconds: float) -> Report:
    """Measure each row for so many seconds on each side."""
    report = Report("keys")
    with tempfile.TemporaryDirectory() as folder:
        keys = Keys(Path(folder) / "keys")
        files = {Role.CLIENT: keys.client("bench"), Role.WORKER: keys.worker("bench-worker")}
        for shape in SHAPES:
            held(report, shape, keys, files, seconds)
        round_trip(report, keys, files, seconds)
    for size in FLOORS:
        floor(report, size, seconds)
    return report


def held(report: Report, shape: Shape, keys: Keys, files: dict[Role, str], seconds: float) -> None:
    """Compare the CPU time of an item in bundles of k."""
    client, worker = (Credentials(file, role).curve(0) for role, file in files.items())
    with Pairs(shape) as plain, Pairs(shape, (client, worker), keys=str(keys.path)) as secured:
        rounds = [
            (secured.round(seconds / ROUNDS), plain.round(seconds / ROUNDS)) for _ in range(ROUNDS)
        ]
    ours, theirs = zip(*rounds, strict=True)
    name, told = f"with keys, against without: {shape}", f"bundles {ours[-1].bundles}"
    report.add(Row(name, _cpu(ours), "µs/item", _cpu(theirs), told=told))
    if shape.size >= MB:
        rates = [[each.rate * shape.size / MB for each in side] for side in (ours, theirs)]
        report.add(Row(f"the same, throughput: {shape}", rates[0], "MB/s", rates[1]))


def _cpu(samples: tuple[Sample, ...]) -> list[float]:
    return [each.cpu for each in samples]


def round_trip(report: Report, keys: Keys, files: dict[Role, str], seconds: float) -> None:
    """Compare one item at a time."""
    with contextlib.ExitStack() as stack:
        ways = []
        for given in ({"keys": str(keys.path)}, {}):
            cluster = stack.enter_context(Cluster(tcp=True, **given))
            worker = {"keys": files[Role.WORKER]} if given else {}
            stack.enter_context(cluster.worker("echo", model=MODEL, batch_size=64, **worker))
            client = cluster.client(model=MODEL, keys=files[Role.CLIENT] if given else "")
            client.wait_ready(30)
            ways.append(partial(client.predict, [ITEM]))
        for way in ways:
            for _ in range(WARM_UP):
                way()
        rounds = [[trips(way, seconds / ROUNDS) for way in ways] for _ in range(ROUNDS)]
    for share in (50, 99):
        sides = zip(*rounds, strict=True)
        ours, theirs = ([percentile(times, share) for times in side] for side in sides)
        report.add(Row(f"round trip p{share}, with keys against without", ours, "µs", theirs))


def floor(report: Report, size: int, seconds: float) -> None:
    """Compare what libzmq spends on returning a message, with CURVE and without."""
    with _echo(size, secured=True) as secured, _echo(size, secured=False) as plain:
        rounds = [
            (secured.round(seconds / ROUNDS), plain.round(seconds / ROUNDS)) for _ in range(ROUNDS)
        ]
    ours, theirs = map(list, zip(*rounds, strict=True))
    name = f"floor: bare pyzmq returns a message of {in_bytes(size)}, CURVE against none"
    report.add(Row(name, ours, "µs/message", theirs))


class Echo:
    """A program that returns what it gets, and a socket that keeps some messages under way."""

    def __init__(self, program: Program, socket: zmq.Socket[bytes], size: int) -> None:
        self._program = program
        self._socket = socket
        for _ in range(FLIGHT):
            socket.send(bytes(size), copy=False)

    def round(self, seconds: float) -> float:
        """Return the µs of the program's CPU time that a message takes."""
        used, end, count = usage.cpu(self._program.pid), time.monotonic() + seconds, 0
        while time.monotonic() < end:
            if not self._socket.poll(10_000):
                raise TimeoutError("a message was lost")
            self._socket.send(self._socket.recv(copy=False), copy=False)
            count += 1
        return (usage.cpu(self._program.pid) - used) / count * 1e6


@contextlib.contextmanager
def _echo(size: int, *, secured: bool) -> Iterator[Echo]:
    address, pair, client = f"tcp://127.0.0.1:{free_port()}", Pair.new(), Pair.new()
    settings = {"address": address, "secret": pair.secret.reveal().decode() if secured else ""}
    with Program("tests.bench.keys", **settings) as program:
        program.wait_ready()
        if secured:
            sockets.CURVES[address] = Curve(client, pair.public)
        socket = sockets.dealer(address)
        try:
            yield Echo(program, socket, size)
        finally:
            socket.close(linger=0)


def main() -> None:
    """Return every message until the benchmark ends."""
    settings, counters = begin()
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    if settings["secret"]:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, Secret(settings["secret"].encode()).reveal())
    socket.bind(settings["address"])
    counters[READY] = 1
    while True:
        socket.send_multipart(socket.recv_multipart(copy=False), copy=False)


if __name__ == "__main__":
    main()
