"""A host of a model repository: what it reads in its folder, and what it does when it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zstreamer import errors
from zstreamer.config import WorkerConfig
from zstreamer.setting import ConfigError
from zstreamer.wire import offers, protocol
from zstreamer.wire.link import Connect, Send
from zstreamer.wire.offers import LoadState, Order
from zstreamer.worker.repository import folder
from zstreamer.worker.repository.core import REFUSED_PAUSE, RepositoryCore, Start, Stop

HOST = WorkerConfig(repository="models", batch_size=7, import_path=("shared",))


def model(root: Path, place: str, text: str = 'target = "m:Model"') -> Path:
    path = root / place
    path.mkdir(parents=True)
    (path / "model.toml").write_text(text)
    return path


def names(found: folder.Found) -> list[tuple[str, str]]:
    return [(each.name, each.version) for each in found.entries]


# The folder


def test_a_folder_has_a_model_or_a_folder_for_each_version_of_one(tmp_path):
    for place in ("greet", "bert/1", "bert/2.0-rc", ".git/1", "a/b/c"):
        model(tmp_path, place)
    (tmp_path / "README").write_text("no model")
    (tmp_path / "empty").mkdir()
    assert folder.look(tmp_path) == (folder.look(tmp_path).entries, [])
    assert names(folder.look(tmp_path)) == [("bert", "1"), ("bert", "2.0-rc"), ("greet", "")]


def test_versions_beside_a_file_of_the_model_itself_are_named_as_left_out(tmp_path):
    for place in ("bert", "bert/1", "bert/10", "bert/weights/deep"):
        model(tmp_path, place)
    found = folder.look(tmp_path)
    assert names(found) == [("bert", "")]
    [words] = found.odd
    assert words.startswith(f"['1', '10'] in {tmp_path}/bert are left out")


def test_one_odd_entry_is_left_out_alone(tmp_path):
    model(tmp_path, "greet")
    model(tmp_path, "bert/1")
    for place in (tmp_path, tmp_path / "bert"):
        (place / "odd").symlink_to("x" * 300)
        (place / "gone").symlink_to("nowhere")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "model.toml")  # who reads it would wait
    found = folder.look(tmp_path)
    assert names(found) == [("bert", "1"), ("greet", "")]
    assert found.odd == [
        f"'{place}/odd' is left out: File name too long" for place in (tmp_path, tmp_path / "bert")
    ]


def test_a_look_asks_for_one_file_of_each_folder_and_for_none_of_other_files(tmp_path, monkeypatch):
    for number in range(20):
        model(tmp_path, f"bert/{number}")
        (tmp_path / f"{number}.npy").touch()
        (tmp_path / "bert" / f"{number}.npy").touch()
    asked: list[str] = []

    def counted(function):
        def count(path, *args, **kwargs):
            asked.append(os.fspath(path))
            return function(path, *args, **kwargs)

        return count

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    assert len(folder.look(tmp_path).entries) == 20
    assert not [path for path in asked if path.endswith(".npy")]
    assert len(asked) < 2 * 20 + 20  # some more for the root itself


def test_links_out_of_the_repository_and_names_that_none_can_ask_for_are_left_out(tmp_path):
    root, out = tmp_path / "models", model(tmp_path, "out")
    model(root, "good")
    (root / "link").symlink_to(out)
    (root / "good" / "data").symlink_to(tmp_path)
    (root / "versions").mkdir()
    (root / "versions" / "1").symlink_to(out)
    (root / "away").symlink_to(tmp_path)  # it has out/model.toml
    (root / "file").mkdir()
    (root / "file" / "model.toml").symlink_to(out / "model.toml")
    (root / "loop").symlink_to(root / "loop")
    (root / "inside").symlink_to(root / "good")
    model(root, "a@b")
    model(root, "bert/v 1")
    model(root, "new\nline")
    found = folder.look(root)
    assert names(found) == [("good", ""), ("inside", "")]
    assert len(found.odd) == 7  # the loop too
    assert sum("out of the repository" in words for words in found.odd) == 3
    (tmp_path / "current").symlink_to(root)  # the repository itself may be a link
    assert names(folder.look(tmp_path / "current")) == names(found)


def test_a_folder_that_cannot_be_read_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the folder .*nowhere: No such file"):
        folder.look(tmp_path / "nowhere")


def test_what_a_file_does_not_say_the_host_does(tmp_path):
    text = 'target = "m:Model"\nnum = 2\ninit-kwargs = { size = 3 }\nload = true'
    model(tmp_path, "bert/2", text)
    [entry] = folder.look(tmp_path).entries
    found = folder.config(entry, HOST)
    assert (found.target, found.model, found.version) == ("m:Model", "bert", "2")
    assert (found.num, found.batch_size, found.init_kwargs) == (2, 7, {"size": 3})
    assert found.import_path == (str(entry.folder), "shared")
    assert found.repository is None
    assert folder.is_wanted(entry)


def test_a_model_of_the_hub_may_lie_beside_its_file(tmp_path):
    place = model(tmp_path, "mini", 'target = "hf:weights"\ntask = "embeddings"')
    (place / "weights").mkdir()
    [entry] = folder.look(tmp_path).entries
    found = folder.config(entry, HOST)
    assert found.target == f"hf:{place / 'weights'}"
    assert found.init_kwargs == {"task": "embeddings", "trust_remote_code": False}
    (place / "model.toml").write_text('target = "hf:sentence-transformers/all-MiniLM-L6-v2"')
    assert folder.config(entry, HOST).target == "hf:sentence-transformers/all-MiniLM-L6-v2"
    (place / "model.toml").write_text('target = "hf:../.."')
    with pytest.raises(ConfigError, match=r"mini/model.toml: target .*, out of its folder"):
        folder.config(entry, HOST)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "bert/1/model.toml has no target: write target = "),
        ("target = ", "bert/1/model.toml is not valid TOML"),
        ('target = "../m.py"', "target is '../m.py': give module:Class"),
        ('target = "m:M"\nbatch_size = 0', "batch_size is 0: give a whole number of at least 1"),
        ('target = "m:M"\nload = "yes"', "load is 'yes': give true or false"),
        ('target = "m:M"\nnumm = 2', "has numm, which nothing reads; did you mean num?"),
        ('target = "m:M"\nbroker = "tcp://evil:1"', "has broker, which nothing reads"),
        ('target = "m:M"\nimport_path = ["/"]', "has import_path, which nothing reads"),
        ('target = "m:M"\ntask = "scores"', "task and trust_remote_code are for hf: models only"),
        ('[worker]\ntarget = "m:M"', "has worker, which nothing reads"),
        ('target = "m:M"\ninit_kwargs = { since = 2024-01-01 }', "must be plain JSON values"),
        ('target = "m:M"\ninit_kwargs = { size = nan }', "must be plain JSON values"),
        ('target = "hf:\\u0000"', "embedded null"),
        *(
            pytest.param(text, words, id=words)
            for text, words in (
                (f'target = "m:M"\ninit_args = [0x{"f" * 5000}]', "must be plain JSON values"),
                (
                    f'target = "m:M"\nbatch_size = 0x{"f" * 5000}',
                    "batch_size is a value of type int",
                ),
                (f'target = "m:M"\ninit_args = "{"[" * 100_000}"', "too many brackets"),
                (f'target = "hf:{"x" * 300}"', "File name too long"),
            )
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_place_in_the_repository(tmp_path, text, words):
    model(tmp_path, "bert/1", text)
    [entry] = folder.look(tmp_path).entries
    with pytest.raises(ConfigError) as raised:
        folder.config(entry, HOST)
    assert words in str(raised.value)
    assert "bert/1/model.toml" in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


def test_what_is_of_one_model_alone_is_no_setting_of_a_repository():
    for key, value in {"target": "m:M", "version": "1", "model": "x", "metrics_port": 1}.items():
        with pytest.raises(ConfigError, match=f"{key} is given beside a repository"):
            WorkerConfig(repository="models", **{key: value})


# The host


class Bench:
    """A host's core with one broker, which is played here, and a folder of entries."""

    def __init__(self, *entries: str) -> None:
        self.now = 100.0
        self.entries = [self.entry(each) for each in entries]
        self.wrong = self.unread = ""
        self.core = RepositoryCore(HOST, 5, self.now, lambda: 0.5, {}, self.look, self.settle)
        self.core.seen(self.entries)
        [connect] = self.core.poll(self.now)
        assert isinstance(connect, Connect)
        self.link = connect.link
        self.core.on_connected(self.now, self.link)
        self.hello = self.sent()[0]

    def entry(self, name: str) -> folder.Entry:
        name, _, version = name.partition("@")
        return folder.Entry(name, version, Path(name, version))

    def look(self) -> list[folder.Entry]:
        if self.unread:
            raise ConfigError(self.unread)
        return self.entries

    def settle(self, entry: folder.Entry) -> WorkerConfig:
        if self.wrong:
            raise ConfigError(self.wrong)
        return WorkerConfig(model=entry.name)

    def welcome(self) -> None:
        self.say(protocol.Welcome(7, False, [], 0, 1, 1))

    def say(self, message: protocol.Message) -> None:
        self.core.on_message(self.now, self.link, protocol.plain(message))

    def sent(self) -> list[protocol.Message]:
        self.done = self.core.poll(self.now)
        return [protocol.decode(each.frames) for each in self.done if isinstance(each, Send)]

    def report(self) -> offers.Report:
        [message] = self.sent()
        return offers.read_report(message.info)

    def order(self, action: str, name: str) -> offers.Answer:
        self.say(offers.order(Order(3, action, name)))
        report = self.report()
        self.states = {offers.full_name(*each[:2]): each.state for each in report.offers}
        [answer] = report.answers
        assert answer.number == 3
        return answer


