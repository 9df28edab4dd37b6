"""One table of defaults, and where a value comes from."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer.cli.beside import beside
from zstreamer.config import (
    BrokerConfig,
    ClientConfig,
    WorkerConfig,
    from_json,
    stays_on_machine,
    to_json,
)
from zstreamer.setting import (
    AMOUNT,
    BYTES,
    NAMES,
    SECONDS,
    SWITCH,
    TARGET,
    ConfigError,
    Setting,
    choice,
    optional,
    settings,
)
from zstreamer.sources import PROGRAMS, resolve, resolve_each

NONE: dict[str, str] = {}


@pytest.fixture
def file(tmp_path):
    """A writer of configuration files."""

    def write(text):
        path = tmp_path / "zstreamer.toml"
        path.write_text(text)
        return path

    return write


def test_defaults_are_those_of_the_table():
    assert resolve(BrokerConfig, environ=NONE) == BrokerConfig()
    assert BrokerConfig().max_bytes == 2 * 2**30
    assert WorkerConfig().broker == ("tcp://127.0.0.1:7788",)
    assert ClientConfig().timeout == 20.0


def test_flag_beats_variable_beats_file_beats_default(file):
    path = file("[broker]\nport = 1\nworker_port = 2\nhttp-port = 3\n")
    environ = {"ZSTREAMER_PORT": "11", "ZSTREAMER_WORKER_PORT": "12"}
    config = resolve(BrokerConfig, {"port": "21", "host": None}, file=path, environ=environ)
    assert (config.port, config.worker_port, config.http_port) == (21, 12, 3)
    assert config.host == "127.0.0.1"


def test_empty_variable_is_none():
    assert resolve(BrokerConfig, environ={"ZSTREAMER_PORT": ""}).port == 7787


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_reads_back_what_it_shows(program):
    for each in settings(program):
        assert each.kind.parse(each.kind.show(each.default)) == each.default, each.name
        assert each.help.endswith("."), each.name


def test_settings_of_one_name_mean_the_same_everywhere():
    seen: dict[str, Setting] = {}
    for each in (*settings(BrokerConfig), *settings(WorkerConfig)):
        assert seen.setdefault(each.name, each) == each


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (BYTES, "1048576", 2**20),
        (BYTES, "64MiB", 64 * 2**20),
        (BYTES, "1.5 gib", 3 * 2**29),
        (BYTES, "2kB", 2000),
        (BYTES, 4096, 4096),
        (SECONDS, "0.5", 0.5),
        (SECONDS, "500ms", 0.5),
        (SECONDS, "2min", 120.0),
        (SECONDS, 3, 3.0),
        (AMOUNT, "1e3", 1000.0),
        (SWITCH, "Yes", True),
        (SWITCH, "off", False),
        (SWITCH, True, True),
        (NAMES, " 0, 1,", ("0", "1")),
        (NAMES, [0, 1], ("0", "1")),
        (TARGET, "a.b:C.d", "a.b:C.d"),
        (choice("on", "off"), "ON", "on"),
        (optional(SECONDS, "auto"), "auto", None),
        (optional(SECONDS, "auto"), "1", 1.0),
    ],
)
def test_values_are_read_as_people_write_them(kind, text, value):
    assert kind.parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "0"),
        ("port", "65536"),
        ("port", "7787.5"),
        ("port", True),
        ("max_bytes", "64M"),
        ("max_bytes", "0"),
        ("max_bytes", "1.5"),
        ("heartbeat", "-1"),
        ("heartbeat", "soon"),
        ("heartbeat", "nan"),
        ("heartbeat", True),
        ("insecure", "perhaps"),
        ("host", ""),
        ("log_level", "loud"),
    ],
)
def test_unusable_value_is_named_with_its_source_and_fix(name, text):
    with pytest.raises(ConfigError) as error:
        resolve(BrokerConfig, {name: text}, environ=NONE)
    flag = "--" + name.replace("_", "-")
    assert str(error.value).startswith(f"{flag} is {text!r}: give ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("target", "no_colon"),
        ("target", "a:b:c"),
        ("init_args", "{}"),
        ("init_args", "[1,"),
        ("init_kwargs", "[]"),
        ("init_kwargs", {1: 2}),
        ("devices", [0.5]),
        ("num", "0"),
        ("max_batch_cost", "much"),
    ],
)
def test_unusable_value_of_a_worker_is_refused(name, text):
    with pytest.raises(ConfigError, match="give "):
        resolve(WorkerConfig, {name: text}, environ=NONE)


def test_unusable_variable_and_key_are_named(file):
    with pytest.raises(ConfigError, match="variable ZSTREAMER_NUM is 'two': give a whole number"):
        resolve(WorkerConfig, environ={"ZSTREAMER_NUM": "two"})
    path = file("[worker]\nnum = 'two'\n")
    with pytest.raises(ConfigError, match=r"num in \[worker\] of .*zstreamer.toml is 'two'"):
        resolve(WorkerConfig, file=path, environ=NONE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[worker]\nbatchsize = 3", "has batchsize in .worker., .* did you mean batch_size?"),
        ("[wroker]\nnum = 3", "has a table .wroker., .* did you mean worker?"),
        ("[broker]\nzzz = 3", "known are address_file, "),
        ("worker = 3", "outside a table"),
        ("[worker", "is not valid TOML"),
    ],
)
def test_file_with_a_slip_of_the_pen_is_refused(file, text, words):
    with pytest.raises(ConfigError, match=words):
        resolve(BrokerConfig, file=file(text), environ=NONE)


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the file .*absent.toml: No such file"):
        resolve(BrokerConfig, file=tmp_path / "absent.toml")


def test_file_has_lists_and_tables_of_its_own(file):
    text = "[worker]\ndevices = [0, 1]\ninit_args = ['x', 2]\ninit_kwargs = {a = [1]}\n"
    config = resolve(WorkerConfig, file=file(text), environ=NONE)
    assert config.devices == ("0", "1")
    assert config.init_args == ("x", 2)
    assert config.init_kwargs == {"a": [1]}


def test_configuration_made_in_python_is_checked_too():
    with pytest.raises(ConfigError, match=r"WorkerConfig\.batch_size is 0: give a whole number"):
        WorkerConfig(batch_size=0)
    with pytest.raises(ConfigError, match="the timeout must be the longer"):
        BrokerConfig(heartbeat=2.0)
    with pytest.raises(ConfigError, match="no broker"):
        WorkerConfig(broker=())


def test_configurations_do_not_share_their_dictionaries():
    WorkerConfig().init_kwargs["a"] = 1
    assert WorkerConfig().init_kwargs == {}


@pytest.mark.parametrize(
    ("endpoint", "stays"),
    [
        ("tcp://127.0.0.1:7787", True),
        ("tcp://127.8.8.8:*", True),
        ("tcp://localhost:7787", True),
        ("tcp://[::1]:7787", True),
        ("ipc:///run/zstreamer", True),
        ("inproc://clients", True),
        ("tcp://0.0.0.0:7787", False),
        ("tcp://*:7787", False),
        ("tcp://[::]:7787", False),
        ("tcp://eth0:7787", False),
        ("tcp://10.0.0.5:7787", False),
        ("tcp://127.0.0.1.example:7787", False),
        ("pgm://eth0;239.0.0.1:5555", False),
        ("7787", False),
    ],
)
def test_loopback_is_told_from_the_network(endpoint, stays):
    assert stays_on_machine(endpoint) is stays


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"client_address": "tcp://*:7787"},
        {"worker_address": "tcp://10.0.0.5:7788"},
    ],
)
def test_broker_beyond_loopback_needs_insecure(changes):
    with pytest.raises(ConfigError, match=r"refusing to bind tcp://.*add --insecure"):
        BrokerConfig(**changes)
    assert BrokerConfig(**changes, insecure=True).insecure


def test_endpoints_follow_host_and_ports_unless_given():
    assert BrokerConfig(port=1).client_endpoint == "tcp://127.0.0.1:1"
    assert BrokerConfig(host="::1", worker_port=2).worker_endpoint == "tcp://[::1]:2"
    assert BrokerConfig(client_address="ipc://x").client_endpoint == "ipc://x"


plain = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=8,
)


@given(
    args=some.lists(plain).map(tuple),
    kwargs=some.dictionaries(some.text(), plain),
    seconds=some.floats(0, 1e9),
)
def test_json_carries_a_configuration_exactly(args, kwargs, seconds):
    config = WorkerConfig("a:B", init_args=args, init_kwargs=kwargs, max_latency=seconds)
    text = to_json(config)
    assert "\n" not in text
    assert from_json(WorkerConfig, text) == config


@pytest.mark.parametrize("value", [b"bytes", (1, 2), {1: "key"}, {1, 2}, object()])
def test_arguments_that_json_would_change_are_refused(value):
    with pytest.raises(ConfigError, match="plain JSON values"):
        to_json(WorkerConfig(init_args=(value,)))


@given(some.sampled_from(PROGRAMS), some.data())
def test_no_text_whatever_escapes_as_another_error(program, data):
    each = data.draw(some.sampled_from(settings(program)))
    text = data.draw(some.text(min_size=1))
    try:
        config = resolve(program, {each.name: text}, environ=NONE)
    except ConfigError:
        return
    assert from_json(program, to_json(config)) == config
    assert json.loads(to_json(config)).keys() == {one.name for one in settings(program)}


def test_several_tables_of_workers_are_as_many_configurations(file):
    path = file("[broker]\nport = 1\n[[worker]]\nmodel = 'a'\nnum = 2\n[[worker]]\nmodel = 'b'\n")
    found = resolve_each(WorkerConfig, {"batch_size": 7}, file=path, environ={})
    assert [(each.model, each.num, each.batch_size) for each in found] == [("a", 2, 7), ("b", 1, 7)]
    with pytest.raises(ConfigError, match=r"has 2 tables .*zstreamer up. runs them all"):
        resolve(WorkerConfig, file=path, environ={})
    only = file("[[worker]]\nmodel = 'a'\n")
    assert resolve(WorkerConfig, file=only, environ={}).model == "a"
    assert len(resolve_each(WorkerConfig, file=file("[worker]\nnum = 2\n"), environ={})) == 1


def test_workers_of_several_tables_share_cores_and_ports():
    bert = WorkerConfig(target="m:Bert", model="bert", num=3, metrics_port=9100)
    hub = WorkerConfig(target="m:Hub", model="hub", num=2, metrics_port=9100)
    plain = WorkerConfig(target="m:Plain", model="plain")
    apart = WorkerConfig(target="m:Apart", model="apart", metrics_port=9200)
    found = beside([bert, plain, hub, apart])
    assert [each.model for each in found] == ["bert", "plain", "hub", "apart"]
    assert [each.metrics_port for each in found] == [9100, 0, 9103, 9200]
    assert [each.num + each.others for each in found] == [7] * 4
    with pytest.raises(ConfigError, match=r"metrics port 9102, those of models 'bert' and 'hub'"):
        beside([bert, replace(hub, metrics_port=9102)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[worker]]\nnum = 'two'", "num in table 1 of [[worker]] in "),
        ("[[worker]]\nmodel = 'a'\n[[worker]]\nnumb = 2", "numb in table 2 of [[worker]] in "),
        ("[[worker]]\ntask = 'scores'\ntarget = 'a:b'", "table 1 of [[worker]] in "),
        ("\n[[worker]]\nversion = 'a@b'", "line 2 is 'a@b': give up to 64 letters"),
        ("[[broker]]\nport = 1", "only [[worker]] may stand several times"),
    ],
)
def test_a_mistake_in_one_of_several_tables_names_the_table(file, text, words):
    with pytest.raises(ConfigError) as caught:
        resolve_each(WorkerConfig, file=file(text + "\n"), environ={})
    assert words in str(caught.value)
