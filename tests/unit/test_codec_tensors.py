"""Tensors of torch come back as they went, and what cannot go says so in words."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from zstreamer import codec, extensions
from zstreamer.errors import BadRequest


def round_trip(value):
    return codec.decode(codec.encode(value))


@pytest.mark.parametrize("name", extensions.DTYPES)
def test_a_tensor_comes_back_as_one(name):
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(torch, name)).T
    again = round_trip([tensor])[0]
    assert (type(again), again.dtype, again.shape) == (torch.Tensor, tensor.dtype, tensor.shape)
    assert torch.equal(again, tensor)
    again[0] = 1


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.arange(24.0).reshape(2, 3, 4)[:, 1],
        torch.ones(2, requires_grad=True),
        torch.nn.Parameter(torch.ones(2)),
        torch.tensor([1 + 2j]).conj(),
        torch._neg_view(torch.ones(2)),
    ],
    ids=str,
)
def test_a_tensor_of_odd_layout_comes_back_by_its_values(tensor):
    assert torch.equal(round_trip(tensor), tensor.detach())


@pytest.mark.parametrize(
    ("tensor", "fix"),
    [
        (torch.ones(2).to_sparse(), "convert it with .to_dense()"),
        (torch.ones(2, dtype=torch.float8_e4m3fn), "convert it with .float()"),
        (torch.ones(2, device="meta"), "which has no values"),
    ],
    ids=str,
)
def test_a_tensor_that_cannot_be_sent_is_refused_with_what_to_do(tensor, fix):
    with pytest.raises(BadRequest, match=re.escape(fix)):
        codec.encode([tensor])


def test_without_torch_a_tensor_arrives_as_an_array():
    values = [torch.tensor([1.5, -2.0]), torch.tensor([1.5, -2.0], dtype=torch.bfloat16)]
    text = f"""
import sys
from zstreamer import codec
for payload in {codec.encode_all(values)!r}:
    array = codec.decode(payload)
    assert (array.dtype.str, array.tolist()) == ("<f4", [1.5, -2.0])
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", text], check=True)
