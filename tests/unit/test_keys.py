"""Keys without sockets: files, lists, handshakes, tokens, and secrets that stay secret."""

import json
import logging
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq.auth

from tests.helpers.keys import Keys
from tests.helpers.leaks import leaks
from tests.helpers.waiting import until
from zstreamer import errors
from zstreamer.broker import zap
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.revocation import revoke
from zstreamer.broker.sessions import Side
from zstreamer.config import BrokerConfig, GatewayConfig, to_json
from zstreamer.keys import bearer, certificate, files
from zstreamer.keys.bearer import Caller, Callers
from zstreamer.keys.credentials import Credentials
from zstreamer.keys.reader import LOOK, CallersReader, Reader
from zstreamer.keys.ring import Principal, Ring, Role
from zstreamer.keys.secrets import Pair, Secret, raw
from zstreamer.setting import ConfigError
from zstreamer.web.api.guard import Guard
from zstreamer.web.api.interface import Interface
from zstreamer.web.api.steps import Request
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


@pytest.mark.parametrize(
    "name",
    ['a"b', "a'b", "a\nb", "a\u2028b", "a\x85b", "a\x1b[0m", "a\u202eb", " a", "a" * 256],
)
def test_what_breaks_a_line_or_cannot_be_seen_is_no_tenant_and_no_model(keys, name):
    for make in (
        lambda: keys.client("web", name),
        lambda: keys.worker("gpu", name),
        lambda: keys.folder.add_caller("partner", name),
    ):
        with pytest.raises(ConfigError, match="cannot stand in a key's file"):
            make()
    assert not list(keys.path.glob("*/*.key*"))


@pytest.mark.parametrize("name", ["a\x1b[0m", "a\u202eb", "a" * 256])
def test_a_file_that_names_such_a_tenant_is_refused(keys, name):
    for text, read in (
        (Path(keys.client("web", "shop")).read_text(), certificate.read),
        (bearer.text(Caller("partner", bearer.digest(""), "shop"), "2026-01-01"), bearer.read),
    ):
        assert read(text).tenant == "shop"
        with pytest.raises(ValueError, match="too long, or cannot be printed"):
            read(text.replace("shop", name))


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


def test_a_folder_that_cannot_be_looked_into_leaves_all_keys_as_they_were(keys, caplog):
    reader = Reader(keys.path)
    callers = CallersReader(keys.path)
    keys.client("web")
    token = keys.folder.add_caller("partner")
    reader.look()
    until(lambda: len(callers()) == 1)
    for name in ("clients", "http"):
        place, kept = keys.path / name, keys.path / f"{name}.kept"
        for spoil in (lambda: None, place.touch):  # it has gone; it is no folder any more
            caplog.clear()
            place.rename(kept)
            spoil()
            assert not reader.look()
            reader.look()
            time.sleep(LOOK)
            assert callers().of(f"Bearer {token}")
            assert len(reader.lists.ring) == len(reader.lists.callers) == 1
            assert f"cannot look into the folder of keys {place}" in caplog.text
            assert len([r for r in caplog.records if r.name.endswith("reader")]) <= 2
            place.unlink(missing_ok=True)
            kept.rename(place)
            assert not reader.look()


def test_a_file_that_cannot_be_reached_is_not_a_file_that_has_gone(keys, caplog):
    reader = Reader(keys.path)
    keys.client("web")
    reader.look()
    entry = keys.path / "clients" / "web.key"
    entry.unlink()
    entry.symlink_to(entry)
    assert not reader.look()
    assert len(reader.lists.ring) == 1
    assert "cannot look into" in caplog.text
    entry.unlink()
    assert reader.look()
    assert len(reader.lists.ring) == 0


