"""What a worker's log says of its brokers and its model."""

import logging

import pytest

from tests.cluster import Cluster
from tests.waiting import until
from zstreamer.config import AgentConfig
from zstreamer.protocol import WorkerState
from zstreamer.signals import StopRequests
from zstreamer.worker.agent import LOADED, REMINDER, UNANSWERED, Agent
from zstreamer.worker.link import LinkState

BROKER = "tcp://127.0.0.1:9"


@pytest.fixture
def agent(caplog):
    """An agent that has not begun; what it logs is in caplog."""
    caplog.set_level(logging.INFO)
    with StopRequests() as stop, StopRequests() as owner:
        yield Agent(AgentConfig(broker=(BROKER,), target="a:b", model="bert"), owner, stop)


def told(caplog):
    """The lines since the last look."""
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


@pytest.mark.parametrize("refused", ["", "another version"])
def test_a_broker_out_of_reach_is_told_again_while_it_lasts(agent, caplog, refused):
    [link] = agent.core.links
    link.attempts, link.refused = UNANSWERED, refused
    words = f"refused: {refused}" if refused else "no answer yet, trying on; is a broker running"
    for now in (100.0, 100.0 + REMINDER, 100.0 + 2 * REMINDER):
        agent._tell_links(now)
        [line] = told(caplog)
        assert line.startswith(f"broker={BROKER} {words}")
        agent._tell_links(now + REMINDER - 0.1)
        assert told(caplog) == []
    link.state, link.refused = LinkState.READY, ""
    for now in (200.0, 300.0):
        agent._tell_links(now)
    assert told(caplog) == [f"broker={BROKER} connected"]


def test_a_model_is_ready_only_once_a_broker_knows(agent, caplog):
    [link] = agent.core.links
    agent._tell_model(100.0)
    agent.core.state = WorkerState.WARM
    for now in (101.0, 101.9, 101.0 + LOADED, 110.0):
        agent._tell_model(now)
    assert told(caplog) == ["model=bert loaded, waiting for a broker"]
    link.state = LinkState.READY
    agent._tell_model(111.0)
    link.state = LinkState.DOWN  # which is told of the broker
    agent._tell_model(120.0)
    assert told(caplog) == ["model=bert ready"]
    agent.core.state = WorkerState.RESTARTING
    agent._tell_model(121.0)
    agent.core.state, link.state = WorkerState.WARM, LinkState.READY
    agent._tell_model(122.0)
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
