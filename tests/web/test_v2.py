"""The Open Inference Protocol: tensors to items and back, many of them through tritonclient."""

import gzip
import json
import struct
import zlib

import numpy as np
import pytest
from tritonclient.http import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
)

from tests.helpers.web_requests import Site, answer, header, problem, snapshot
from zstreamer import Tensor
from zstreamer.errors import BadRequest, BrokerUnreachable, PredictError, TooLarge
from zstreamer.web.api.limits import Limits

INFER = "/v2/models/default/infer"

NUMBERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
DATATYPES = {
    "BOOL": np.dtype(bool),
    **{
        {"u": "UINT", "i": "INT", "f": "FP"}[code[0]] + str(8 * int(code[1])): np.dtype(code)
        for code in NUMBERS
    },
}


def site(model=lambda items: items, inputs=None, outputs=None, **settings):
    """A site whose model declares these tensors."""
    declared = {
        "inputs": inputs and [each.plain() for each in inputs],
        "outputs": outputs and [each.plain() for each in outputs],
    }
    return Site(model, brokers=snapshot(default=declared), **settings)


def tensor(array, name="input", datatype=None, binary=True):
    """What tritonclient makes of an array."""
    kinds = {dtype: name for name, dtype in DATATYPES.items()}
    found = InferInput(name, list(array.shape), datatype or kinds.get(array.dtype, "BYTES"))
    return found.set_data_from_numpy(array, binary_data=binary)


def infer(web, *inputs, status=200, compress=None, **more):
    """Ask as tritonclient does; its result, or the problem where the status is another."""
    body, length = InferenceServerClient.generate_request_body(list(inputs), **more)
    headers = {} if length is None else {"inference_header_content_length": str(length)}
    if compress is not None:
        headers["content_encoding"], pack = compress
        body = pack(body)
    response = web.post(INFER, body, **headers)
    if status != 200:
        return problem(response, status)
    assert response.status == 200, response.body
    length = header(response, "inference-header-content-length")
    return InferResult.from_response_body(response.body, header_length=length)


def texts(*values):
    return np.array(values, object)


def plain(web, body, status):
    """The problem of a body that is written by hand."""
    return problem(web.post(INFER, body), status)["detail"]


# Rows are items


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_arrays_of_every_datatype_go_and_come_back_row_by_row(datatype, binary):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(DATATYPES[datatype])
    declared = [Tensor("x", datatype, [3])], [Tensor("y", datatype, [-1])]
    web = site(list, *declared)
    wanted = InferRequestedOutput("y", binary_data=binary)
    result = infer(web, tensor(array, "x", binary=binary), outputs=[wanted], request_id="7")
    (call,) = web.seen
    assert [item.shape for item in call.items] == [(3,), (3,)]
    assert {item.dtype for item in call.items} == {array.dtype}
    np.testing.assert_array_equal(np.stack(call.items), array)
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    assert result.as_numpy("y").dtype == array.dtype
    assert result.get_response()["id"] == "7"
    assert ("data" in result.get_output("y")) is not binary


@pytest.mark.parametrize("binary", [True, False])
def test_text_is_str_and_comes_back_as_bytes_elements(binary):
    web = site(lambda items: [item.upper() for item in items], [Tensor("s")], [Tensor("t")])
    wanted = InferRequestedOutput("t", binary_data=binary)
    result = infer(web, tensor(texts("héllo", "", "[MASK]"), "s", binary=binary), outputs=[wanted])
    assert web.seen[0].items == ["héllo", "", "[MASK]"]
    found = [each.decode() if binary else each for each in result.as_numpy("t")]
    assert found == ["HÉLLO", "", "[MASK]"]


def test_bytes_stay_bytes_where_the_model_says_so():
    web = site(inputs=[Tensor("image", text=False)], outputs=[Tensor("image", text=False)])
    result = infer(web, tensor(texts(b"\x89PNG\xff", b""), "image"))
    assert web.seen[0].items == [b"\x89PNG\xff", b""]
    assert list(result.as_numpy("image")) == [b"\x89PNG\xff", b""]
    body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["é"]}]}
    assert answer(web.post(INFER, body))["outputs"][0]["data"] == ["é"]
    assert web.seen[1].items == ["é".encode()]


