"""Fuzzing by coverage: whatever bytes come, what reads them stays well.

`TARGETS` are modules with ``check(data: bytes)``, which raises where something is wrong, and a
folder of inputs in `corpus`. `scripts/fuzz` has atheris make up more of them. What it finds is
put right, and goes into the corpus: `test_corpus` gives all of it to the checks.
"""

from pathlib import Path

TARGETS = ("wire", "codec", "http", "tensors")

CORPUS = Path(__file__).with_name("corpus")
