"""The command line as far as no broker is needed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import pytest
from click import unstyle
from click.testing import CliRunner

from zstreamer import errors
from zstreamer.cli import call, group, main, reference, serve, status
from zstreamer.config import BrokerConfig, ClientConfig, GatewayConfig, UpConfig, WorkerConfig
from zstreamer.setting import settings
from zstreamer.system.exitcodes import ExitCode
from zstreamer.worker import target

ROOT = Path(__file__).parents[2]

COMMANDS = {
    "broker": {one.flag for one in settings(BrokerConfig)},
    "worker": {one.flag for one in settings(WorkerConfig)},
    "gateway": {one.flag for one in settings(GatewayConfig)},
    "up": {one.flag for each in (BrokerConfig, WorkerConfig, UpConfig) for one in settings(each)}
    - {"--broker"},
    "call": {one.flag for one in settings(ClientConfig)},
    "status": {"--address", "--connect-timeout", "--keys", "--watch"},
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ZSTREAMER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def run(capsys):
    """Run the command line; gives the exit code and what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return run


class FakeClient:
    """A client whose model turns text round; `bad` fails, and `nobody` has no broker."""

    def __init__(self, address, **settings):
        self.address = address

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def predict(self, items, **_):
        if "nobody" in items:
            raise errors.BrokerUnreachable(f"no broker answers at {self.address}")
        return [errors.PredictError("no [MASK]") if each == "bad" else each[::-1] for each in items]


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr("zstreamer.Client", FakeClient)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_option_and_an_example(command):
    shown = CliRunner().invoke(group, [command, "--help"]).output
    for flag in COMMANDS[command]:
        assert (flag if flag.startswith("--") else "MODULE:NAME") in shown
    assert f"zstreamer {command}" in shown.partition("Examples")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_is_there_that_the_table_does_not_have(command):
    extra = {"--config", "--json", "INPUTS"}
    offered = {
        next((opt for opt in one.opts if opt.startswith("--")), one.name.upper())
        for one in group.commands[command].params
    }
    assert offered - extra == COMMANDS[command]


@pytest.fixture
def got(monkeypatch):
    """The configurations that the broker was run with."""
    seen = []

    def run(config):
        seen.append(config)
        return 0

    monkeypatch.setattr("zstreamer.broker.server.run", run)
    return seen


def test_each_option_reaches_its_configuration(got, run):
    assert run("broker", "--worker-port", "9", "--max-bytes", "1KiB", "--insecure")[0] == 0
    assert got == [BrokerConfig(worker_port=9, max_bytes=1024, insecure=True)]