def test_bytes_that_are_no_text_need_binary_data():
    web = site(lambda _: [b"\xff"], outputs=[Tensor("raw", text=False)])
    wanted = InferRequestedOutput("raw", binary_data=False)
    found = infer(web, tensor(texts("x")), outputs=[wanted], status=406)
    assert "binary_data" in found["detail"]
    refused = infer(site(inputs=[Tensor("s")]), tensor(texts(b"\xff"), "s"), status=400)
    assert "text=False" in refused["detail"]


def test_rows_without_dimensions_are_plain_values():
    web = site(inputs=[Tensor("x", "FP32")], outputs=[Tensor("y", "INT64")])
    web.model = lambda items: [int(2 * item) for item in items]
    result = infer(web, tensor(np.array([0.5, 4], "f4"), "x"))
    assert web.seen[0].items == [0.5, 4.0]
    assert [type(item) for item in web.seen[0].items] == [float, float]
    np.testing.assert_array_equal(result.as_numpy("y"), np.array([1, 8]))


def test_a_column_is_a_value_a_row():
    web = site(inputs=[Tensor("s")])
    infer(web, tensor(texts("a", "b").reshape(2, 1), "s"))
    infer(site(), tensor(texts("a").reshape(1, 1), "s"))
    assert web.seen[0].items == ["a", "b"]
    web = site(inputs=[Tensor("x", "INT32")])
    infer(web, tensor(np.array([[1], [2]], "i4"), "x"))
    assert web.seen[0].items == [1, 2]


def test_rows_of_text_with_dimensions_are_nested_lists():
    pairs = texts("a", "b", "c", "d").reshape(2, 2)
    declared = [Tensor("pair", shape=[2])]
    web = site(inputs=declared, outputs=declared)
    result = infer(web, tensor(pairs, "pair"))
    assert web.seen[0].items == [["a", "b"], ["c", "d"]]
    assert result.as_numpy("pair").tolist() == [[b"a", b"b"], [b"c", b"d"]]


def test_several_inputs_are_dicts_by_name_and_so_are_outputs():
    inputs = [Tensor("ids", "INT64", [-1]), Tensor("title"), Tensor("scale", "FP32")]
    outputs = [Tensor("title"), Tensor("sum", "FP32")]

    def model(items):
        return [
            {"title": i["title"] * 2, "sum": np.float32(i["ids"].sum() * i["scale"]), "more": 1}
            for i in items
        ]

    web = site(model, inputs, outputs)
    ids = np.arange(6).reshape(2, 3)
    given = [
        tensor(np.array([1, 2], "f4"), "scale"),
        tensor(texts("a", "b"), "title", binary=False),
        tensor(ids, "ids"),
    ]
    result = infer(web, *given)
    assert result.as_numpy("title").tolist() == [b"aa", b"bb"]
    assert result.as_numpy("sum").tolist() == [3.0, 24.0]
    assert list(web.seen[0].items[1]) == ["ids", "title", "scale"]

    result = infer(web, *given, outputs=[InferRequestedOutput("sum", binary_data=False)])
    assert [each["name"] for each in result.get_response()["outputs"]] == ["sum"]


def test_some_outputs_may_be_binary_and_others_not():
    outputs = [Tensor("a", "INT32"), Tensor("b"), Tensor("c", "FP64")]
    web = site(lambda items: [{"a": 1, "b": "text", "c": 0.5} for _ in items], outputs=outputs)
    wanted = [
        InferRequestedOutput("c", binary_data=True),
        InferRequestedOutput("b", binary_data=False),
        InferRequestedOutput("a", binary_data=True),
    ]
    result = infer(web, tensor(texts("x", "y")), outputs=wanted)
    assert result.as_numpy("a").tolist() == [1, 1]
    assert result.as_numpy("b").tolist() == ["text", "text"]
    assert result.as_numpy("c").tolist() == [0.5, 0.5]


# Models that declare nothing