@pytest.fixture
def bench():
    bench = Bench("bert@9", "bert@10", "greet")
    bench.welcome()
    report = bench.report()
    assert [each[:3] for each in report.offers] == [
        ("bert", "10", LoadState.UNLOADED),
        ("bert", "9", LoadState.UNLOADED),
        ("greet", "", LoadState.UNLOADED),
    ]
    assert (report.orders, report.answers) == (0, [])
    return bench


def test_a_host_says_that_it_is_one_and_tells_only_what_is_new(bench):
    assert (bench.hello.role, bench.hello.id) == (protocol.Role.HOST, 5)
    assert bench.sent() == []
    bench.core.seen(bench.entries[:1])
    assert [each.version for each in bench.report().offers] == ["9"]


def test_a_name_alone_loads_the_newest_version_and_unloads_all(bench):
    assert bench.order("load", "bert") == (3, 200, "", ["bert@10"])
    assert bench.order("load", "bert@9").models == ["bert@9"]
    starts = [each.key for each in bench.done if isinstance(each, Start)]
    assert starts == [("bert", "9")]
    assert bench.order("unload", "bert").models == ["bert@9", "bert@10"]
    assert [each.key for each in bench.done if isinstance(each, Stop)] == [
        ("bert", "9"),
        ("bert", "10"),
    ]
    assert bench.states["bert@9"] == bench.states["bert@10"] == LoadState.UNLOADING
    assert bench.order("load", "bert").status == 503
    bench.core.ended(("bert", "10"), "")
    assert bench.order("load", "bert").status == 200


