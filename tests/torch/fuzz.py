"""A long fuzz of torch models, on a device without hardware: finds no row that is another's.

    python -m tests.torch.fuzz --seconds 600

The short one is `test_fuzz.py`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.torch.fake_cuda import overlapping
from zstreamer.errors import PredictError
from zstreamer.torch import Features, TorchModel
from zstreamer.worker.flights import DEPTH
from zstreamer.worker.runner import Begun, Runner

DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
LENGTHS, COUNTS = ((), (4, 8, 16)), ((), (1, 3, 8))


@dataclass(frozen=True)
class Case:
    """What one run is like.

    Args:
        seed: of the items.
        dtype: of the model.
        kind: of the feature.
        shape: of an item behind its length.
        lengths, counts: buckets.
        batches: sizes of batches.
        graphs: whether sizes are captured.
        bad: share of items that fail.
        given_up: share of batches that are ended without being looked at.
    """

    seed: int
    dtype: str
    kind: str
    shape: tuple[int, ...]
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    batches: tuple[int, ...]
    graphs: bool
    bad: float
    given_up: float


class Sums(TorchModel):
    """Answers an item with sums of its numbers, in several outputs, and with its own number."""

    def load(self, case: Case) -> nn.Module:
        self.padding = {"x": 0}
        self.length_buckets, self.batch_buckets = case.lengths, case.counts
        return nn.Identity()

    def prepare(self, item: Any) -> Features:
        number, values = item
        return {"x": values, "number": number, "_number": number}

    def forward(self, inputs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        if bool((inputs["number"] < 0).any()):
            raise ValueError("a bad item")
        x = inputs["x"].flatten(1)
        return {
            "number": inputs["number"],
            "some": x.ne(0).any(1),
            "sum": x.float().sum(1),
            "rows": inputs["x"].to(self.dtype).flatten(2).sum(1),
        }

    def finish(self, output: Any, item: Any) -> tuple[int, int, bool, float, Any]:
        return (
            item["_number"],
            int(output["number"]),
            bool(output["some"]),
            float(output["sum"]),
            output["rows"].float().numpy(),
        )


def items_of(case: Case) -> list[list[tuple[int, Any]]]:
    """Return the batches of a case: numbered items of several lengths."""
    draw = np.random.default_rng(case.seed)
    number = 0
    batches = []
    for size in case.batches:
        batch = []
        for _ in range(size):
            number += 1
            shape = (int(draw.integers(1, 13)), *case.shape)
            values = draw.integers(0, 3, shape).astype(case.kind)
            batch.append((-number if draw.random() < case.bad else number, values))
        batches.append(batch)
    return batches


def check(case: Case) -> None:
    """Run a case as a worker does, two batches at a time; raises AssertionError at a wrong row."""
    model = Sums()
    model.init_model(case, device="cpu", dtype=case.dtype)
    overlapping(model)
    if case.graphs:
        model._graphs._warming = True  # each size at once: few come often here
    else:
        model._forward = model.forward
    runner = Runner(model.predict, begin=model.begin)
    chance = random.Random(case.seed)
    open_batches: deque[tuple[Sequence[tuple[int, Any]], Begun]] = deque()
    for batch in items_of(case):
        begun = runner.begin([model.prepare(each) for each in batch], [False] * len(batch))
        open_batches.append((batch, begun))
        if len(open_batches) == DEPTH:
            _end(runner, model, *open_batches.popleft(), chance.random() < case.given_up)
    while open_batches:
        _end(runner, model, *open_batches.popleft(), False)


def _end(
    runner: Runner,
    model: Sums,
    batch: Sequence[tuple[int, Any]],
    begun: Begun,
    given_up: bool,
) -> None:
    if given_up:  # nobody wants it, and the next is begun meanwhile
        return
    begun.wait()
    outcomes = runner.end(begun)
    assert len(outcomes) == len(batch)
    for (number, values), outcome in zip(batch, outcomes, strict=True):
        if number < 0:
            assert isinstance(outcome, PredictError), outcome
            continue
        assert isinstance(outcome, tuple), outcome
        own, echoed, some, total, rows = outcome
        assert own == echoed == number, f"item {number} has the row of {echoed}"
        assert some == bool(np.any(values))
        close = TOLERANCE[model.dtype]
        np.testing.assert_allclose(total, values.astype(np.float64).sum(), rtol=close)
        expected = values.reshape(len(values), -1).astype(np.float64).sum(0)
        np.testing.assert_allclose(rows, expected, rtol=close, atol=close)


def drawn(draw: random.Random) -> Case:
    """Return a case at random."""
    pick: Callable[[Sequence[Any]], Any] = draw.choice
    return Case(
        seed=draw.randrange(2**32),
        dtype=pick(("float32", "bfloat16", "float16")),
        kind=pick(DTYPES),
        shape=pick(((1,), (3,), (2, 2))),
        lengths=pick(LENGTHS),
        counts=pick(COUNTS),
        batches=tuple(draw.randint(1, 20) for _ in range(draw.randint(1, 12))),
        graphs=draw.random() < 0.7,
        bad=pick((0.0, 0.0, 0.05, 0.5)),
        given_up=pick((0.0, 0.0, 0.3)),
    )


def main() -> int:
    """Fuzz for so long; return 1 where a row was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.torch.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (0)")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    draw = random.Random(options.seed)
    count = 0
    while time.monotonic() < end:
        case = drawn(draw)
        try:
            check(case)
        except BaseException:
            print(f"failed: {case}", file=sys.stderr)
            raise
        count += 1
    print(f"{count:,} cases, no wrong row")
    return 0


if __name__ == "__main__":
    sys.exit(main())