@pytest.mark.parametrize(
    ("outputs", "datatype", "values"),
    [
        (["a", "b"], "BYTES", ["a", "b"]),
        ([b"a", "b"], "BYTES", ["a", "b"]),
        ([1, -2], "INT64", [1, -2]),
        ([1, 2.5], "FP64", [1.0, 2.5]),
        ([True, False], "BOOL", [True, False]),
        ([np.float32(1), np.float32(2)], "FP32", [1, 2]),
        ([np.ones(2, "u1"), np.zeros(2, "u1")], "UINT8", [1, 1, 0, 0]),
        ([np.ones(2), np.zeros(3)], "BYTES", ["[1.0,1.0]", "[0.0,0.0,0.0]"]),
        ([np.ones(1), np.ones(1, "f4")], "BYTES", ["[1.0]", "[1.0]"]),
        ([[1, 2], {"a": b"b"}], "BYTES", ["[1,2]", '{"a":{"b64":"Yg=="}}']),
        ([None, "a"], "BYTES", ["null", '"a"']),
        ([2**63, 2**64 - 1], "UINT64", [2**63, 2**64 - 1]),
        ([-1, 2**63], "BYTES", ["-1", "9223372036854775808"]),
        ([np.ones(1, ">f4")] * 2, "FP32", [1.0, 1.0]),
    ],
)
def test_undeclared_outputs_are_what_they_look_like(outputs, datatype, values):
    web = site(lambda _: outputs)
    response = web.post(INFER, json.dumps({"inputs": [BYTES]}).encode())
    (found,) = answer(response)["outputs"]
    assert (found["name"], found["datatype"]) == ("output", datatype)
    assert found["shape"][0] == 2
    assert found["data"] == values


BYTES = {"name": "any", "shape": [2], "datatype": "BYTES", "data": ["x", "y"]}


def test_an_undeclared_input_is_one_tensor_of_any_kind():
    web = site(lambda items: [item.sum() for item in items])
    array = np.arange(6, dtype="f4").reshape(2, 3)
    result = infer(web, tensor(array, "pixels"), outputs=[InferRequestedOutput("any")])
    assert result.as_numpy("any").tolist() == [3, 12]
    assert (
        "2 outputs"
        in infer(
            web,
            tensor(array, "pixels"),
            outputs=[InferRequestedOutput("a"), InferRequestedOutput("b")],
            status=400,
        )["detail"]
    )
    assert "one input" in infer(web, tensor(array, "a"), tensor(array, "b"), status=400)["detail"]


# What does not fit


def test_tensors_other_than_declared_are_400_with_the_fix():
    web = site(inputs=[Tensor("x", "FP32", [3, -1]), Tensor("s")])
    x, s = np.zeros((2, 3, 5), "f4"), texts("a", "b")

    def refused(*inputs, **more):
        return infer(web, *inputs, status=400, **more)["detail"]

    assert "'x' (FP32 [-1, 3, -1]), 's' (BYTES [-1])" in refused(tensor(x, "x"))
    assert "no input 's' but 'x', 'z'" in refused(tensor(x, "x"), tensor(s, "z"))
    assert "no input 's' but 'x'" in refused(tensor(x, "x"), tensor(x, "x"))
    assert "'x' is FP64; send FP32" in refused(tensor(x.astype("f8"), "x"), tensor(s, "s"))
    assert "send [-1, 3, -1]" in refused(tensor(x[0], "x"), tensor(s, "s"))
    assert "send [-1, 3, -1]" in refused(tensor(x[:, :2], "x"), tensor(s, "s"))
    assert "differ in rows" in refused(tensor(x[:1], "x"), tensor(s, "s"))
    assert (
        "no output 'y'"
        in infer(
            site(outputs=[Tensor("z")]), tensor(s), outputs=[InferRequestedOutput("y")], status=400
        )["detail"]
    )
    assert web.seen == []


def test_outputs_other_than_declared_are_a_500_that_names_them():
    def refused(output, *declared):
        web = site(lambda _: [output, output], outputs=declared)
        return infer(web, tensor(texts("x", "y")), status=500)["detail"]

    x = Tensor("x", "FP32", [2])
    assert "shape [3]" in refused(np.zeros(3, "f4"), x)
    assert "not numbers" in refused("text", x)
    assert "not numbers" in refused([[1], [1, 2]], x)
    assert "out of range for INT8" in refused(300, Tensor("x", "INT8"))
    assert "float64, but INT8" in refused(1.5, Tensor("x", "INT8"))
    assert "dict of the tensors" in refused(1.5, Tensor("x", "FP32"), Tensor("y"))
    assert "dict of the tensors" in refused({"x": 1}, Tensor("x", "FP32"), Tensor("y"))
    assert "text" in refused(1, Tensor("x"))
    assert "shape [2] of text" in refused(["a"], Tensor("x", shape=[2]))


def test_undeclared_outputs_that_json_cannot_hold_are_the_models_fault_and_named():
    web = site(lambda _: [{"a": 1}, {"a": [{b"x": 1}]}])
    found = infer(web, tensor(texts("x", "y")), status=500)
    assert (found["exception"], found["index"]) == ("BadOutput", 1)
    assert "the key b'x' is bytes" in found["detail"]
    web = site(lambda _: [{np.int64(3): 0.5}])
    assert infer(web, tensor(texts("x"))).as_numpy("output").tolist() == [b'{"3":0.5}']


