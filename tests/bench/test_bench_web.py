"""The web benchmarks' parts, at a tiny size: that wrong answers count and bounds are as said."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from tests.bench import __main__ as command
from tests.bench import (
    web,
    web_environments,
    web_others,
    web_ours,
    web_peers,
    web_plots,
    web_rounds,
)
from tests.bench.others import models
from tests.bench.report import LESS, MORE, Report
from tests.bench.web_models import questions
from tests.bench.web_ours import (
    BARE,
    EMPTY_BARE,
    EMPTY_FLASK,
    EMPTY_FLASK_GEVENT,
    FLASK,
    FLASK_GEVENT,
    GATEWAY,
)
from tests.bench.web_server import Server, Service, lines
from tests.bench.web_wrk import Sample, ask, parse
from tests.helpers.cluster import ROOT
from tests.helpers.waiting import all_gone, descendants, until

OUTPUT = """Running 2s test @ http://127.0.0.1:8000/stream
  2 threads and 128 connections
Requests/sec:  10000.00
right 19990 wrong 7 failed 3 us 2000000 11500 15250 21000
example 500 ["no"]
"""

has_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")


def liar(path, **settings):
    asked = {"body": lambda text: json.dumps({"s": text}).encode(), **settings}
    return Service(
        "liar", (sys.executable, str(ROOT / "tests/helpers/liar.py"), "{port}"), path, **asked
    )


def sample(rate, p50=10.0, p99=20.0, **counts):
    return Sample(rate, p50, p50, p99, **{"right": 100, **counts})


# What wrk has found


def test_wrks_output_becomes_a_sample():
    found = parse(OUTPUT)
    assert found == Sample(9995.0, 11.5, 15.25, 21.0, 19990, 7, 3, '500 ["no"]')
    assert found.bad == 10


def test_output_without_figures_is_an_error_that_shows_it():
    with pytest.raises(RuntimeError, match="unable to connect to 127"):
        parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_server_that_never_answers_is_bad_though_nothing_was_wrong():
    assert Sample(0.0).bad == 1


@pytest.fixture(scope="module")
def lies(tmp_path_factory):
    """Ask the server that lies on one of its paths; returns the sample."""
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    asked = [(f"word w{number}", f"w{number}") for number in range(64)]
    file = tmp_path_factory.mktemp("lies") / "questions"
    with Server(liar("/right"), asked) as server:
        server.wait_ready()
        file.write_text(lines(server.service, asked, (b"[", b"]")))

        def lies(path, connections, threads):
            return ask(server.url.replace("/right", path), file, connections, 1, threads)

        yield lies


def test_right_answers_are_right(lies):
    for threads in (2, 8):
        found = lies("/right", 8, threads)
        assert found.right > 100 and found.bad == 0
        assert found.rate == pytest.approx(found.right, rel=0.3)
        assert 0 < found.p50 <= found.p90 <= found.p99


def test_answers_that_go_to_the_wrong_connection_are_seen(lies):
    found = lies("/exchanged", 8, 8)
    assert found.right == 0 and found.wrong > 100
    assert found.example.startswith('200 ["w')
    # Of these only the exchanges between the two threads of wrk show.
    assert lies("/exchanged", 8, 2).wrong > 0


@pytest.mark.parametrize("path", ["/same", "/error"])
def test_wrong_answers_and_errors_are_counted(lies, path):
    found = lies(path, 4, 2)
    assert found.wrong > 100
    # One may be asked just that whose answer all get.
    assert found.right <= (found.wrong if path == "/same" else 0)


@pytest.mark.parametrize("path", ["/closed", "/mute"])
def test_answers_that_do_not_come_are_counted(lies, path):
    found = lies(path, 4, 2)
    assert found.right == 0 and found.bad >= 1


# Servers


def test_a_server_runs_only_in_its_turns_and_ends_with_the_block():
    with Server(liar("/right", stops=True), [("a word", "word")]) as server:
        server.wait_ready()
        [process] = [psutil.Process(each.pid) for each in server._processes]
        assert until(lambda: process.status() == psutil.STATUS_STOPPED)
        server._signal(signal.SIGCONT)
        assert until(lambda: process.status() != psutil.STATUS_STOPPED)
    assert all_gone([process.pid])


def test_a_server_that_ends_says_its_last_words():
    words = "import sys; sys.exit('no such model')"
    service = Service("broken", (sys.executable, "-c", words), "/", lambda text: b"")
    with Server(service, [("a", "b")]) as server:
        with pytest.raises(RuntimeError, match=r"broken ended with code 1; no such model"):
            server.wait_ready()


def test_a_server_whose_first_answer_is_wrong_is_not_measured():
    with Server(liar("/same"), [("a word", "word")]) as server:
        with pytest.raises(RuntimeError, match=r"liar answered 'a word' with b'\[\"w1\"\]'"):
            server.wait_ready()


def test_servers_end_however_the_benchmark_does():
    program = """
        import json, sys, time
        from tests.bench.web_server import Server, Service
        command = (sys.executable, "tests/helpers/liar.py", "{port}")
        liar = Service("liar", command, "/right", lambda text: json.dumps({"s": text}).encode())
        with Server(liar, [("a word", "word")]) as server:
            server.wait_ready()
            print("started", flush=True)
            time.sleep(60)
    """
    benchmark = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    with benchmark:
        assert benchmark.stdout.readline() == b"started\n"
        started = descendants(benchmark.pid)
        assert len(started) == 2
        benchmark.kill()
    assert all_gone(started)


def test_questions_are_distinct_and_so_are_their_answers():
    asked = questions(1000)
    assert len({text for text, _ in asked}) == len({answer for _, answer in asked}) == 1000
    assert asked[7][1] == f"{len(asked[7][0])} q7"
    texts = [text for text, _ in asked[:3]]
    assert models.sleeping(texts) == models.trivial(texts) == [answer for _, answer in asked[:3]]


def test_a_servers_answers_are_expected_in_the_form_of_its_first():
    service = liar("/right")
    [line] = lines(service, [("say Ä", "Ä")], (b"[", b"]\n")).splitlines()
    body, reply = (bytes.fromhex(part) for part in line.split("\t"))
    assert json.loads(body) == {"s": "say Ä"} and reply == b'["\\u00c4"]\n'


# Rows and bounds


def test_each_door_is_held_against_its_own_bound():
    limit = [sample(12000)] * 2
    found = {
        GATEWAY: [sample(11000), sample(10000)],
        BARE: [sample(8000)] * 2,
        EMPTY_BARE: [sample(10000)] * 2,
        FLASK: [sample(2000)] * 2,
        EMPTY_FLASK: [sample(4000)] * 2,
    }
    rows = {row.name: row for row in web.one_worker(found, limit)}
    gateway = rows["sleeping, gateway, against the model by itself"]
    assert gateway.ratio == pytest.approx(10500 / 12000) and gateway.bound == (MORE, 0.90)
    assert not gateway.holds
    slower = "or the model by itself where that is slower"
    bare = rows[f"sleeping, {BARE}, against {EMPTY_BARE}, {slower}"]
    assert bare.ratio == 0.8 and bare.bound == (MORE, 0.75) and bare.holds
    flask = rows[f"sleeping, {FLASK}, against {EMPTY_FLASK}, {slower}"]
    assert flask.ratio == 0.5 and flask.bound == (MORE, 0.75) and not flask.holds
    assert rows[f"sleeping, {EMPTY_BARE}"].bound is None
    assert gateway.told == "p50 10.0, p90 10.0, p99 20.0 ms"


def test_the_worker_class_is_held_against_gunicorns_own_by_cpu():
    found = {FLASK: [sample(1, cpu=60.0)], FLASK_GEVENT: [sample(1, cpu=100.0)]}
    [row] = [row for row in web.one_worker(found, [sample(12000)]) if "CPU" in row.name]
    assert row.ratio == 0.6 and row.bound == (LESS, 0.65) and row.holds
    silent = {FLASK: [sample(1, cpu=60.0)], FLASK_GEVENT: [sample(1)]}
    [row] = [row for row in web.one_worker(silent, [sample(12000)]) if "CPU" in row.name]
    assert not row.holds


def test_no_door_is_asked_for_more_than_the_model_can_do():
    found = {BARE: [sample(9000)], EMPTY_BARE: [sample(30000)]}
    told, judged = web.one_worker(found, [sample(12000)])[:2]
    assert told.ratio == 0.3 and told.bound is None
    assert judged.ratio == 0.75 and judged.holds


def test_a_reference_that_answered_nothing_does_not_hold_a_bound():
    row = web_rounds.rate("x", [sample(0.0)], [sample(0.0)], (MORE, 0.9))
    assert row.ratio is None and row.holds is False


def test_the_tail_is_p99_against_p50():
    assert web_rounds.tail("x", [sample(1, p50=10.0, p99=29.0)]).holds
    assert not web_rounds.tail("x", [sample(1, p50=10.0, p99=31.0)]).holds


def test_one_wrong_answer_in_any_round_fails_and_is_shown():
    good = web_rounds.bad("x", {"a": [sample(1)], "b": [sample(1)]})
    assert good.holds and good.told == "200 right"
    wrong = sample(1, wrong=1, example='200 ["q8"]')
    row = web_rounds.bad("x", {"a": [sample(1)] * 2, "b": [sample(1), wrong, sample(1)]})
    assert row.value == 1 and row.bound == (LESS, 0) and not row.holds
    assert row.told == "1 of b; such as '200 [\"q8\"]'"


def test_peers_are_compared_with_the_best_that_they_have():
    found = {
        GATEWAY: [sample(13000)],
        BARE: [sample(9000)],
        FLASK: [sample(3500)],
        EMPTY_FLASK: [sample(4000)],
        EMPTY_FLASK_GEVENT: [sample(2500)],
        web_others.MOSEC: [sample(10000)],
        web_others.THREADED: [sample(1500)],
        web_others.REDIS: [sample(2000, wrong=3)],
    }
    rows = web_peers.compared("x", found, judged=True)
    assert [row.ratio for row in rows] == [1.3, 0.9, 1.75, 0.875, 0.8]
    assert [row.holds for row in rows] == [True, False, True, None, None]
    assert not any(row.bound for row in web_peers.compared("x", found, judged=False))
    ours, theirs = web_peers.bad("x", found)
    assert ours.holds and theirs.value == 3 and theirs.holds is None


def test_turns_alternate():
    order = []
    ways = {name: lambda name=name: order.append(name) or sample(1) for name in "ab"}
    assert web_rounds.take_turns(ways, 2) == {"a": [sample(1)] * 2, "b": [sample(1)] * 2}
    assert order == ["b", "a", "a", "b"]


def test_a_part_that_fails_takes_no_other_with_it(capsys):
    report = Report("web")

    def fail():
        raise RuntimeError("no such server")

    web_rounds.all_parts(report, [fail, lambda: report.notes.append("measured")])
    assert report.notes == ["measured"] and "no such server" in report.error and not report.good


# The whole


@has_wrk
@pytest.mark.slow
def test_the_web_benchmark_has_its_rows(monkeypatch, capsys):
    def keep(make):
        kept = (GATEWAY, BARE, EMPTY_BARE)
        return lambda *given: [service for service in make(*given) if service.name in kept]

    for name in ("doors", "other_doors", "empty", "local"):
        monkeypatch.setattr(web_ours, name, keep(getattr(web_ours, name)))
    monkeypatch.setattr(web_rounds, "WARM_UP", 0)
    report = Report("web")
    web.Bench(report, seconds=1, rounds=1).sleeping()
    rows = {row.name: row for row in report.rows}
    assert 1000 < rows[f"sleeping, {web.LIMIT}"].value < 64 / 0.00528
    assert rows["sleeping, gateway, against the model by itself"].ratio > 0.05
    assert rows[f"sleeping, {BARE}, against {EMPTY_BARE}"].ratio > 0.05
    bad = [row for name, row in rows.items() if "wrong, late or missing" in name]
    assert len(bad) == 4 and all(row.holds for row in bad), [str(row) for row in bad]
    assert {(each["server"], each["connections"]) for each in report.points} == {
        (name, 128) for name in (GATEWAY, BARE, EMPTY_BARE)
    }


# Environments, plots, and the command


def test_a_peers_environment_is_made_once_and_again_for_other_packages(monkeypatch, tmp_path):
    packages = tmp_path / "others"
    packages.mkdir()
    (packages / "x.txt").write_text("x==1\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(web_environments, "PACKAGES", packages)
    ran = []

    def run(peer, *command):
        ran.append(command)
        web_environments.place(peer).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(web_environments, "_run", run)
    first = web_environments.python("x")
    assert first.startswith(str(tmp_path)) and len(ran) == 2
    assert ran[0][1:3] == ("-m", "venv") and "--no-deps" in ran[1]
    assert web_environments.python("x") == first and len(ran) == 2
    (packages / "x.txt").write_text("x==2\n")
    assert web_environments.python("x") != first and len(ran) == 4


def test_an_environment_that_cannot_be_made_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match="the environment for mosec cannot be made"):
        web_environments.python("mosec")


@pytest.mark.parametrize("peer", ["mosec", "litserve", "service-streamer"])
def test_a_peers_packages_are_pinned(peer):
    listed = (web_environments.PACKAGES / f"{peer}.txt").read_text().splitlines()
    packages = [line for line in listed if not line.startswith("#")]
    assert packages and all(line.count("==") == 1 for line in packages)


def test_plots_are_drawn_of_servers_that_were_asked_on_several_numbers_of_connections(tmp_path):
    found = {GATEWAY: [sample(1000)], BARE: [sample(500)]}
    points = web_rounds.points(found, model="sleeping", workers=1, connections=32)
    points += web_rounds.points(found, model="sleeping", workers=1, connections=128)
    points += web_rounds.points({FLASK: [sample(1)]}, model="sleeping", workers=1, connections=128)
    points += web_rounds.points(found, model="sleeping", workers=4, connections=128)
    text = json.dumps([{"bench": "fill", "points": [{}]}, {"bench": "web", "points": points}])
    drawn = web_plots.points_of(text)
    assert list(drawn) == ["web"] and len(drawn["web"]) == 4
    path = web_plots.draw("web", drawn["web"], tmp_path)
    before = path.read_bytes()
    assert path.name == "web.svg" and b"gateway" in before and b"connections" in before
    assert web_plots.draw("web", drawn["web"], tmp_path).read_bytes() == before


def test_plots_of_a_file_without_points_are_refused():
    with pytest.raises(ValueError, match="must hold a report of `web` or `peers`"):
        web_plots.points_of('{"bench": "web", "points": []}')


def test_peers_are_a_benchmark_of_their_own_that_all_leaves_out(monkeypatch, capsys):
    monkeypatch.setattr(web_peers, "run", lambda seconds: Report("peers", notes=[f"{seconds} s"]))
    assert command.main(["peers", "--seconds", "2"]) == 0
    assert "2.0 s" in capsys.readouterr().out
    assert "web" in command.BENCHES and "peers" not in command.BENCHES
