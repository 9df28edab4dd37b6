"""No secret that is made in a test run may be in what the run writes.

Outputs of tests, logs of the processes that they start and the words of errors are searched as
pytest has captured them. `tests/conftest.py` takes the hook from here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import pytest

from zstreamer.keys import bearer
from zstreamer.keys.secrets import Pair

SECRETS: set[str] = set()
"""Secret keys and tokens that this process has made, and what tests have called `secret`."""

HIDDEN = "<secret>"


def secret(text: str) -> str:
    """Return a text that must not be written anywhere."""
    SECRETS.add(text)
    return text


def leaks(texts: Iterable[str]) -> list[str]:
    """Return the lines that have a secret in them, without it."""
    found = []
    for text in texts:
        for each in SECRETS:
            if each in text:
                lines = [line for line in text.splitlines() if each in line]
                found += [line.replace(each, HIDDEN)[:300] for line in lines]
    return found


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:  # the hook's
    """A test that passes fails where a secret was written meanwhile."""
    outcome = yield
    report = outcome.get_result()
    if report.passed and (found := leaks(text for _, text in report.sections)):
        report.outcome = "failed"
        report.longrepr = "a secret was written:\n" + "\n".join(found[:10])


def _remember() -> None:
    make_pair, make_token = Pair.new, bearer.new_token

    def new(_: type[Pair]) -> Pair:
        pair = make_pair()
        secret(pair.secret.reveal().decode())
        return pair

    Pair.new = classmethod(new)  # type: ignore[assignment,method-assign]
    bearer.new_token = lambda: secret(make_token())


_remember()
