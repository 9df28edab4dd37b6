"""What comes in on an HTTP/1.1 connection, whole or refused, however the bytes are cut."""

import tracemalloc

import pytest

from zstreamer.web.api.steps import Response
from zstreamer.web.http.receiver import MAX_HEAD, Receiver
from zstreamer.web.http.response_head import CLOSE, KEEP, date, head

HOST = b"Host: x\r\n"
POST = b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-A: 1\r\n\r\nabc"


class Sink:
    """Writes down what it is told."""

    def __init__(self):
        self.requests, self.refused, self.begins, self.expected, self.size = [], [], 0, 0, 0

    def begun(self):
        self.begins += 1

    def expects(self):
        self.expected += 1

    def grew(self, size):
        self.size += size

    def take(self, request, connection):
        self.requests.append((request, connection))

    def refuse(self, status, detail=""):
        self.refused.append((status, detail))


def received(*pieces, max_body=100):
    sink = Sink()
    receiver = Receiver(sink, max_body)
    for piece in pieces:
        receiver.feed(piece)
    return sink


def shown(sink):
    return [(r.method, r.path, r.query, r.body, c) for r, c in sink.requests]


def test_a_request_is_read_however_its_bytes_are_cut():
    whole = shown(received(POST))
    assert whole == [("POST", "/a b", "c=d", b"abc", b"")]
    for cut in range(1, len(POST)):
        assert shown(received(POST[:cut], POST[cut:])) == whole
    assert shown(received(*(POST[i : i + 1] for i in range(len(POST))))) == whole


def test_headers_are_found_by_their_names_in_lower_case():
    [(request, _)] = received(POST).requests
    assert (request.header("x-a"), request.header("x-b"), request.header("é")) == ("1", None, None)


def test_headers_that_come_again_are_joined_in_their_order():
    fields = b"A: 1\r\nHost: x\r\ncookie: c=1\r\na: 2\r\nCookie: d=2\r\nA: 1\r\n"
    head = b"GET / HTTP/1.1\r\n%s\r\n" % fields
    sink = received(head + b"GET / HTTP/1.1\r\nHost: x\r\nA: 3\r\n\r\n")
    found = [(request.header("a"), request.header("cookie")) for request, _ in sink.requests]
    assert found == [("1, 2, 1", "c=1; d=2"), ("3", None)]


