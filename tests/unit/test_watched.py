"""Files that a running broker reads again: whatever is written into them, it goes on."""

from __future__ import annotations

import re
from itertools import product

import pytest

from zstreamer import sources
from zstreamer.broker import routes_file
from zstreamer.broker.terms import TermsFile
from zstreamer.broker.watched import LOOK, Watched
from zstreamer.config import BrokerConfig
from zstreamer.setting import ConfigError

DEEP = "x = " + "[" * 3000 + "]" * 3000
HUGE = "0x" + "f" * 5000  # Python does not turn an integer of this size into decimal digits


BOTH = [DEEP, "\x00"]
ROUTES = [
    f"[routes.m]\nweights = {{ a = {HUGE} }}",
    f"[routes.m]\nhold = {{ a = {HUGE} }}",
    f"[routes.m]\nshadow = {HUGE}",
    f"[routes.m]\nshadow = [{HUGE}]",
    f"[routes.m]\nshadow_share = {HUGE}",
    f"[routes.m]\nalias = {HUGE}",
]
TENANTS = [
    f"[tenants.a]\nweight = {HUGE}",
    f"[tenants.a]\nopen_items = {HUGE}",
    f"[tenants.a]\nopen_items = [{HUGE}]",
]


@pytest.mark.parametrize(
    ("watch", "text"),
    [*product([routes_file.watched], BOTH + ROUTES), *product([TermsFile], BOTH + TENANTS)],
    ids=lambda each: getattr(each, "__name__", repr(each)[:40]),
)
def test_a_file_that_makes_no_sense_is_a_clear_error_and_leaves_what_holds(tmp_path, watch, text):
    file = tmp_path / "file.toml"
    file.write_text("[routes.m]\nweights = { a = 1 }\n[tenants.a]\nweight = 2\n")
    watched = watch(file)
    before = watched.value
    file.write_text(text)
    assert not watched.changed(LOOK)
    assert watched.value == before
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        watch(file)


def test_a_reader_that_fails_unforeseen_is_logged_and_leaves_what_holds(tmp_path, caplog):
    file = tmp_path / "file"
    file.write_text("7")
    watched = Watched(file, lambda path: 14 // int(path.read_text()), "shares")
    file.write_text("00")
    assert not watched.changed(LOOK)
    assert watched.value == 2
    assert "shares unchanged" in caplog.text
    file.write_text("007")
    assert not watched.changed(2 * LOOK)
    file.write_text("0014")
    assert watched.changed(3 * LOOK)


def test_a_setting_of_thousands_of_digits_is_a_clear_error(tmp_path):
    file = tmp_path / "file.toml"
    file.write_text(f"[broker]\nworker_port = {HUGE}\n")
    with pytest.raises(ConfigError, match="worker_port"):
        sources.resolve(BrokerConfig, file=file, environ={})
