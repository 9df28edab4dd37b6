"""`zstreamer map`: files of JSON Lines through a real cluster."""

import io
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.helpers.program import ROOT
from tests.helpers.waiting import until
from zstreamer.cli import main
from zstreamer.system import logs
from zstreamer.system.exitcodes import ExitCode


@pytest.fixture
def run(shared, capfdbinary, monkeypatch, tmp_path):
    """Run `zstreamer map` in a folder; gives its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "start", lambda _: None)

    def run(*arguments, model="picky", stdin=b""):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        connection = ("--address", shared.address, "--connect-timeout", "20", "--model", model)
        with pytest.raises(SystemExit) as end:
            main(["map", *arguments, *connection])
        sys.stdout.flush()
        printed = capfdbinary.readouterr()
        return end.value.code, printed.out.decode(), printed.err.decode()

    return run


def write(path, values):
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def results(values):
    return [{"index": index, "output": value} for index, value in enumerate(values)]


def test_each_line_has_its_output_or_its_error_in_its_place(run, tmp_path):
    (tmp_path / "in").write_bytes(b'"a"\n\nnope\n"boom"\n{"b": [1, null]}\n7')
    code, printed, said = run("in")
    assert code == ExitCode.ITEMS
    assert rows(printed) == [
        {"index": 0, "output": "a"},
        {"index": 1, "error": {"type": "BadRequest", "message": "line 2 is not JSON: it is empty"}},
        {
            "index": 2,
            "error": {
                "type": "BadRequest",
                "message": "line 3 is not JSON: Expecting value: line 1 column 1 (char 0)",
            },
        },
        {
            "index": 3,
            "error": {"type": "PredictError", "message": "ValueError: the model met boom"},
        },
        {"index": 4, "output": {"b": [1, None]}},
        {"index": 5, "output": 7},
    ]
    assert "6 items" in said
    assert "3 failed" in said


def test_standard_input_and_output(run):
    code, printed, _ = run("-", model="double", stdin=b"1\n2\n3\n")
    assert (code, rows(printed)) == (0, results([2, 4, 6]))


def test_an_output_that_is_there_is_left_alone_unless_it_is_to_be_continued(run, tmp_path):
    write(tmp_path / "in", range(10))
    (tmp_path / "out").write_text("precious")
    code, _, said = run("in", "-o", "out")
    assert (code, "out is there already: add --resume" in said) == (ExitCode.USAGE, True)
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.parametrize("torn", ["", '{"index": 2', '{"index": 2, "output": 4}'])
def test_a_run_goes_on_where_the_file_ends_and_cuts_a_torn_line(run, tmp_path, torn):
    write(tmp_path / "in", range(2000))
    write(tmp_path / "out", results([0, 2]))
    with (tmp_path / "out").open("a") as out:
        out.write(torn)
    code, _, said = run("in", "-o", "out", "--resume", model="double")
    assert (code, "1,998 items" in said) == (0, True)
    assert rows((tmp_path / "out").read_text()) == results(range(0, 4000, 2))


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('{"index": 5, "output": 1}\n', "the last one is not that of index 0"),
        ("hello\n", "the last one is not that of index 0"),
        ("[]\n" * 3, "it has 3 lines"),
        ("".join(f'{{"index": {index}}}\n' for index in range(9)), "in has 5 lines, fewer than"),
    ],
)
def test_what_is_no_output_of_this_input_is_not_continued(run, tmp_path, written, words):
    write(tmp_path / "in", range(5))
    (tmp_path / "out").write_text(written)
    code, _, said = run("in", "-o", "out", "--resume", model="double")
    assert (code, words in said) == (ExitCode.USAGE, True)
    assert (tmp_path / "out").read_text() == written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], "absent cannot be read: No such file"),
        (["-", "-o", "absent/out"], "absent/out cannot be written: No such file"),
        (["-", "--resume"], "--resume needs a file"),
        (["-", "-o", "/dev/full"], "/dev/full cannot be written: No space left"),
    ],
)
def test_files_that_cannot_be_used_are_named(run, arguments, words):
    code, _, said = run(*arguments, stdin=b"1\n" * 10_000)
    assert (code, words in said) == (ExitCode.USAGE, True)


def test_a_model_that_is_not_there_ends_it_and_says_where_it_stopped(run, tmp_path):
    write(tmp_path / "in", range(5))
    code, _, said = run("in", "-o", "out", model="nobody's")
    assert code == ExitCode.FAILED
    assert "stopped before item 0, and --resume goes on there" in said
    assert (tmp_path / "out").read_text() == ""


def test_progress_is_shown_when_asked_for(run, tmp_path):
    pytest.importorskip("tqdm")
    write(tmp_path / "in", range(5000))
    code, _, said = run("in", "-o", "out", "--progress", model="double")
    assert (code, "5000/5000" in said) == (0, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_done_stays_when_it_is_stopped_and_the_rest_can_follow(shared, tmp_path, number):
    write(tmp_path / "in", range(30_000))
    command = [sys.executable, "-m", "zstreamer", "map", "in", "-o", "out", "--resume"]
    command += ["--address", shared.address, "--model", "double"]
    run = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **run) as process:
        until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size > 100_000)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    done = rows((tmp_path / "out").read_text().rpartition("\n")[0])
    assert 0 < len(done) < 30_000
    if number != signal.SIGKILL:
        assert process.returncode == ExitCode.INTERRUPTED, said
        assert f"stopped before item {len(done)}, and --resume".encode() in said
    subprocess.run(command, check=True, timeout=40, capture_output=True, **run)
    assert rows((tmp_path / "out").read_text()) == results(range(0, 60_000, 2))
