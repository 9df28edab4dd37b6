"""`zstreamer bench` on a real cluster and on a real gateway."""

import json
import subprocess
import sys

import pytest

from tests.helpers.servers import Server


def bench(*arguments, code=0):
    """What the command prints on both outputs."""
    done = subprocess.run(
        [sys.executable, "-m", "zstreamer", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_rates_and_callers_are_measured_saved_drawn_and_compared(shared, tmp_path):
    file, picture = tmp_path / "run.json", tmp_path / "run.svg"
    shared.wait_warm(1, "echo")
    measure = ("--rates", "20,40", "--callers", "2", "--seconds", "0.5", "--limit", "30")
    outputs = ("--items", "3", "--save", file, "--plot", picture)
    where = ("--address", shared.address, "--model", "echo")
    said, _ = bench("one", "two", *measure, *where, *outputs)
    assert [line.split("  ")[0] for line in said.splitlines()[1:4]] == ["2 callers", "20/s", "40/s"]
    assert "99 % within 30 s" in said
    saved = json.loads(file.read_text())
    assert [step["rate"] for step in saved["steps"]] == [0, 20, 40]
    assert all(step["answered"] == step["calls"] > 0 for step in saved["steps"])
    assert all(0 < step["p50"] <= step["p99"] <= step["max"] for step in saved["steps"])
    assert "<svg" in picture.read_text()
    said, _ = bench("--compare", file, file)
    assert [line for line in said.splitlines() if line.startswith("40/s") and "1.00" in line]


def test_errors_are_counted_by_kind(shared):
    shared.wait_warm(1, "picky")
    where = ("--address", shared.address, "--model", "picky")
    said, _ = bench("good", "boom", "--rates", "40", "--seconds", "0.5", *where, code=1)
    assert "predict_failed" in said.splitlines()[1]


def test_a_url_is_measured_through_its_v1_route(shared, tmp_path):
    shared.wait_warm(1, "echo")
    items = tmp_path / "items.json"
    items.write_text(json.dumps([{"text": "a"}, [1, 2]]))
    options = ("--broker", shared.address, "--log-level", "warning")
    with Server("zstreamer", "gateway", *options) as gateway:
        where = ("--url", gateway.url, "--model", "echo", "--file", items)
        said, _ = bench("--callers", "4", "--seconds", "0.5", *where)
        assert said.splitlines()[1].startswith("4 callers")
        where = ("--url", gateway.url, "--model", "nobody", "a")
        _, said = bench("--seconds", "0.2", *where, code=2)
        assert "http_404" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--rates", "1,x"], "give numbers above 0"),
        (["a", "--url", "nonsense"], "give http://HOST:PORT"),
        (["--url", "http://127.0.0.1:1"], "no item given"),
        (["--json", "{"], "not JSON"),
    ],
)
def test_what_makes_no_sense_is_said(arguments, words):
    _, said = bench(*arguments, code=2)
    assert words in said
