"""Keys without sockets: files, lists, handshakes, tokens, and secrets that stay secret."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq.auth

from tests.helpers.keys import Keys
from zstreamer.broker import zap
from zstreamer.config import BrokerConfig, GatewayConfig, to_json
from zstreamer.keys import bearer, certificate
from zstreamer.keys.bearer import Caller, Callers
from zstreamer.keys.credentials import Credentials
from zstreamer.keys.reader import CallersReader, Reader
from zstreamer.keys.ring import Principal, Ring, Role
from zstreamer.keys.secrets import Pair, Secret, raw
from zstreamer.setting import ConfigError


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path / "keys")


def principal(role=Role.CLIENT, name="web", **rights):
    return Principal(Pair.new().public, name, role, **rights)


# ------------------------------------------------------------------ files


def test_a_file_is_read_by_zeromqs_own_reader(keys):
    file = keys.client("web", "shop")
    public, secret = zmq.auth.load_certificate(file)
    read = certificate.read(Path(file).read_text())
    assert (read.public, read.secret.reveal()) == (public, secret)
    assert (read.tenant, read.servers) == ("shop", keys.folder.servers)


def test_the_lists_have_no_secrets(keys):
    keys.client("web")
    keys.worker("gpu", "a", "b")
    for entry in keys.path.glob("*/*.key"):
        assert "secret-key" not in entry.read_text()
    [one] = [each for each in keys.folder.listed() if each.role is Role.WORKER]
    assert one.principal.models == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no role"),
        ('role = "king"', "its role is not"),
        ('role = "client"\nname = "../up"', "its name is not one"),
        ('role = "client"\nname = "web"', "it has no public-key"),
        ('role = "client"\nname = "web"\npublic-key = "short"', "its public-key is not a key"),
        (
            'role = "client"\nname = "web"\npublic-key = "{0}"\nsecret-key = "{1}"',
            "does not belong to its public key",
        ),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text, words):
    one, other = Pair.new(), Pair.new()
    secret = other.secret.reveal().decode()
    filled = text.replace("{0}", one.public.decode()).replace("{1}", secret)
    with pytest.raises(ValueError, match=words) as caught:
        certificate.read(filled)
    assert secret not in str(caught.value)


def test_names_are_used_once_and_are_no_paths(keys):
    keys.client("web")
    for name, words in (("web", "already"), ("../x", "cannot be a key's name"), ("", "cannot be")):
        with pytest.raises(ConfigError, match=words):
            keys.worker(name)
    with pytest.raises(ConfigError, match="quotes or line ends"):
        keys.client("other", 'shop"\nrole = "broker')


def test_a_folder_is_not_made_anew(keys):
    before = keys.folder.servers
    with pytest.raises(ConfigError, match="nothing was changed"):
        keys.folder.create()
    assert keys.folder.servers == before


def test_a_program_on_the_brokers_machine_may_be_given_the_folder(keys):
    with pytest.raises(ConfigError, match="has no client's key"):
        Credentials(keys.path, Role.CLIENT)
    keys.worker("gpu")
    keys.client("web")
    assert Credentials(keys.path, Role.CLIENT).name == "web"
    assert Credentials(keys.path, Role.WORKER).name == "gpu"


def test_a_rotated_key_is_trusted_beside_the_old_one_and_then_alone(keys):
    web = Credentials(keys.client("web"), Role.CLIENT)
    [old] = keys.folder.servers
    keys.folder.rotate()
    with pytest.raises(ConfigError, match="is being rotated"):
        keys.folder.rotate()
    assert {web.curve(attempt).server for attempt in range(3)} == set(keys.folder.servers)
    following = keys.folder.finish_rotation().public
    assert {web.curve(attempt).server for attempt in range(3)} == {following} != {old}


# ------------------------------------------------------------------ lists


def test_lists_follow_their_files(keys):
    reader = Reader(keys.path)
    assert len(reader.lists.ring) == 0
    keys.client("web")
    assert reader.look()
    [web] = [each.principal for each in keys.folder.listed()]
    assert reader.lists.ring.of(web.key) == reader.lists.ring.of(raw(web.key)) == web
    assert not reader.look()
    before = reader.lists.ring
    keys.folder.revoke("web")
    assert reader.look()
    assert before.gone(reader.lists.ring) == {web.key}


def test_a_file_that_is_being_written_leaves_its_key_as_it_was(keys, caplog):
    reader = Reader(keys.path)
    keys.client("web")
    reader.look()
    entry = keys.path / "clients" / "web.key"
    text = entry.read_text()
    with caplog.at_level(logging.ERROR):
        entry.write_text(text[:40])
        assert not reader.look()
        reader.look()
    assert len(reader.lists.ring) == 1
    assert len([r for r in caplog.records if "web.key" in r.getMessage()]) == 1
    entry.write_text(text.replace('made = "', 'tenant = "shop"\nmade = "'))
    before = reader.lists.ring
    assert reader.look()
    assert len(before.gone(reader.lists.ring)) == 1  # other rights: its sessions begin anew


def test_a_new_entry_that_others_can_read_lets_nobody_in(keys, caplog):
    reader = Reader(keys.path)
    keys.client("web")
    entry = keys.path / "clients" / "web.key"
    entry.chmod(0o666)
    with caplog.at_level(logging.ERROR):
        reader.look()
    assert len(reader.lists.ring) == 0
    assert f"chmod 600 {entry}" in caplog.text
    entry.chmod(0o600)
    assert reader.look()


# ------------------------------------------------------------------ handshakes


def ask(key, domain=b"clients", **changed):
    frames = {
        "version": b"1.0",
        "id": b"7",
        "domain": domain,
        "address": b"10.0.0.9",
        "identity": b"",
        "mechanism": b"CURVE",
        "key": raw(key),
        **changed,
    }
    return list(frames.values())


def test_a_handshake_is_answered_by_key_and_role():
    web, gpu = principal(), principal(Role.WORKER, "gpu")
    ring = Ring([web, gpu])
    stranger = Pair.new().public
    for request, status, user in (
        (ask(web.key), b"200", web.key),
        (ask(gpu.key, b"workers"), b"200", gpu.key),
        (ask(web.key, b"workers"), b"500", b""),
        (ask(gpu.key), b"500", b""),
        (ask(web.key, b"elsewhere"), b"500", b""),
        (ask(stranger), b"400", b""),
        (ask(web.key, mechanism=b"NULL"), b"400", b""),
        (ask(web.key, version=b"2.0"), b"400", b""),
        ([], b"400", b""),
        ([b"1.0"], b"400", b""),
        (ask(web.key)[:-1], b"400", b""),
    ):
        reply = zap.answer(request, ring).reply
        assert (reply[2], reply[4], len(reply)) == (status, user, 6)


def test_a_workers_key_may_be_bound_to_models():
    assert principal(Role.WORKER).may_serve("any")
    bound = principal(Role.WORKER, models=frozenset({"bert"}))
    assert bound.may_serve("bert")
    assert not bound.may_serve("Bert")


# ------------------------------------------------------------------ tokens


def test_a_token_is_known_by_its_hash_alone():
    token, other = bearer.new_token(), bearer.new_token()
    kept = bearer.read(bearer.text(Caller("partner", bearer.digest(token), "shop"), "2026-01-01"))
    callers = Callers([kept])
    assert token not in repr(vars(callers)) + bearer.text(kept, "2026-01-01")
    assert callers.of(f"Bearer {token}") == callers.of(f"bearer  {token} ") == kept
    for header in (None, "", token, f"Basic {token}", f"Bearer {other}", f"Bearer {token}x",
                   "Bearer", "Bearer " + 1000 * "x", "Bearer \ud800"):  # fmt: skip
        assert callers.of(header) is None


def test_a_gateway_may_have_the_http_folder_alone(keys):
    token = keys.folder.add_caller("partner")
    for path in (keys.path, keys.path / "http"):
        assert CallersReader(path)().of(f"Bearer {token}").name == "partner"


# ------------------------------------------------------------------ secrets


def test_a_secret_is_not_shown_and_not_pickled(keys):
    secret = Secret(b"hunter2")
    credentials = Credentials(keys.client("web"), Role.CLIENT)
    curve = credentials.curve(0)
    reveal: Callable[[], bytes] = curve.pair.secret.reveal
    shown = f"{secret} {secret!r} {credentials!r} {curve!r} {vars(credentials)!r} {curve.pair}"
    assert "hunter2" not in shown
    assert reveal().decode() not in shown
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(secret)


def test_what_children_are_told_names_files_and_no_secrets(keys):
    config = BrokerConfig(keys=str(keys.path))
    assert json.loads(to_json(config))["keys"] == str(keys.path)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "broker.example"])
def test_beyond_loopback_a_broker_asks_for_keys(host):
    with pytest.raises(ConfigError, match=r"--keys FOLDER.*--insecure"):
        BrokerConfig(host=host)
    assert BrokerConfig(host=host, keys="keys")
    assert BrokerConfig(host=host, insecure=True)


def test_tls_needs_both_files():
    with pytest.raises(ConfigError, match="give --certificate and --private-key"):
        GatewayConfig(certificate="a.pem")
    with pytest.raises(ConfigError, match="client_ca needs TLS"):
        GatewayConfig(client_ca="a.pem")