def test_orders_may_be_repeated(bench):
    assert bench.order("load", "greet").status == 200
    assert bench.order("load", "greet").status == 200
    assert not [each for each in bench.done if isinstance(each, Start)]
    assert bench.order("unload", "greet").status == 200
    assert bench.order("unload", "greet").status == 200
    assert not [each for each in bench.done if isinstance(each, Stop)]


def test_a_model_that_gave_up_says_so_until_it_is_loaded_or_unloaded(bench):
    bench.order("load", "greet")
    bench.core.ended(("greet", ""), "exit code 4")
    [row] = [each for each in bench.report().offers if each.name == "greet"]
    assert row[2:] == (LoadState.FAILED, "exit code 4")
    assert bench.order("load", "greet").status == 200
    assert bench.states["greet"] is LoadState.LOADED
    bench.core.ended(("greet", ""), "exit code 4")
    assert bench.order("unload", "greet").status == 200
    assert bench.states == {**bench.states, "greet": LoadState.UNLOADED}


def test_a_new_folder_is_seen_when_it_is_asked_for(bench):
    assert bench.order("load", "new").status == 404
    bench.entries.append(bench.entry("new"))
    assert bench.order("load", "new") == (3, 200, "", ["new"])


def test_what_is_not_there_or_makes_no_sense_is_refused_with_the_reason(bench):
    found = bench.order("load", "../etc")
    assert found.status == 404
    assert found.words.endswith("it has bert@10, bert@9, greet")
    assert bench.order("sell", "greet").status == 400
    bench.wrong = "greet/model.toml has no target"
    assert bench.order("load", "greet") == (3, 400, bench.wrong, [])
    assert bench.states["greet"] is LoadState.UNLOADED


