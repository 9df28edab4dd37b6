"""A process that prepares items for a model's process, which started it (see pool.py).

    reader thread   socket ─> groups of payloads
    main thread     decode ─> prepare ─> cost ─> socket

It has the model's class and what `init_prepare` made, not the model. When the model's process is
gone its socket ends, and so does this process.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from zstreamer import errors, failure, pickled
from zstreamer.codec import PLAIN
from zstreamer.errors import PredictError
from zstreamer.system import cpus, logs
from zstreamer.system.process import end_with_parent
from zstreamer.worker import handover, target
from zstreamer.worker.preparation import Preparation, Raised, Ready

Handed = Ready | list[object]
"""What an item has become: ready, or an error as `errors.to_wire` writes it."""


CANNOT = (
    "a prepare worker cannot prepare the model's items: define `init_prepare` to load what its "
    "`prepare` needs, or leave out --prepare-workers"
)


def main(channel: socket.socket) -> None:
    """Prepare what comes until the other end is gone."""
    # As in the model's process, whose end ends this one: until then it may still need answers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()  # its main thread or a collector, which live as long as it does
    cpus.stand_up()
    description: target.Description = handover.receive(channel)
    logs.start_own(description.log_level, description.log_format)
    try:
        model = target.load(description, prepare_only=True)
        if model.example and model.prepares:
            model.prepare(model.example[0])
    except BaseException as error:  # noqa: BLE001  # whatever the model's code raises, a person must see it
        words = target.explain(error)
        handover.send(channel, f"{CANNOT}:\n{words}")
        return
    handover.send(channel, "")
    groups: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(channel, groups), daemon=True).start()
    codec = pickled.private(target.import_main) if description.private else PLAIN
    preparation = Preparation(model, codec.decode)
    while True:
        _answer(channel, preparation, groups.get())


def _read(channel: socket.socket, groups: queue.SimpleQueue[list[bytes]]) -> None:
    """Read on while items are prepared, so that the other end never waits to write."""
    try:
        while True:
            groups.put(handover.receive(channel))
    except EOFError:
        os._exit(0)


def _answer(channel: socket.socket, preparation: Preparation, payloads: Sequence[bytes]) -> None:
    found: list[Handed] = []
    while len(found) < len(payloads):
        outcomes = preparation.run(payloads[len(found) : len(found) + preparation.at_once])
        for outcome in outcomes:
            if isinstance(outcome, Raised):
                if failure.fatal(outcome.error):
                    sys.stderr.write(failure.trace(outcome.error))
                    sys.stderr.flush()
                    os._exit(1)
                found.append(errors.to_wire(failure.raised(outcome.error)))
            else:
                found.append(outcome)
    try:
        handover.send(channel, found)
    except OSError:
        os._exit(0)
    except Exception:  # noqa: BLE001  # pickling runs the user's code, which may raise anything
        handover.send(channel, [_alone(each) for each in found])


def _alone(outcome: Handed) -> Handed:
    """Return an outcome that can be pickled: itself, or the reason why it cannot be."""
    try:
        handover.dumps(outcome)
    except Exception as error:  # noqa: BLE001  # as above
        words = f"what prepare returned cannot leave its process: {failure.message(error)}"
        return errors.to_wire(PredictError(words, "BadOutput"))
    return outcome


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
