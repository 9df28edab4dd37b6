"""What fuzzing has found, and the inputs from which it starts, are read well."""

import importlib

import pytest

from tests.fuzz import CORPUS, TARGETS
from tests.fuzz.flaws import FLAWS


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


@pytest.mark.parametrize("name", FLAWS)
def test_a_check_that_is_removed_is_noticed_near_the_corpus(name):
    target, flaw = FLAWS[name]
    check = importlib.import_module(f"tests.fuzz.{target}").check
    files = sorted((CORPUS / target).iterdir(), key=lambda file: file.stat().st_size)
    inputs = (changed for each in files for changed in neighbours(each.read_bytes()))
    with flaw():
        assert any(fails(check, each) for each in inputs)


def fails(check, data):
    """Whether a check finds something wrong."""
    try:
        check(data)
    except Exception:
        return True
    return False


def neighbours(data):
    """The input itself, and all that differ from it in one byte by one."""
    yield data
    for place, byte in enumerate(data):
        for other in (byte + 1, byte - 1):
            yield data[:place] + bytes([other % 256]) + data[place + 1 :]