def test_a_model_that_runs_goes_on_without_its_folder_and_can_be_unloaded(bench):
    bench.order("load", "greet")
    bench.entries.clear()
    assert bench.order("unload", "greet").status == 200
    assert bench.states == {"greet": LoadState.UNLOADING}
    bench.core.ended(("greet", ""), "")
    bench.core.seen([])
    assert bench.report().offers == []


def test_what_runs_can_be_unloaded_while_the_folder_cannot_be_read(bench):
    bench.order("load", "greet")
    bench.unread = "cannot read the folder /a/secret/place: No such file or directory"
    assert bench.order("load", "greet") == (3, 200, "", ["greet"])
    words = "the repository cannot be read now; the log of its host says why"
    assert bench.order("load", "bert") == (3, 503, words, [])
    assert bench.order("unload", "nobody") == (3, 503, words, [])
    assert bench.order("unload", "greet") == (3, 200, "", ["greet"])
    assert [each.key for each in bench.done if isinstance(each, Stop)] == [("greet", "")]


def test_a_model_without_versions_is_also_its_version_1_as_the_index_calls_it(bench):
    assert bench.order("load", "greet@1") == (3, 200, "", ["greet"])
    assert bench.order("unload", "greet@1") == (3, 200, "", ["greet"])
    assert bench.order("load", "greet@2").status == 404
    assert bench.order("load", "bert@1").status == 404
    bench.entries.append(bench.entry("greet@1"))
    assert bench.order("load", "greet@1") == (3, 200, "", ["greet@1"])


def test_a_broker_that_knows_no_hosts_is_asked_again_seldom():
    bench = Bench("greet")
    error = errors.BadRequest("this port is for workers")
    bench.say(protocol.Refuse(errors.to_wire(error)))
    bench.sent()
    assert bench.link.refusal is not None
    assert bench.core.wake_at() == bench.now + REFUSED_PAUSE


def test_an_order_that_is_malformed_ends_the_connection(bench):
    for row in ([1, "load"], ["1", "load", "greet"], "load", [1, "load", 5]):
        bench = Bench("greet")
        bench.welcome()
        bench.report()
        bench.say(protocol.Status({"order": row}))
        assert bench.sent() == []
        assert not bench.link.is_ready
    bench = Bench("greet")
    bench.welcome()
    bench.report()
    bench.say(protocol.Status({}))
    bench.say(protocol.Ping())
    assert bench.sent() == []
    assert bench.link.is_ready
