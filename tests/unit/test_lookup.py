"""What addresses name: files, DNS names, and what is kept where neither can be read."""

import _thread
import gc
import json
import threading
import time
import weakref

import pytest

from tests.helpers.waiting import until
from zstreamer.config import addresses
from zstreamer.errors import BrokerUnreachable
from zstreamer.setting import ConfigError
from zstreamer.wire import lookup
from zstreamer.wire.address_file import AddressFile, advertised, read

CLIENTS, WORKERS = "tcp://10.0.0.5:7787", "tcp://10.0.0.5:7788"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "broker"


def file(path, clients=CLIENTS, workers=WORKERS, advertise=None):
    return AddressFile(str(path), clients, workers, advertise)


def test_an_address_file_is_there_while_its_broker_is(path):
    with file(path):
        assert lookup.resolved([f"file:{path}"]) == (CLIENTS,)
        assert lookup.resolved([f"file:{path}"], lookup.WORKERS) == (WORKERS,)
        assert [each.name for each in path.parent.iterdir()] == ["broker"]
    assert not path.exists()


def test_a_broker_leaves_its_successors_file_alone(path):
    with file(path), file(path, "tcp://10.0.0.6:7787").__enter__():
        pass
    with file(path):
        file(path, "tcp://10.0.0.6:7787").__enter__()
    assert read(path, "clients") == "tcp://10.0.0.6:7787"


def test_a_pattern_names_the_brokers_of_all_files(tmp_path):
    with file(tmp_path / "broker-1", "tcp://b:1"), file(tmp_path / "broker-0", "tcp://a:1"):
        assert lookup.resolved([f"file:{tmp_path}/broker-*"]) == ("tcp://a:1", "tcp://b:1")
    with pytest.raises(BrokerUnreachable, match=r"broker-\* \(nothing there\)"):
        lookup.resolved([f"file:{tmp_path}/broker-*"])


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"clients": 1}', '{"clients": "x"}'])
def test_what_is_no_address_file_is_said_so(path, text):
    path.write_text(text)
    with pytest.raises(BrokerUnreachable, match="is not an address file"):
        lookup.resolved([f"file:{path}"])


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot write the address file .*folder"):
        file(tmp_path / "none" / "broker").__enter__()
    with pytest.raises(BrokerUnreachable, match="No such file"):
        lookup.resolved([f"file:{tmp_path}/none"])


@pytest.mark.parametrize(
    ("endpoint", "host", "address"),
    [
        ("tcp://10.0.0.5:7787", None, "tcp://10.0.0.5:7787"),
        ("tcp://0.0.0.0:7787", "node5", "tcp://node5:7787"),
        ("tcp://10.0.0.5:7787", "node5", "tcp://node5:7787"),
        ("tcp://[::]:7787", "fd00::5", "tcp://[fd00::5]:7787"),
        ("ipc:///run/zs", "node5", "ipc:///run/zs"),
    ],
)
def test_what_is_advertised(endpoint, host, address):
    assert advertised(endpoint, host) == address


def test_every_address_that_is_bound_becomes_one_that_can_be_reached():
    address = advertised("tcp://0.0.0.0:7787", None)
    assert address.startswith("tcp://") and address.endswith(":7787")
    assert "0.0.0.0" not in address


def test_a_name_is_every_record_of_one_family():
    assert lookup.resolved(["tcp+dns://127.0.0.1:77"]) == ("tcp://127.0.0.1:77",)
    assert lookup.resolved(["tcp+dns://[::1]:77"]) == ("tcp://[::1]:77",)
    # localhost may have both ::1 and 127.0.0.1, which are one broker.
    assert len(lookup.resolved(["tcp+dns://localhost:77"])) == 1


def test_an_unknown_name_is_said_so():
    with pytest.raises(BrokerUnreachable, match=r"tcp\+dns://no.invalid:77 \(.+\)"):
        lookup.resolved(["tcp+dns://no.invalid:77"])


@pytest.mark.parametrize(
    "address", ["tcp+dns://name", "tcp+dns://:77", "file:", "file:here", "dns:a:1"]
)
def test_addresses_that_make_no_sense(address):
    with pytest.raises(ConfigError, match="is not an address"):
        addresses(address)


def test_what_cannot_be_looked_up_is_as_it_was():
    answers = [["b", "a"], OSError(2, "gone"), ["c"]]

    def ask(given, side):
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    found = lookup.Lookup(["tcp+dns://x:1"], lookup.CLIENTS, ask)
    assert [found.look().addresses for _ in range(3)] == [("a", "b"), ("a", "b"), ("c",)]


def test_a_thread_looks_again_and_tells_only_what_is_new(monkeypatch):
    monkeypatch.setattr(lookup, "EVERY", 0.01)
    asked = threading.Semaphore(0)
    answer = ["a"]

    def ask(given, side):
        asked.release()
        return answer

    found = lookup.Lookup(["tcp+dns://x:1"], lookup.CLIENTS, ask)
    assert found.news(time.monotonic()) is None
    found.start()
    assert until(lambda: found.news(time.monotonic())).addresses == ("a",)
    for _ in range(3):
        assert asked.acquire(timeout=10)
    assert found.news(time.monotonic()) is None
    answer = ["b"]
    assert until(lambda: found.news(time.monotonic())).addresses == ("b",)
    found.close()


def test_the_thread_ends_with_its_owner(monkeypatch):
    monkeypatch.setattr(lookup, "EVERY", 0.01)
    before = _thread._count()
    found = lookup.started(["file:/nowhere/*"], lookup.CLIENTS)
    gone = weakref.ref(found)
    del found
    until(lambda: gc.collect() >= 0 and gone() is None)
    until(lambda: _thread._count() <= before)


def test_plain_addresses_need_no_thread():
    assert lookup.started(["tcp://a:1", "ipc:///run/zs"], lookup.CLIENTS) is None


def test_the_file_is_json_of_one_line(path):
    with file(path):
        text = path.read_text()
        assert text.count("\n") == 1
        assert json.loads(text)["clients"] == CLIENTS
