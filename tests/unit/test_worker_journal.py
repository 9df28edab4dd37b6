"""What a worker's log says of its brokers and its model."""

import logging

import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.waiting import until
from zstreamer.config import WorkerConfig
from zstreamer.errors import VersionMismatch
from zstreamer.wire.link import LinkState
from zstreamer.wire.protocol import WorkerState
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.journal import LOADED, REMINDER, UNANSWERED, Journal

BROKER = "tcp://127.0.0.1:9"


@pytest.fixture
def core(caplog):
    """A worker that has not begun; what is logged is in caplog."""
    caplog.set_level(logging.INFO)
    config = WorkerConfig(broker=(BROKER,), target="a:b", model="bert")
    return WorkerCore(config, 1, 0.0, lambda: 0.5)


@pytest.fixture
def journal(core):
    return Journal(core)


def told(caplog):
    """The lines since the last look."""
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


@pytest.mark.parametrize("refused", ["", "another version"])
def test_a_broker_out_of_reach_is_told_again_while_it_lasts(core, journal, caplog, refused):
    [link] = core.links
    link.attempts, link.refusal = UNANSWERED, VersionMismatch(refused) if refused else None
    words = f"refused: {refused}" if refused else "no answer yet, still trying; does `zstreamer"
    for now in (100.0, 100.0 + REMINDER, 100.0 + 2 * REMINDER):
        journal._links(now)
        [line] = told(caplog)
        assert line.startswith(f"broker={BROKER} {words}")
        journal._links(now + REMINDER - 0.1)
        assert told(caplog) == []
    link.state, link.refusal = LinkState.READY, None
    for now in (200.0, 300.0):
        journal._links(now)
    assert told(caplog) == [f"broker={BROKER} connected"]


def test_a_model_is_ready_only_once_a_broker_knows(core, journal, caplog):
    [link] = core.links
    journal._model(100.0)
    core.state = WorkerState.WARM
    for now in (101.0, 101.9, 101.0 + LOADED, 110.0):
        journal._model(now)
    assert told(caplog) == ["model=bert loaded, waiting for a broker"]
    link.state = LinkState.READY
    journal._model(111.0)
    link.state = LinkState.DOWN  # which is told of the broker
    journal._model(120.0)
    assert told(caplog) == ["model=bert ready"]
    core.state = WorkerState.RESTARTING
    journal._model(121.0)
    core.state, link.state = WorkerState.WARM, LinkState.READY
    journal._model(122.0)
    assert told(caplog) == ["model=bert ready"]


def test_a_worker_that_is_there_before_its_broker_says_so(capfd):
    with Cluster() as cluster:
        cluster.broker.kill()
        cluster.broker.close()
        cluster.worker("double", model="early", log_level="info")
        log = ""

        def shows(words):
            nonlocal log
            log += capfd.readouterr().err
            return words in log

        until(lambda: shows("model=early loaded, waiting for a broker"), 20)
        assert "ready" not in log
        cluster.start_broker()
        until(lambda: shows("model=early ready"), 20)