def test_requests_in_one_piece_are_told_apart():
    sink = received(POST + b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n" + POST[:20], POST[20:])
    assert [path for _, path, _, _, _ in shown(sink)] == ["/a b", "/2", "/a b"]
    assert (sink.begins, sink.refused) == (3, [])


def test_a_chunked_body_is_put_together_and_its_trailers_are_no_headers():
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sink = received(head + b"2\r\nab\r\n1\r\nc\r\n0\r\nX-A: 2\r\n\r\n")
    [(request, _)] = sink.requests
    assert (request.body, request.header("x-a"), sink.size) == (b"abc", None, 3)


@pytest.mark.parametrize(
    ("line", "connection"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", CLOSE),
        (b"GET / HTTP/1.0\r\n\r\n", CLOSE),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", KEEP),
    ],
)
def test_who_wants_the_connection_kept(line, connection):
    assert received(line).requests[0][1] == connection


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://host/x?y", "/x", "y"),
        (b"http://host", "/", ""),
        (b"*", "*", ""),
        (b"/%C3%BC/%00?%C3", "/ü/\0", "%C3"),
        (b"/?", "/", ""),
    ],
)
def test_every_form_of_target(target, path, query):
    [(request, _)] = received(b"OPTIONS %s HTTP/1.1\r\nHost: x\r\n\r\n" % target).requests
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "Invalid method"),
        (b"GET /\r\n\r\n", 505, "HTTP/0.9"),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "HTTP/2.0"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, ""),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\nHost: x\r\n\r\n", 400, "two Host"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "CRLF"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400, "whitespace"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400, "header value"),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "url"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405, "proxy"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n", 413, ""),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -2\r\n\r\nab", 400, "Content-Length"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 3\r\n\r\nab", 400, "Content-Length"),
        (b"POST / HTTP/1.1\r\n" + 2 * b"Content-Length: 2\r\n" + b"\r\nab", 400, "Duplicate"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nab", 400, "invalid"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            400,
            "Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            "chunk size",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + 101 * b"a",
            413,
            "",
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET / HTTP/1.1", 400, "close"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(data, status, words):
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        sink = received(*pieces, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        [(found, detail)] = sink.refused
        assert found == status
        assert words in detail
        assert len(sink.requests) == data.startswith(b"GET / HTTP/1.1\r\nHost: x\r\nConnection")


def test_a_head_without_end_is_refused():
    for endless in (b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"GET /", b"GET / HTTP/1.1\r\n" + HOST):
        sink = received(endless, *(1 + MAX_HEAD // 512) * [b"a: b\r\n".ljust(512, b"x")])
        assert [status for status, _ in sink.refused] in ([431], [400])
    sink = received(b"GET / HTTP/1.1\r\nHost: x\r\nA: ", *(1 + MAX_HEAD // 512) * [512 * b"x"])
    assert [status for status, _ in sink.refused] == [431]


@pytest.mark.parametrize("long", [b"/ HTTP/1.1\r\nHost: x\r\nA: %s", b"/%s HTTP/1.1\r\nHost: x"])
def test_a_large_head_in_few_pieces_is_refused(long):
    head = b"GET " + long % (MAX_HEAD * b"a") + b"\r\n\r\n"
    for pieces in ([head], [head[:MAX_HEAD], head[MAX_HEAD:]]):
        [(status, words)] = received(*pieces).refused
        assert (status, "exceed" in words) == (431, True)
    fits = received(b"GET " + long % ((MAX_HEAD - 100) * b"a") + b"\r\n\r\n" + 9 * POST)
    assert (fits.refused, len(fits.requests)) == ([], 10)


def test_a_long_body_does_not_count_as_head():
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
    sink = received(head, *200 * [1000 * b"a"], POST[:10], POST[10:], max_body=200_000)
    assert [len(request.body) for request, _ in sink.requests] == [200_000, 3]


@pytest.mark.parametrize("end", ["whole", "refused", "closed"])
def test_a_body_is_held_no_longer_than_somebody_wants_it(end):
    size = 2_000_000
    sink = Sink()
    receiver = Receiver(sink, size)
    ends = {
        "whole": sink.requests.clear,
        "refused": lambda: receiver.refuse(408),
        "closed": receiver.close,
    }
    tracemalloc.start()
    try:
        receiver.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(20 if end == "whole" else 19):
            receiver.feed(bytes(size // 20))
        held, _ = tracemalloc.get_traced_memory()
        assert held > 0.9 * size
        ends[end]()
        held, _ = tracemalloc.get_traced_memory()
        assert held < 0.1 * size
    finally:
        tracemalloc.stop()


def test_a_client_that_asks_first_is_told_to_go_on_unless_its_body_is_refused():
    ask = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert received(ask % 3).expected == 1
    assert received(ask % 101).expected == 0


@pytest.mark.parametrize("rest", [b"", b"Content-Length: 3\r\n\r\nabc"])
def test_an_offer_to_speak_another_protocol_is_declined(rest):
    offer = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    sink = received(offer + (rest or b"\r\n") + POST)
    assert [body for _, _, _, body, _ in shown(sink)] == [rest[-3:], b"abc"]
    assert sink.requests[0][0].header("host") == "x"


def test_nothing_behind_what_was_refused_is_looked_at():
    ask = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    sink = received(b"GET / HTTP/1.1\r\n\r\n" + ask)
    assert [status for status, _ in sink.refused] == [400]
    assert (sink.begins, sink.expected, sink.size, sink.requests) == (1, 0, 0, [])


def test_a_bug_of_ours_is_a_500_and_is_logged(caplog):
    sink = Sink()
    sink.take = None
    Receiver(sink, 100).feed(POST)
    assert [status for status, _ in sink.refused] == [500]
    assert "could not be taken" in caplog.text


def test_a_responses_head():
    written = head(Response(499, b"abc", [("a", "ü"), ("b", "😀")]), date(0), CLOSE)
    assert written == (
        b"HTTP/1.1 499 Client Closed Request\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"connection: close\r\ncontent-length: 3\r\na: \xfc\r\nb: ?\r\n\r\n"
    )
    assert b"content-length: 3\r\n" in head(Response(200, b"abc").bare(), b"")
    assert head(Response(299, b""), b"").startswith(b"HTTP/1.1 299 \r\n")


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        lambda n: b"1;" + 500 * b"e" + b"\r\na\r\n",
        lambda n: (b"0\r\n" if n == 0 else b"") + b"T: " + 500 * b"t" + b"\r\n",
    ],
    ids=["extensions", "trailers"],
)
def test_what_a_chunked_body_brings_besides_itself_counts_as_headers(framing):
    pieces = [framing(n) for n in range(2 * MAX_HEAD // 500)]
    few = received(CHUNKED, *pieces[:20], max_body=10**6)
    assert not few.refused
    sink = received(CHUNKED, *pieces, max_body=10**6)
    assert [status for status, _ in sink.refused] == [431]
    assert not sink.requests


def test_a_body_of_many_tiny_chunks_is_a_body_like_others():
    sink = received(CHUNKED, *(10_000 * [b"1\r\na\r\n"]), b"0\r\n\r\n", max_body=10**6)
    assert [len(request.body) for request, _ in sink.requests] == [10_000]