def test_an_empty_folder_in_the_place_of_the_keys_takes_none_away(keys, caplog):
    keys.client("web")
    reader = Reader(keys.path)
    kept = keys.path.with_name("kept")
    keys.path.rename(kept)
    keys.path.mkdir()
    assert not reader.look()
    assert len(reader.lists.ring) == 1
    assert "old key and lists" in caplog.text
    keys.path.rmdir()
    kept.rename(keys.path)
    keys.folder.revoke("web")
    assert reader.look()
    assert len(reader.lists.ring) == 0


def test_a_revoked_key_is_gone_under_all_of_its_names(keys):
    reader = Reader(keys.path)
    keys.client("web")
    keys.client("other")
    entry = keys.path / "clients" / "web.key"
    for copy in ("clients/backup.key", "workers/misplaced.key"):
        text = entry.read_text().replace("client", "worker" if "workers" in copy else "client")
        files.write(keys.path / copy, text)
    token = keys.folder.add_caller("partner")
    files.write(keys.path / "http" / "copy.key", (keys.path / "http" / "partner.key").read_text())
    reader.look()
    assert len(reader.lists.callers) == 1
    assert len(keys.folder.revoke("backup")) == 3  # by the name of any of its files
    assert len(keys.folder.revoke("partner")) == 2
    assert reader.look()
    [left] = keys.folder.listed()
    assert left.name == "other"
    assert len(reader.lists.ring) == 1
    assert reader.lists.callers.of(f"Bearer {token}") is None
    with pytest.raises(ConfigError, match="no key is called 'web'"):
        keys.folder.revoke("web")


def test_what_revoking_could_not_read_is_named(keys):
    keys.client("web")
    odd = keys.path / "clients" / "odd.key"
    files.write(odd, "half a f")
    with pytest.raises(ConfigError, match=rf"web is revoked, but .*may hold the same key: {odd}"):
        keys.folder.revoke("web")
    assert not list((keys.path / "clients").glob("web*"))
    keys.folder.revoke("odd")
    assert not list(keys.path.glob("*/odd.key"))


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


@pytest.mark.parametrize(
    ("key", "said", "counts_to"),
    [("", "", ""), ("", "made up", None), ("shop", "made up", "shop"), ("shop", "", "shop"),
     ("*", "made up", "made up"), ("*", "", ""), (None, "made up", "made up")],
)  # fmt: skip
def test_a_key_says_to_whom_a_client_counts_and_who_may_name_tenants(key, said, counts_to):
    broker = Broker()
    broker.hello(b"web", 1, None if key is None else principal(tenant=key), tenant=said)
    if counts_to is None:
        assert isinstance(broker.refused(b"web"), errors.Unauthorized)
        assert '--tenant "*"' in str(broker.refused(b"web"))
    else:
        assert broker.core.sessions.clients[1].tenant.name == counts_to


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


@pytest.mark.parametrize(
    ("token", "status", "counts_to"),
    [(None, 200, "made up"), ("*", 200, "made up"), ("shop", 200, "shop"), ("", 403, None)],
)
def test_a_token_says_to_whom_a_request_counts_and_who_may_use_the_header(
    keys, token, status, counts_to
):
    headers, guard = {"x-tenant": "made up"}, None
    if token is not None:
        headers["authorization"] = f"Bearer {keys.folder.add_caller('partner', token)}"
        guard = Guard(CallersReader(keys.path), ())
    interface = Interface(guard=guard, tenant_header="X-Tenant")
    body = b'{"instances": [1]}'
    step = interface.begin(Request("POST", "/v1/models/m:predict", "", headers.get, body))
    assert getattr(step, "status", 200) == status
    assert getattr(step, "tenant", None) == counts_to


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


def test_the_test_run_itself_fails_where_a_secret_is_written(keys):
    file = Path(keys.client("web")).read_text()
    token = keys.folder.add_caller("partner")
    assert leaks(["nothing here", keys.path.name]) == []
    found = leaks([f"before\nAuthorization: Bearer {token}\n", file])
    assert found[0] == "Authorization: Bearer <secret>"
    assert "secret-key" in found[1]
    assert not any(each in "".join(found) for each in [token, *keys.secrets()])


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
