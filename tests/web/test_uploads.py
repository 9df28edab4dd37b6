"""Files as bodies of `POST /v1/models/{model}:predict`: the model sees their bytes."""

import gzip

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.helpers.web_requests import Site, answer, header, problem
from zstreamer.errors import BadRequest
from zstreamer.web.api import uploads
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.problem import Refused

PREDICT = "/v1/models/default:predict"
PNG = b"\x89PNG\r\n\x1a\n\0\0\r\n--x\r\n"


def sizes(items):
    assert all(type(each) is bytes for each in items)
    return [len(each) for each in items]


def form(*files):
    """Content type and body of a form with these files, as httpx sends it."""
    named = [("file", (f"{at}.png", data, "image/png")) for at, data in enumerate(files)]
    request = httpx.Request("POST", "http://x/", files=named)
    return request.headers["content-type"], request.read()


def part(head, data=b"data", boundary="x"):
    return f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + f"\r\n--{boundary}--\r\n".encode()


@pytest.mark.parametrize("kind", ["application/octet-stream", "image/png", "Image/JPEG; a=b"])
@pytest.mark.parametrize("body", [PNG, b'{"instances": [1]}', b"\x81"])
def test_a_body_that_is_a_file_is_one_item(kind, body):
    site = Site(sizes)
    assert answer(site.post(PREDICT, body, content_type=kind)) == {"predictions": [len(body)]}
    assert site.seen[0].items == [body]


def test_each_file_of_a_form_is_an_item_in_order():
    site = Site(sizes)
    files = [PNG, b"", b"\r\n--", b'{"a": 1}']
    kind, body = form(*files)
    assert answer(site.post(PREDICT, body, content_type=kind))["predictions"] == [17, 0, 4, 8]
    assert site.seen[0].items == files
    packed = site.post(PREDICT, gzip.compress(body), content_type=kind, content_encoding="gzip")
    assert answer(packed)["predictions"] == [17, 0, 4, 8]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (part('Content-Disposition: form-data; name="s"'), "field 's' of the form is no file"),
        (part("Content-Type: image/png"), "is no file"),
        (part('Content-Disposition: form-data; filename="a"')[:-8], "ends before its last"),
        (b"--x--\r\n", "no file"),
        (b"nonsense", "not valid multipart/form-data"),
        (b"", "ends before its last boundary"),
        (part("A: " + "a" * 5000), "not valid multipart/form-data"),
        (part("\r\n".join(f"A{at}: b" for at in range(20))), "not valid multipart/form-data"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused_with_the_reason(body, words):
    response = Site().post(PREDICT, body, content_type="multipart/form-data; boundary=x")
    assert words in problem(response, 400)["detail"]


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(kind):
    assert "no boundary" in problem(Site().post(PREDICT, b"--x", content_type=kind), 400)["detail"]


def test_an_empty_file_alone_is_refused():
    assert "empty" in problem(Site().post(PREDICT, b"", content_type="image/png"), 400)["detail"]


def test_limits_are_those_of_other_bodies():
    site = Site(sizes, limits=Limits(max_items=2, max_body=1000))
    kind, body = form(b"1", b"2", b"3")
    assert (
        "more than 2 files" in problem(site.post(PREDICT, body, content_type=kind), 413)["detail"]
    )
    large = site.post(PREDICT, b"x" * 1001, content_type="image/png")
    assert "1000 bytes" in problem(large, 413)["detail"]


def test_another_type_is_told_what_is_accepted_with_the_form_in_base64():
    response = Site().post(PREDICT, b"%PDF", content_type="application/pdf")
    words = problem(response, 415)["detail"]
    assert '{"instances": [{"b64": "…"}]}' in words
    assert "multipart/form-data, application/octet-stream or image/*" in words
    assert "image/*" in header(response, "accept")


boundaries = some.text("abcXYZ019'()+_,-./:=?", min_size=1, max_size=70)


@settings(max_examples=200, deadline=None)
@given(some.lists(some.binary(max_size=50) | some.just(b"\r\n--x\r\n"), min_size=1, max_size=5))
def test_files_come_out_as_they_went_in(files):
    kind, body = form(*files)
    assert uploads.files(kind, body, Limits()) == files


@settings(max_examples=300, deadline=None)
@given(
    some.lists(some.binary(max_size=20), min_size=1, max_size=3),
    some.lists(
        some.tuples(some.integers(0, 400), some.integers(0, 40), some.binary(max_size=9)),
        max_size=3,
    ),
    some.text(max_size=20) | boundaries,
)
def test_any_form_is_read_or_refused(files, changes, boundary):
    kind, body = form(*files)
    for at, length, new in changes:
        body = body[:at] + new + body[at + length :]
    for each in (kind, f"multipart/form-data; boundary={boundary}"):
        try:
            found = uploads.files(each, body, Limits())
        except (BadRequest, Refused):
            continue
        assert all(type(one) is bytes for one in found)
        assert sum(map(len, found)) <= len(body)
