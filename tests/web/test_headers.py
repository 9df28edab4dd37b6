"""Headers of requests and responses, the same at every async door."""

import httpx
import pytest

from tests.helpers.cluster import free_port
from tests.helpers.servers import Server
from tests.web.test_asgi import COMMANDS
from zstreamer.web.http.headers import Headers


@pytest.fixture(scope="module", params=COMMANDS)
def server(request):
    """A door without a broker behind it."""
    env = {"ZSTREAMER_BROKER": f"tcp://127.0.0.1:{free_port()}"}
    with Server(*COMMANDS[request.param], env=env) as server:
        yield server


def test_the_response_to_head_says_how_long_that_to_get_is(server):
    with httpx.Client(base_url=server.url) as client:
        for path in ("/healthz", "/nowhere", "/openapi.json"):
            bare, whole = client.head(path), client.get(path)
            assert bare.status_code == whole.status_code
            assert bare.headers["content-length"] == whole.headers["content-length"]
            assert (bare.content, bool(whole.content)) == (b"", True)


def test_a_header_that_comes_twice_is_one_with_both_values(server):
    twice = [("X-Request-Timeout", "1"), ("X-Request-Timeout", "2")]
    path = f"{server.url}/v1/models/default:predict"
    answer = httpx.post(path, content=b'{"instances": [1]}', headers=twice)
    assert answer.status_code == 400
    assert "'1, 2'" in answer.json()["detail"]


def test_values_keep_their_order_and_cookies_their_separator():
    fields = [(b"a", b"1"), (b"cookie", b"c=1"), (b"a", b""), (b"cookie", b"d=2"), (b"a", b"1")]
    headers = Headers.of(fields)
    assert headers == {b"a": b"1, , 1", b"cookie": b"c=1; d=2"}
    assert (headers.text("a"), headers.text("b")) == ("1, , 1", None)