@pytest.mark.parametrize(("kind", "status"), [(BadRequest, 400), (TooLarge, 413)])
def test_a_row_that_the_model_refuses_has_the_status_of_the_refusal(kind, status):
    def model(items):
        raise kind("not with me")

    assert infer(site(model), tensor(texts("x")), status=status)["detail"] == "not with me"


def test_outputs_are_cast_where_that_loses_no_meaning():
    web = site(lambda _: [[1, 2], [3, 4]], outputs=[Tensor("x", "FP16", [2])])
    assert infer(web, tensor(texts("a", "b"))).as_numpy("x").dtype == np.float16
    web = site(lambda _: [np.int64(200), np.int64(3)], outputs=[Tensor("x", "UINT8")])
    assert infer(web, tensor(texts("a", "b"))).as_numpy("x").tolist() == [200, 3]


ONE = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 1}, "with a name"),
        ({"datatype": "BF16"}, "'BF16' is not one of BOOL"),
        ({"datatype": None}, "is not one of"),
        ({"datatype": []}, "is not one of"),
        ({"shape": None}, "shape None"),
        ({"shape": []}, "rows first"),
        ({"shape": [1.0]}, "whole numbers"),
        ({"shape": [True]}, "whole numbers"),
        ({"shape": [-1]}, "whole numbers"),
        ({"shape": [0], "data": []}, "no elements"),
        ({"shape": [1] * 40}, "rows first"),
        ({"shape": [1, 2**62, 2**62]}, "but shape"),
        ({"data": None}, "neither"),
        ({"data": "text"}, "neither"),
        ({"data": []}, "0 values"),
        ({"data": [1, 2]}, "2 values"),
        ({"data": ["1"]}, "'1' is no FP32"),
        ({"data": [None]}, "None is no FP32"),
        ({"data": [True]}, "True is no FP32"),
        ({"data": [1e300]}, "out of range for FP32"),
        ({"datatype": "INT8", "data": [128]}, "out of range for INT8"),
        ({"datatype": "UINT64", "data": [-1]}, "out of range for UINT64"),
        ({"datatype": "INT32", "data": [1.0]}, "1.0 is no INT32"),
        ({"datatype": "BOOL", "data": [1]}, "1 is no BOOL"),
        ({"datatype": "BYTES", "data": [1]}, "must be text"),
        ({"shape": [2, 2], "data": [[1, 2], [3]]}, "not nested"),
        ({"shape": [2, 2], "data": [[1, 2, 3], [4]]}, "not nested"),
        ({"shape": [2, 2], "data": [[1, 2], 3, 4]}, "not nested"),
        ({"shape": [4], "data": [[1, 2], [3, 4]]}, "not nested"),
        ({"parameters": {"binary_data_size": 4}}, "0 bytes are left"),
        ({"parameters": {"binary_data_size": -4}}, "binary_data_size is -4"),
        ({"parameters": {"binary_data_size": "4"}}, "binary_data_size is '4'"),
        ({"parameters": {"binary_data_size": True}}, "binary_data_size is True"),
    ],
)
def test_an_input_that_is_wrong_is_a_400_that_says_how(change, words):
    assert words in plain(site(), {"inputs": [{**ONE, **change}]}, 400)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "list of inputs"),
        (b"{}", "list of inputs"),
        (b'{"inputs": {}}', "list of inputs"),
        (b'{"inputs": []}', "0 inputs"),
        (b'{"inputs": [1]}', "with a name"),
        (b'{"inputs": [], "inputs": []}', "more than once"),
        ({"inputs": [ONE], "id": 7}, "id must be text"),
        ({"inputs": [ONE], "parameters": []}, "parameters must be an object"),
        ({"inputs": [ONE], "parameters": {"timeout": "1"}}, "microseconds"),
        ({"inputs": [ONE], "outputs": {}}, "outputs must be a list"),
        ({"inputs": [ONE], "outputs": [1]}, "one name each"),
        ({"inputs": [ONE], "outputs": [{"name": "a"}, {"name": "a"}]}, "one name each"),
    ],
)
def test_a_request_that_is_wrong_is_a_400_that_says_how(body, words):
    assert words in plain(site(), body, 400)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [ONE], "parameters": {"sequence_id": 1}},
        {"inputs": [{**ONE, "parameters": {"shared_memory_region": "x"}}]},
        {"inputs": [ONE], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
    ],
)
def test_what_triton_has_and_this_has_not_is_a_501(body):
    plain(site(), body, 501)


