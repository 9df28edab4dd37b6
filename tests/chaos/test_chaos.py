"""Every promise on real processes, with few faults each; scripts/chaos does the same with many."""

import pytest

from tests.chaos import rows
from tests.chaos.web import WebClient, WebError, WebServer
from zstreamer import errors


@pytest.mark.parametrize("name", rows.ROWS)
def test_the_promise_holds(name):
    outcome = rows.run(name, rows.Options(quick=True))
    assert outcome.good, outcome.plain()


@pytest.mark.parametrize("name", ["child-kill", "client-cut", "broker-kill"])
def test_the_promise_holds_for_greenlets(name):
    outcome = rows.run(name, rows.Options(quick=True, gevent=True), 2)
    assert outcome.good, outcome.plain()


@pytest.mark.parametrize("name", ["child-kill", "broker-kill"])
def test_the_promise_holds_for_clients_inside_gunicorn(name):
    outcome = rows.run(name, rows.Options(quick=True, gunicorn=True), 2)
    assert outcome.good, outcome.plain()


def test_a_row_that_needs_a_client_of_its_own_says_so_where_gunicorn_is_asked_for():
    with pytest.raises(ValueError, match=r"soak does more .* these can .*broker-kill"):
        rows.run("soak", rows.Options(gunicorn=True))


def test_what_a_call_through_gunicorn_ends_with_is_what_its_client_was_told(shared):
    with WebServer(shared.address, "picky") as server:
        client = WebClient(server.url, connections=4, timeout=20)
        client.wait_ready(30)
        assert client.predict([1, 2], timeout=10, idempotent=True) == [1, 2]
        with pytest.raises(errors.PredictError, match="the model met boom") as caught:
            client.predict(["boom"], timeout=10, idempotent=True)
        assert caught.value.type == "ValueError"
        with pytest.raises(errors.DeadlineExceeded, match="no answer within 1e-06 s"):
            client.predict([1], timeout=1e-6, idempotent=True)
        assert client.table_sizes() == 0
        with pytest.raises(WebError, match="500 Internal Server Error"):
            client.predict("no list", timeout=10, idempotent=True)
        client.close()
        assert server.stop() == 0
