"""What fuzzing has found, and the inputs from which it starts, are read well."""

import importlib

import pytest

from tests.fuzz import CORPUS, TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_all_of_the_corpus_is_read_well(target):
    check = importlib.import_module(f"tests.fuzz.{target}").check
    files = sorted((CORPUS / target).iterdir())
    assert len(files) > 5
    for each in files:
        data = each.read_bytes()
        for changed in (data, data[: len(data) // 2], data + data, data[::-1]):
            try:
                check(changed)
            except Exception as error:
                raise AssertionError(f"{each}: {changed!r}") from error