def binary(tail, length=None, **change):
    """A request with binary data: the body, and the headers."""
    parameters = {"binary_data_size": len(tail)}
    given = {"name": "x", "shape": [1], "datatype": "FP32", "parameters": parameters, **change}
    head = json.dumps({"inputs": [given]}).encode()
    length = str(len(head)) if length is None else length
    return head + tail, {"inference_header_content_length": length}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (binary(b"\0" * 3), "3 bytes of binary data"),
        (binary(b"\0" * 8), "8 bytes of binary data"),
        (binary(b"\0" * 4, parameters={"binary_data_size": 5}), "4 bytes are left"),
        (binary(b"\0" * 4, parameters={}, data=[1]), "belong to no input"),
        (binary(b"\0" * 5, parameters={"binary_data_size": 4}), "1 bytes"),
        (binary(b"\0" * 4, length="0"), "Inference-Header-Content-Length"),
        (binary(b"\0" * 4, length="-1"), "Inference-Header-Content-Length"),
        (binary(b"\0" * 4, length="x"), "Inference-Header-Content-Length"),
        (binary(b"\0" * 4, length="٣"), "Inference-Header-Content-Length"),
        (binary(b"\0" * 4, length="9" * 5000), "Inference-Header-Content-Length"),
        (binary(b"\0" * 4, length="10"), "not JSON"),
        (binary(b"\0" * 4, length="1000"), "Inference-Header-Content-Length"),
        (binary(b"\2\0\0\0a", datatype="BYTES"), "1 elements of BYTES"),
        (binary(b"\1\0\0", datatype="BYTES"), "1 elements of BYTES"),
        (binary(b"\xff\xff\xff\xffa", datatype="BYTES"), "1 elements of BYTES"),
        (binary(b"\0\0\0\0" * 2, datatype="BYTES"), "1 elements of BYTES"),
        (binary(b"", datatype="BYTES"), "1 elements of BYTES"),
    ],
)
def test_binary_data_that_are_wrong_are_a_400_that_says_how(request_, words):
    body, headers = request_
    assert words in problem(site().post(INFER, body, **headers), 400)["detail"]


def test_any_byte_is_a_bool():
    web = site()
    body, headers = binary(b"\0\1\7", datatype="BOOL", shape=[3])
    assert answer(web.post(INFER, body, **headers))["outputs"][0]["data"] == [False, True, True]
    rows = web.seen[0].items
    assert rows == [False, True, True]
    assert [type(row) for row in rows] == [bool] * 3


def test_the_bytes_of_a_bool_are_0_or_1_whatever_came():
    """A model that reads them as numbers would count a 7 as seven."""
    web = site(lambda items: [int(item.view(np.uint8).sum()) for item in items])
    body, headers = binary(b"\0\1\7\xff", datatype="BOOL", shape=[2, 2])
    assert answer(web.post(INFER, body, **headers))["outputs"][0]["data"] == [1, 2]
    assert [row.tobytes() for row in web.seen[0].items] == [b"\0\1", b"\1\1"]


# Compression, limits, budgets


