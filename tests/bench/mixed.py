"""Texts of very different lengths: what it brings to let those of like lengths share a batch.

The same texts go through client, broker and worker of the real small BERT in three ways, which
take turns: with `cost`, in plain order, and all padded to 512 word pieces, as is simplest to write.
"""

from __future__ import annotations

import statistics

from examples.bert_model import SMALL_BERT
from tests.bench import bert, rates
from tests.bench.report import MORE, Report, Row
from tests.helpers.cluster import Cluster
from zstreamer.system import cpus

BATCH = 16

TEXTS_A_SECOND = 40
"""Texts for each second that a round is asked to last: a guess, since all ways get the same."""

LEAST = 2 * BATCH

ROUNDS = 3

GAIN = 1.5
"""What being aware of lengths must bring against plain order."""

AWARE, PLAIN, PADDED = "with cost", "plain order", "padded to 512"
WAYS = {
    AWARE: "examples.bert_model:ManagedBertModel",
    PLAIN: "tests.bench.bert:Plain",
    PADDED: "tests.bench.bert:Padded",
}


def run(seconds: float) -> Report:
    """Send texts for some seconds a round."""
    return measure(bert.lengths(max(LEAST, round(seconds * TEXTS_A_SECOND))))


def measure(lengths: list[int], batch: int = BATCH, rounds: int = ROUNDS) -> Report:
    """Send texts of these lengths in each way, in rounds."""
    texts = [bert.text(length) for length in lengths]
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    dtype = bert.cpu_dtype()
    settings = {
        "batch_size": batch,
        # Each worker is alone while its way has its turn, so it may have all cores.
        "init_kwargs": {"name": SMALL_BERT, "dtype": dtype, "threads": cpus.share(1)},
    }
    with Cluster() as cluster:
        clients = {
            way: rates.join(cluster, target, model=way, **settings) for way, target in WAYS.items()
        }
        for number in range(rounds):
            for way in list(WAYS)[:: 1 if number % 2 else -1]:
                found[way].append(rates.through(clients[way], texts))
    report = Report("mixed", notes=[_words(lengths, batch, dtype)])
    for row in _rows(found):
        report.add(row)
    return report


def _rows(found: dict[str, list[float]]) -> list[Row]:
    return [
        Row(f"{AWARE}, against {PLAIN}", found[AWARE], "items/s", found[PLAIN], (MORE, GAIN)),
        Row(f"{AWARE}, against {PADDED}", found[AWARE], "items/s", found[PADDED]),
        Row(f"{PLAIN}, against {PADDED}", found[PLAIN], "items/s", found[PADDED]),
    ]


def _words(lengths: list[int], batch: int, dtype: str) -> str:
    ordered = sorted(lengths)
    high = ordered[round(0.95 * (len(ordered) - 1))]
    return (
        f"{len(lengths)} texts of {statistics.median(lengths):g} word pieces (median), 95 % up to "
        f"{high}, the longest {ordered[-1]}; batches of up to {batch}; small BERT in {dtype}"
    )
