"""The real small BERT over HTTP, against its own throughput in a loop of full batches.

It has one torch thread wherever it runs. wrk has a thread for each connection, so each answer is
held against the very question of its connection.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial

import torch

from examples.bert_model import SMALL_BERT, ManagedBertModel
from tests.bench import bert, rates, serving, web_ours, web_rounds
from tests.bench.report import MORE, Report, Row
from tests.bench.web_cluster import cluster
from tests.bench.web_rounds import Found
from tests.bench.web_wrk import Sample
from zstreamer.torch import Features

CONNECTIONS = 128
PIECES = 16
"""Word pieces of each sentence."""

QUESTIONS = 512
"""Four for each connection."""

SURE = 0.5
"""How much likelier (in logits) a sentence's word must be than the next one. In bfloat16 the shape
of a batch moves them by up to a tenth of that, so that near ties would have two right answers."""

JUDGED = 30
"""Seconds, at least, of a round whose bound is judged."""

SIZES = (8, 16, 32, 64)
"""Batch sizes to choose from: 128 connections fill two of the largest."""

WORKERS = (2, 4)
"""Besides a single one."""

ALONE = "the model by itself"
OF_ALONE = (MORE, 0.95)


class Sure(ManagedBertModel):
    """Answers with the word and by how much it is the likeliest."""

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return number and lead of the likeliest word piece: float32 [items, 2]."""
        ids, places = inputs["input_ids"], inputs["place"]
        outputs = self.bert.base_model(input_ids=ids, attention_mask=inputs["attention_mask"])
        hidden = outputs.last_hidden_state[torch.arange(len(places)), places]
        scores, best = self.bert.cls(hidden).float().topk(2)
        return torch.stack([best[:, 0].float(), scores[:, 0] - scores[:, 1]], dim=1)

    def finish(self, best: torch.Tensor, features: Features) -> tuple[str, float]:
        return super().finish(best[0], features), float(best[1])


def questions(settings: Mapping[str, object], count: int = QUESTIONS) -> list[tuple[str, str]]:
    """So many distinct sentences whose word does not depend on their batch."""
    model = Sure()
    model.init_model(**settings)
    choose = random.Random(1).choices
    found: dict[str, str] = {}
    while len(found) < count:
        texts = [
            " ".join(["[MASK]", *choose(bert.WORDS, k=PIECES - bert.FRAME)]) + " ."
            for _ in range(max(SIZES))
        ]
        outcomes = zip(texts, model(texts), strict=True)
        found.update({text: word for text, (word, lead) in outcomes if lead > SURE})
    return list(found.items())[:count]


def measure(report: Report, seconds: float) -> None:
    """Add the rows; seconds: of a round.

    What lies in an unfinished batch at a round's end is lost to it, so one that is judged must be
    long beside two batches, which take some 0.4 s.
    """
    seconds = max(1, round(seconds))
    dtype = bert.cpu_dtype()
    settings = {"name": SMALL_BERT, "device": "cpu", "dtype": dtype, "threads": 1}
    with serving.threads_kept():
        asked = questions(settings)
        subject = serving.Subject(
            "examples.bert_model:ManagedBertModel", settings, [text for text, _ in asked]
        )
        model = subject.load()
        size = rates.best_size(model, subject.items, seconds / 5, SIZES)
        judged = max(JUDGED, 2 * seconds)
        alone = partial(rates.alone, model, subject.items, size, judged)
        bench = Bench(report, seconds, asked, settings, size, judged)
        report.notes.append(f"BERT: small, in {dtype}, one thread, batches of {size}")
        bench.one_worker(lambda: Sample(alone()))
    for workers in WORKERS:
        bench.more_workers(workers)


class Bench:
    """The rows of one real model.

    Args:
        report: gets them.
        seconds: of a round.
        asked: sentences with their words.
        settings: for `init_model`.
        size: of a batch.
        judged: seconds of a round whose bound is judged.
    """

    def __init__(
        self,
        report: Report,
        seconds: int,
        asked: list[tuple[str, str]],
        settings: Mapping[str, object],
        size: int,
        judged: int = JUDGED,
    ) -> None:
        self.report = report
        self._seconds = seconds
        self._judged = judged
        self._asked = asked
        self._settings = settings
        self._size = size
        self._variables = {"BERT_DTYPE": str(settings["dtype"]), "BATCH": str(size)}

    def one_worker(self, alone: web_rounds.Way) -> None:
        """The gateway against the model by itself, in turns; then the others, once."""
        with self._cluster(1) as address:
            services = [
                web_ours.naive("bert", **self._variables),
                web_ours.threaded("bert", **self._variables),
                web_ours.streamer("bert", 1, **self._variables),
                web_ours.flask(address, "bert"),
                web_ours.gateway(address, "bert"),
            ]
            with web_rounds.started(services, self._asked) as servers:
                gateway = {web_ours.GATEWAY: servers.pop(web_ours.GATEWAY)}
                judged = self._ways(gateway, self._judged)
                found = web_rounds.take_turns({ALONE: alone, **judged})
                reference = found.pop(ALONE)
                ways = self._ways(servers, self._seconds)
                found.update(web_rounds.take_turns(ways, rounds=1))
        self.report.add(Row(f"BERT, {ALONE}", [each.rate for each in reference], "items/s"))
        title = f"BERT, {web_ours.GATEWAY}, against {ALONE}"
        samples = found[web_ours.GATEWAY]
        self.report.add(web_rounds.rate(title, samples, reference, OF_ALONE))
        self._add(found, 1, without=web_ours.GATEWAY)

    def more_workers(self, workers: int) -> None:
        """The streamer and the gateway, once."""
        with self._cluster(workers) as address:
            services = [
                web_ours.streamer("bert", workers, **self._variables),
                web_ours.gateway(address, "bert"),
            ]
            with web_rounds.started(services, self._asked) as servers:
                ways = self._ways(servers, self._seconds)
                found = web_rounds.take_turns(ways, rounds=1)
        self._add(found, workers)

    def _cluster(self, workers: int) -> AbstractContextManager[str]:
        return cluster("bert", workers, batch_size=self._size, init_kwargs=dict(self._settings))

    def _ways(self, servers: web_rounds.Servers, seconds: int) -> dict[str, web_rounds.Way]:
        return web_rounds.asking(servers, CONNECTIONS, seconds, threads=CONNECTIONS)

    def _add(self, found: Found, workers: int, without: str = "") -> None:
        told = "BERT" if workers == 1 else f"BERT, {workers} workers"
        for name, samples in found.items():
            if name != without:
                self.report.add(web_rounds.rate(f"{told}, {name}", samples))
        self.report.add(web_rounds.bad(told, found))
        common = {"model": "bert", "workers": workers, "connections": CONNECTIONS}
        self.report.points += web_rounds.points(found, **common)
