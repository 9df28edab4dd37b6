"""Keys without sockets: files, lists, handshakes, tokens, and secrets that stay secret."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq.auth

from tests.helpers.keys import Keys
from zstreamer import errors
from zstreamer.broker import zap
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.revocation import revoke
from zstreamer.broker.sessions import Side
from zstreamer.config import BrokerConfig, GatewayConfig, to_json
from zstreamer.keys import bearer, certificate
from zstreamer.keys.bearer import Caller, Callers
from zstreamer.keys.credentials import Credentials
from zstreamer.keys.reader import CallersReader, Reader
from zstreamer.keys.ring import Principal, Ring, Role
from zstreamer.keys.secrets import Pair, Secret, raw
from zstreamer.setting import ConfigError
from zstreamer.wire import protocol


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
    assert not before.gone(reader.lists.ring)
    assert [each.tenant for each in before.changed(reader.lists.ring).values()] == ["shop"]


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


# ------------------------------------------------------------------ sessions


class Broker:
    """A broker's core; what it sends is kept by session."""

    def __init__(self):
        self.core = BrokerCore(BrokerConfig(), 1, 0.0)
        self.sent = {}

    def hello(self, session, id, whose, **info):
        role, on = protocol.Role.CLIENT, self.core.on_client
        if whose is not None and whose.role is Role.WORKER:
            role, on = protocol.Role.WORKER, self.core.on_worker
            info = {"model": "bert", "batch_size": 1, "pool": 0, **info}
        on(0.0, session, protocol.hello(protocol.Hello(role, id, info)), whose)
        self.poll()

    def poll(self):
        for _, session, frames in self.core.poll(0.0):
            self.sent.setdefault(session, []).append(protocol.decode(frames))

    def refused(self, session):
        """The last error that a session was sent."""
        errors_sent = [m for m in self.sent.get(session, []) if isinstance(m, protocol.Refuse)]
        return errors.from_wire(errors_sent[-1].error) if errors_sent else None

    def revoke(self, *gone, changed=()):
        keys = {each.key: each for each in changed}
        ended = revoke(self.core.sessions, 0.0, {each.key for each in gone}, keys)
        self.poll()
        return ended


@pytest.mark.parametrize("role", [Role.CLIENT, Role.WORKER])
def test_another_key_cannot_take_a_session_over_by_its_id(role):
    broker, owner, thief = Broker(), principal(role, "owner"), principal(role, "thief")
    broker.hello(b"owner", 5, owner)
    broker.hello(b"thief", 5, thief)
    assert isinstance(broker.refused(b"thief"), errors.Unauthorized)
    assert broker.refused(b"owner") is None
    broker.hello(b"again", 5, owner)  # the owner itself may, after a lost connection
    assert broker.refused(b"again") is None


def test_a_bound_worker_registers_its_models_alone():
    broker, bound = Broker(), principal(Role.WORKER, "gpu", models=frozenset({"bert"}))
    broker.hello(b"good", 1, bound)
    broker.hello(b"bad", 2, bound, model="other")
    assert broker.refused(b"good") is None
    assert "may serve bert, and not 'other'" in str(broker.refused(b"bad"))
    assert list(broker.core.models) == ["bert"]


def test_revoking_ends_the_sessions_of_that_key_and_hears_them_no_more():
    broker, web, other = Broker(), principal(name="web"), principal(name="other")
    gpu = principal(Role.WORKER, "gpu")
    for session, id, whose in ((b"web", 1, web), (b"other", 2, other), (b"gpu", 3, gpu)):
        broker.hello(session, id, whose)
    assert broker.revoke(web, gpu) == [(Side.CLIENT, b"web"), (Side.WORKER, b"gpu")]
    assert isinstance(broker.refused(b"web"), errors.Unauthorized)
    assert isinstance(broker.refused(b"gpu"), errors.Unauthorized)
    assert broker.refused(b"other") is None
    assert b"web" in broker.core.sessions.deaf(Side.CLIENT)
    assert b"gpu" in broker.core.sessions.deaf(Side.WORKER)
    assert list(broker.core.sessions.clients) == [2]


def test_other_rights_end_only_what_they_forbid():
    broker, web, gpu = Broker(), principal(name="web"), principal(Role.WORKER, "gpu")
    broker.hello(b"web", 1, web)
    broker.hello(b"gpu", 2, gpu)
    richer = web._replace(tenant="shop")
    assert broker.revoke(changed=[richer, gpu._replace(models=frozenset({"bert"}))]) == []
    assert broker.core.sessions.clients[1].principal == richer
    forbidden = gpu._replace(models=frozenset({"other"}))
    assert broker.revoke(changed=[forbidden]) == [(Side.WORKER, b"gpu")]


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
    assert BrokerConfig(host=host, keys="keys").host == host
    assert BrokerConfig(host=host, insecure=True).host == host


def test_tls_needs_both_files():
    with pytest.raises(ConfigError, match="give --certificate and --private-key"):
        GatewayConfig(certificate="a.pem")
    with pytest.raises(ConfigError, match="client_ca needs TLS"):
        GatewayConfig(client_ca="a.pem")