def test_variable_and_file_reach_the_configuration(got, monkeypatch, run, tmp_path):
    path = tmp_path / "zstreamer.toml"
    path.write_text("[broker]\nport = 5\n[worker]\nnum = 3\n")
    monkeypatch.setenv("ZSTREAMER_CONFIG", str(path))
    monkeypatch.setenv("ZSTREAMER_INSECURE", "yes")
    assert run("broker", "--host", "0.0.0.0")[0] == 0
    assert got == [BrokerConfig(host="0.0.0.0", port=5, insecure=True)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["broker", "--prot", "1"], "'--prot'"),
        (["broker", "--port", "x"], "--port is 'x': give a whole number from 1 to 65,535"),
        (["broker", "--host", "0.0.0.0"], "refusing to bind tcp://0.0.0.0:7787"),
        (["broker", "--client-address", "tcp://*:1"], "add --insecure"),
        (["broker", "--config", "absent.toml"], "cannot read the file absent.toml"),
        (["worker"], "no model given: name it as MODULE:NAME"),
        (["worker", "bert_model"], "TARGET is 'bert_model': give module:Class"),
        (["up", "a:B", "--num", "0"], "--num is '0'"),
        (["up", "a:B", "--broker", "tcp://x:1"], "'--broker'"),
        (["up", "a:B", "--http", "x"], "--http is 'x': give a whole number from 0 to 65,535"),
        (["worker", "a:B", "--broker", "tcp://x"], "broker 'tcp://x' is not an address"),
        (["gateway", "--broker", "host:7787"], "broker 'host:7787' is not an address"),
        (["call", "--address", "tcp://nonsense", "x"], "'tcp://nonsense' is not an address"),
        (["gateway", "--broker", ","], "no broker to connect to"),
        (["gateway", "--timeout", "9", "--max-timeout", "5"], "no longer than max_timeout"),
        (["call", "--json", "no json"], "the input 'no json' is not JSON"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_wrong_use_gives_one_line_with_the_fix(client, run, arguments, words):
    code, out, err = run(*arguments)
    assert code == ExitCode.USAGE
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
    assert out == ""


def test_call_prints_an_answer_a_line(client, run):
    assert run("call", "abc", "ünï") == (0, "cba\nïnü\n", "")


def test_call_reads_lines_where_there_are_no_inputs(client, run, monkeypatch):
    for arguments in ([], ["-"]):
        with Path(os.devnull).open() as quiet:
            monkeypatch.setattr(sys, "stdin", quiet)
            assert run("call", *arguments) == (0, "", "")
    reader, writer = os.pipe()
    os.write(writer, b"ab\ncd\r\n")
    os.close(writer)
    with os.fdopen(reader) as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert run("call") == (0, "ba\ndc\n", "")


def test_call_takes_and_gives_json(client, run):
    assert run("call", "--json", "[1, 2]", '"ab"') == (0, '[2, 1]\n"ba"\n', "")


def test_input_that_fails_leaves_its_line_empty(client, run):
    code, out, err = run("call", "ab", "bad", "cd")
    assert (code, out) == (ExitCode.FAILED, "ba\n\ndc\n")
    assert err.startswith("input 1: PredictError: ")
    assert "no [MASK]" in err


def test_broker_that_is_absent_has_an_exit_code_of_its_own(client, run):
    code, out, err = run("call", "nobody", "--address", "tcp://127.0.0.1:9")
    assert (code, out) == (ExitCode.UNREACHABLE, "")
    assert err == "error: no broker answers at tcp://127.0.0.1:9\n"


def test_answers_that_json_lacks_are_shown_all_the_same():
    numpy = pytest.importorskip("numpy")
    assert call._shown({"a": numpy.float32([1, 2])}, as_json=True) == '{"a": [1.0, 2.0]}'
    assert call._shown(b"x", as_json=False) == "\"b'x'\""


WORKER = {
    "id": 7,
    "host": "gpu1",
    "pid": 4711,
    "device": None,
    "state": "ready",
    "batch_size": 32,
    "waiting": 3,
    "running": 4,
    "batch_age": 0.25,
    "served": 5,
    "beta_ms": 1.25,
    "alpha_ms": 0.5,
}
MODEL = {"queued": 1234, "running": 1, "served": 99, "capacity": 321.0, "ready": True}
STATUS = {
    "broker": {"uptime": 3725.0, "clients": 2, "queued_items": 1234, "queued_bytes": 2048},
    "models": {"bert": {**MODEL, "workers": [WORKER]}},
}


@pytest.fixture
def fetched(monkeypatch):
    monkeypatch.setattr("zstreamer.client.status.fetch", lambda *_, **__: STATUS)


def test_status_shows_models_workers_queue_and_rates(fetched, run):
    code, out, _ = run("status")
    assert code == 0
    for words in ("1:02:05", "2 clients", "1,234", "2 KiB", "bert", "gpu1", "4711", "1.25", "321"):
        assert words in out


def test_status_as_json_is_the_brokers_own(fetched, run):
    assert json.loads(run("status", "--json")[1]) == STATUS
    both = json.loads(run("status", "--json", "--address", "tcp://a:1,tcp://b:1")[1])
    assert both == {"tcp://a:1": STATUS, "tcp://b:1": STATUS}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by /dev/full")
def test_what_cannot_be_written_is_one_clear_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "zstreamer", "--help"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.strip() == "error: the output cannot be written: No space left on device"


def test_status_without_workers_says_what_to_start(capsys):
    status._show("tcp://a:1", {"broker": {"uptime": 0}, "models": {}})
    assert "start one with zstreamer worker" in capsys.readouterr().out


def test_status_shows_for_how_long_a_batch_has_run(fetched, run, monkeypatch):
    monkeypatch.setitem(STATUS["models"]["bert"]["workers"][0], "state", "late")
    monkeypatch.setitem(STATUS["models"]["bert"]["workers"][0], "batch_age", 12.3)
    assert "late, 12 s" in run("status")[1]


def test_status_in_a_pipe_cuts_nothing_however_wide_it_is(fetched, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setitem(STATUS["models"]["bert"], "trouble", "a [MASK] " + "of many words " * 20)
    out = run("status")[1]
    assert "…" not in out
    assert " ".join(out.splitlines()[-1].split()) == "bert gpu1 4711 – ready 32 3 4 5 1.25 0.50"
    assert "a [MASK] " + "of many words " * 19 in out


@pytest.mark.parametrize("columns", [20, 60, 80])
def test_status_on_a_narrow_terminal_cuts_no_number(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    worker = {**WORKER, "host": "a-long-name.of-a-host", "pid": 4194304, "served": 1234567}
    model = {**MODEL, "served": 123456789, "trouble": "a long story " * 9, "workers": [worker]}
    status._show("tcp://a:1", {**STATUS, "models": {"bert": model}})
    out = unstyle(capsys.readouterr().out)
    assert "…" not in out
    for words in ("4194304", "1,234,567", "123,456,789", "1,234", "1.25", "bert", "–"):
        assert words in out.split()
    assert columns < 80 or max(map(len, out.splitlines())) <= columns


RED = "\x1b[31mred\x07\x1b]0;title\x07"


def test_status_shows_what_peers_say_without_obeying_it(fetched, run, monkeypatch):
    worker = {**WORKER, "host": RED, "device": "\u202e0", "pid": [RED]}
    monkeypatch.setitem(STATUS, "models", {RED: {**MODEL, "trouble": RED, "workers": [worker]}})
    code, out, _ = run("status")
    assert code == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert out.count(r"\x1b[31mred\x07") >= 5


def test_status_has_the_last_line_of_a_traceback_in_its_table_and_the_rest_below(
    fetched, run, monkeypatch
):
    trace = (
        'Traceback (most recent call last):\n  File "x.py", line 1\nOSError: no \x1b[1mweights\n'
    )
    monkeypatch.setitem(STATUS["models"]["bert"], "trouble", trace)
    table, _, below = run("status")[1].partition("why no worker of model bert is ready:")
    assert r"OSError: no \x1b[1mweights" in table
    assert "Traceback" not in table
    assert below.splitlines() == [
        "",
        *("  " + each for each in trace.replace("\x1b", r"\x1b").splitlines()),
    ]


def printed(program, **variables):
    """What a program of its own prints, as bytes."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        check=True,
        timeout=50,
    ).stdout


def test_names_are_shown_as_an_ascii_terminal_can():
    text = f"from zstreamer.cli import status\nstatus._show('tcp://a:1', {STATUS!r})"
    text = text.replace("'bert'", "'b\\u00ebrt \\u6a21'")
    out = printed(text, PYTHONIOENCODING="ascii")
    assert rb"b\xebrt \u6a21" in out
    assert "bërt 模".encode() in printed(text, PYTHONIOENCODING="utf-8")


def test_call_prints_what_an_ascii_terminal_cannot_show_as_escapes():
    text = "import zstreamer, tests.processes.test_cli as t\nzstreamer.Client = t.FakeClient\n"
    text += "from zstreamer.cli import main\nmain(['call', 'ab\\u00fc'])"
    assert printed(text, PYTHONIOENCODING="ascii", PYTHONPATH=str(ROOT)) == b"\\xfcba\n"


def test_call_obeys_no_answer_on_a_terminal_and_changes_none_in_a_pipe(client, run, monkeypatch):
    assert run("call", RED[::-1])[1] == RED + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run("call", RED[::-1])[1] == r"\x1b[31mred\x07\x1b]0;title\x07" + "\n"


def test_status_gives_no_rate_that_rests_on_times_too_short_to_measure(fetched, run, monkeypatch):
    monkeypatch.setitem(STATUS["models"]["bert"], "capacity", 16_000_000.0)
    assert "16,000,000" not in run("status")[1]


def test_version_is_the_packages(run):
    assert run("--version")[1] == f"zstreamer {metadata.version('zstreamer')}\n"


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'flask', 'fastapi', 'gevent', 'numpy', 'httptools'}"
    program = (
        "import sys\nfrom zstreamer.cli import main\n"
        "try:\n    main(['--help'])\n"
        f"finally:\n    print({heavy} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("module", ["zstreamer", "broker"])
def test_modules_run_as_programs(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout


def test_documentation_has_the_tables_as_they_are():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    fix = "run: python -m zstreamer.cli.reference docs/cli.md"
    assert page == reference.written_into(page), fix
    assert reference.written_into("x<!-- options -->old<!-- end of options -->y") != page


def test_documentation_has_each_option_of_each_command():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = {part.partition("`\n")[0]: part for part in page.split("\n### `")[1:]}
    for command in group.commands.values():
        for each in [command, *getattr(command, "commands", {}).values()]:
            name = " ".join(dict.fromkeys(["zstreamer", command.name, each.name]))
            linked = re.findall(r"\[`(zstreamer \w+)`\]", sections[name])
            text = "".join(sections[one] for one in [name, *linked])
            flags = {flag for one in each.params for flag in one.opts if flag.startswith("--")}
            missing = {flag for flag in flags - {"--config"} if f"`{flag}`" not in text}
            assert not missing, name


class FakeProcess:
    """A process that ends, with the code it was made with, once it is asked to."""

    log: ClassVar[list[str]] = []

    def __init__(self, name, code=0, *, stubborn=False, ended=False):
        self.name, self.code, self.stubborn = name, code, stubborn
        self.asked = 2 if ended else 0

    def poll(self):
        return self.code if self.asked > self.stubborn else None

    def wait(self, _timeout):
        return self.poll()

    def terminate(self):
        self.asked += 1
        self.log.append(self.name)


class FakeStop:
    """As many requests to stop as are still to come are counted one by one."""

    def __init__(self, most):
        self.most, self.count = most, 0
        self.pair = socket.socketpair()

    def fileno(self):
        return self.pair[0].fileno()

    @property
    def requests(self):
        self.count = min(self.most, self.count + 1)
        return self.count

    def close(self):
        for each in self.pair:
            each.close()


@pytest.fixture
def stop():
    made = []

    def make(most):
        made.append(FakeStop(most))
        return made[-1]

    FakeProcess.log = []
    yield make
    for each in made:
        each.close()


def stopped(stop, *processes):
    return serve._until_stopped(stop, *processes)


def test_up_stops_workers_before_the_broker(stop):
    code = stopped(stop(1), FakeProcess("workers"), FakeProcess("broker"))
    assert (code, FakeProcess.log) == (0, ["workers", "broker"])


def test_second_request_reaches_a_process_that_still_drains(stop):
    workers = FakeProcess("workers", ExitCode.NOT_DRAINED, stubborn=True)
    assert stopped(stop(2), workers, FakeProcess("broker")) == ExitCode.NOT_DRAINED
    assert FakeProcess.log == ["workers", "workers", "broker"]


def test_broker_that_cannot_bind_ends_up_with_its_code(stop):
    broker = FakeProcess("broker", ExitCode.UNREACHABLE, ended=True)
    assert stopped(stop(0), FakeProcess("workers"), broker) == ExitCode.UNREACHABLE
    assert FakeProcess.log == ["workers"]


@pytest.mark.parametrize("command", [["gateway"], ["up", "a:B", "--http", "8000"]])
def test_gateway_without_its_packages_says_what_to_install(run, monkeypatch, command):
    monkeypatch.setattr("zstreamer.web.gateway.parent.NEEDED", ("json", "no_such_package"))
    code, _, err = run(*command)
    assert code == ExitCode.USAGE
    assert "needs no_such_package, which are not installed: pip install 'zstreamer[gateway]'" in err


def test_gateway_of_up_is_told_where_the_broker_and_what_the_model_is(monkeypatch, tmp_path):
    path = tmp_path / "zstreamer.toml"
    path.write_text("[gateway]\nrequest_items = 7\nport = 1\n")
    monkeypatch.setenv("ZSTREAMER_MAX_BODY", "1KiB")
    monkeypatch.setenv("ZSTREAMER_PORT", "7000")
    asked = UpConfig(http=8000, http_processes=2)
    with serve.up.make_context("up", ["a:B", "--config", str(path)]):
        config = serve._gateway(asked, "tcp://127.0.0.1:7000", WorkerConfig(model="bert"))
    assert config == GatewayConfig(
        broker=("tcp://127.0.0.1:7000",),
        port=8000,
        processes=2,
        model="bert",
        max_body=1024,
        request_items=7,
    )


@pytest.mark.parametrize(
    ("bound", "reached"),
    [
        ("tcp://0.0.0.0:7788", "tcp://127.0.0.1:7788"),
        ("tcp://*:7788", "tcp://127.0.0.1:7788"),
        ("tcp://[::]:7788", "tcp://[::1]:7788"),
        ("ipc:///tmp/x", "ipc:///tmp/x"),
    ],
)
def test_workers_of_up_reach_a_broker_bound_anywhere(bound, reached):
    assert serve._reachable(bound) == reached


def test_ctrl_c_where_there_is_nothing_to_drain_is_130(client, run, monkeypatch):
    def interrupted(*_, **__):
        # A shell's background job ignores SIGINT, and so would this process.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)  # to this thread, whatever others there are

    monkeypatch.setattr(FakeClient, "predict", interrupted)
    assert run("call", "abc")[0] == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("models.py:Words", 'leave out ".py", as in models:Words'),
        ("absent.py:Words", 'leave out ".py", as in absent:Words'),
        ("models:Wrods", "has no 'Wrods'; it has Sums, Words; did you mean 'Words'?"),
        ("models:Zzz", "has no 'Zzz'; it has Sums, Words"),
        ("models:ManagedModle", "did you mean 'ManagedModel'?"),
    ],
)
def test_a_model_that_is_not_there_is_told_with_the_fix(monkeypatch, tmp_path, name, words):
    (tmp_path / "models.py").write_text(
        "from zstreamer import ManagedModel, Tensor\n"
        "class Words(ManagedModel): ...\nclass Sums(ManagedModel): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "models", raising=False)
    with pytest.raises(target.TargetError) as caught:
        target.resolve(name)
    assert str(caught.value).endswith(words)
