"""Marks of tests that need what is not everywhere."""

from importlib.metadata import version
from importlib.util import find_spec

import pytest

needs_torch = pytest.mark.skipif(not find_spec("torch"), reason="needs torch")

needs_numpy_2 = pytest.mark.skipif(
    int(version("numpy").partition(".")[0]) < 2, reason="needs numpy 2, which has StringDType"
)