@pytest.mark.parametrize("compress", [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests_are_read(compress):
    array = np.arange(4, dtype="f4")
    result = infer(site(), tensor(array), compress=compress)
    assert result.as_numpy("output").tolist() == [0, 1, 2, 3]


def test_too_many_rows_are_a_413_before_they_are_made():
    web = site(limits=Limits(max_items=10))
    assert "11 rows" in infer(web, tensor(np.zeros(11)), status=413)["detail"]
    huge = {"inputs": [{**ONE, "shape": [2**60]}]}
    assert "more than 10" in plain(web, huge, 413)
    bomb = gzip.compress(b'{"inputs": [' + b" " * 2_000_000 + b"]}")
    web = site(limits=Limits(max_body=1_000_000))
    problem(web.post(INFER, bomb, content_encoding="gzip"), 413)


def test_the_budget_is_the_headers_or_that_of_triton_in_microseconds():
    web = site()
    body = {"inputs": [ONE], "parameters": {"timeout": 2_500_000}}
    web.post(INFER, body)
    web.post(INFER, body, x_request_timeout="7", x_priority="3")
    web.post(INFER, {"inputs": [ONE]})
    web.post(INFER, {"inputs": [ONE], "parameters": {"timeout": 10**12}})
    assert [(c.timeout, c.priority) for c in web.seen] == [(2.5, 0), (7, 3), (20, 0), (300, 0)]


# Models, versions, health


def test_metadata_say_what_a_model_takes_with_the_rows_first():
    web = site(inputs=[Tensor("x", "FP32", [3, -1])], outputs=[Tensor("label")])
    found = answer(web.get("/v2/models/default"))
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, -1]}]
    assert found["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [-1]}]
    assert found["versions"] == ["1"]
    found = answer(site().get("/v2/models/default"))
    assert found["inputs"] == [{"name": "input", "datatype": "BYTES", "shape": [-1]}]
    assert found["outputs"] == [{"name": "output", "datatype": "BYTES", "shape": [-1]}]


def test_version_1_is_the_only_one():
    web = Site(brokers=snapshot(**{"a/b": {}}))
    for path in ("/v2/models/a/b", "/v2/models/a/b/versions/1"):
        assert answer(web.get(path))["name"] == "a/b"
        assert answer(web.get(f"{path}/ready"))["ready"] is True
        assert answer(web.post(f"{path}/infer", {"inputs": [ONE]}))["model_version"] == "1"
    assert "no version '2'" in problem(web.get("/v2/models/a/b/versions/2"), 404)["detail"]
    problem(web.post("/v2/models/a/b/versions/2/infer", {"inputs": [ONE]}), 404)


def test_an_unknown_model_is_a_404_and_one_without_workers_a_503():
    web = Site(brokers=snapshot(cold={"ready": False, "trouble": "OSError: no weights"}))
    for path in ("/v2/models/x", "/v2/models/x/ready"):
        assert problem(web.get(path), 404)["models"] == ["cold"]
    assert problem(web.post("/v2/models/x/infer", {"inputs": [ONE]}), 404)["models"] == ["cold"]
    response = web.post("/v2/models/cold/infer", {"inputs": [ONE]})
    assert "no weights" in problem(response, 503)["detail"]
    assert header(response, "retry-after") == "1"
    problem(web.get("/v2/models/cold/ready"), 503)


def test_what_a_model_takes_is_remembered_while_its_worker_starts_again():
    web = site(inputs=[Tensor("x", "FP32")])
    infer(web, tensor(np.zeros(2, "f4"), "x"))
    web.snapshot = snapshot(default={"ready": False})
    infer(web, tensor(np.zeros(2, "f4"), "x"))
    assert "send FP32" in infer(web, tensor(np.zeros(2), "x"), status=400)["detail"]
    web.snapshot = snapshot(default={"inputs": [Tensor("x", "FP64").plain()]})
    infer(web, tensor(np.zeros(2), "x"))


def test_a_declaration_that_cannot_be_read_is_a_501():
    web = Site(brokers=snapshot(default={"inputs": [{"name": "x", "datatype": "FP8"}]}))
    assert "FP8" in plain(web, {"inputs": [ONE]}, 501)


def test_errors_have_the_words_where_tritonclient_looks():
    def fail(_):
        raise PredictError("no [MASK]", "ValueError", "Traceback: secret")

    response = site(fail).post(INFER, {"inputs": [ONE]})
    assert json.loads(response.body)["error"] == "ValueError: no [MASK]"
    assert b"secret" not in response.body


def test_the_server_says_what_it_is_and_how_it_is():
    web = site()
    assert answer(web.get("/v2"))["extensions"] == ["binary_tensor_data", "model_repository"]
    assert answer(web.get("/v2/health/live"))["live"] is True
    assert answer(web.get("/v2/health/ready"))["ready"] is True
    web.snapshot = BrokerUnreachable("no broker answered at tcp://10.0.0.5:7787")
    problem(web.get("/v2/health/ready"), 503)
    assert answer(web.get("/v2/health/live"))["live"] is True


def test_the_binary_form_of_text_is_as_the_protocol_has_it():
    body, headers = binary(struct.pack("<I", 2) + b"ab", datatype="BYTES")
    head = json.loads(body[: int(headers["inference_header_content_length"])])
    head["parameters"] = {"binary_data_output": True}
    head = json.dumps(head).encode()
    response = site().post(
        INFER,
        head + struct.pack("<I", 2) + b"ab",
        inference_header_content_length=str(len(head)),
    )
    length = int(header(response, "inference-header-content-length"))
    assert header(response, "content-type") == "application/octet-stream"
    assert response.body[length:] == b"\x02\x00\x00\x00ab"
    assert json.loads(response.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 6}
