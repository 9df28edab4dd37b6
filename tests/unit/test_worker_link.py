"""What a worker tells a broker, in messages that no connection refuses."""

from zstreamer import errors
from zstreamer.failure import MESSAGE, TRACEBACK
from zstreamer.wire import protocol
from zstreamer.wire.link import LinkState
from zstreamer.wire.protocol import BUNDLE, MAX_FRAME
from zstreamer.worker.link import WorkerLink


def reports(link):
    """The messages that leave now, decoded and with their sizes in bytes."""
    return [(protocol.decode(frames), sum(map(len, frames))) for frames in link.flush(0.0, 0, 0, 0)]


def test_the_errors_of_a_large_batch_go_in_several_messages():
    link = WorkerLink("tcp://127.0.0.1:7788", 0.0, 2**20)
    link.enter(LinkState.READY, 0.0)
    worst = errors.PredictError("m" * MESSAGE, "ValueError", "t" * TRACEBACK)
    for ticket in range(1000):
        link.done(ticket, errors.to_wire(worst))

    sent = reports(link)

    assert [ticket for report, _ in sent for ticket in report.done] == list(range(1000))
    assert max(size for _, size in sent) < BUNDLE + 64 * 1024 < MAX_FRAME


def test_small_outcomes_share_a_message():
    link = WorkerLink("tcp://127.0.0.1:7788", 0.0, 2**20)
    link.enter(LinkState.READY, 0.0)
    for ticket in range(1000):
        link.done(ticket, errors.to_wire(errors.PredictError("short", "ValueError")))
        link.done(ticket, [protocol.Fate.DROPPED, "cancelled", {}])
        link.done(ticket, b"payload")
    assert len(reports(link)) == 1
