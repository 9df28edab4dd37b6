"""The real small BERT through client, broker and worker, against the same model in a loop.

Each has one torch thread; what is left of the machine is for the rest. See `tests.bench.serving`.
"""

from __future__ import annotations

from collections.abc import Sequence

from examples.bert_model import SMALL_BERT
from tests.bench import bert, rates, serving
from tests.bench.report import Report

PIECES = 16
"""Word pieces of each text."""

TEXTS = max(rates.SIZES)


def run(seconds: float) -> Report:
    """Measure in rounds of so many seconds each."""
    return measure(seconds)


def measure(
    seconds: float, sizes: Sequence[int] = rates.SIZES, rounds: int = serving.ROUNDS
) -> Report:
    """Measure; sizes: batch sizes to choose the best from."""
    dtype = bert.cpu_dtype()
    settings = {"name": SMALL_BERT, "device": "cpu", "dtype": dtype, "threads": 1}
    texts = [bert.text(PIECES)] * TEXTS
    subject = serving.Subject("examples.bert_model:ManagedBertModel", settings, texts)
    note = f"small BERT in {dtype}, one torch thread, texts of {PIECES} word pieces"
    report = Report("cpu", notes=[note])
    for row in serving.compare(subject, seconds, sizes, rounds):
        report.add(row)
    return report
