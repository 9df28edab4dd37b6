"""A gateway that asks its callers for tokens, speaks TLS, and has a port for probes."""

import shutil
import socket
import ssl
import subprocess

import httpx
import pytest

from tests.helpers.cluster import free_port
from tests.helpers.keys import Keys
from tests.helpers.servers import Server
from tests.helpers.waiting import until

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="it makes the certificates")

PREDICT = "/v1/models/echo:predict"
BODY = {"instances": ["a"]}


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


def authority(folder, name):
    """Write a key and a certificate that may sign others."""
    made = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl(folder, "req", "-x509", *CURVE, *made, "-subj", f"/CN={name}")


def signed(folder, name, by):
    """Write a key and a certificate that an authority has signed."""
    made = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-CA", f"{by}.pem")
    extra = ("-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE")
    signer = ("-CAkey", f"{by}.key", "-subj", f"/CN={name}")
    openssl(folder, "req", "-x509", *CURVE, *made, *signer, *extra)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A folder of keys and its tokens, by name."""
    keys = Keys(tmp_path_factory.mktemp("tokens") / "keys")
    keys.tokens = {name: keys.folder.add_caller(name) for name in ("partner", "leaver")}
    return keys


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Certificates of one authority: `server` and `caller`, and `stranger` of another one."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ours", "theirs"):
        authority(folder, name)
    for name, by in (("server", "ours"), ("caller", "ours"), ("stranger", "theirs")):
        signed(folder, name, by)
    return folder


@pytest.fixture(scope="module")
def gateway(shared, tokens, tls):
    probes = free_port()
    with Server(
        "zstreamer", "gateway", "--broker", shared.address, "--model", "echo",
        "--api-keys", tokens.path, "--open", "/healthz,/metrics", "--probe-port", probes,
        "--certificate", tls / "server.pem", "--private-key", tls / "server.key",
        "--client-ca", tls / "ours.pem", "--tls-minimum", "1.3", "--log-level", "info",
        wait=False,
    ) as server:  # fmt: skip
        server.probes = f"http://127.0.0.1:{probes}"
        server.secure = f"https://localhost:{server.port}"
        until(lambda: answers(server.probes))
        yield server


def answers(url):
    try:
        return httpx.get(f"{url}/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def trusting(tls, name="caller"):
    context = ssl.create_default_context(cafile=tls / "ours.pem")
    context.load_cert_chain(tls / f"{name}.pem", tls / f"{name}.key")
    return context


def asks(gateway, tls, token=None, path=PREDICT, **settings):
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    with httpx.Client(verify=trusting(tls), timeout=20) as client:
        if path == PREDICT:
            return client.post(gateway.secure + path, json=BODY, headers=headers, **settings)
        return client.get(gateway.secure + path, headers=headers, **settings)


def test_a_token_lets_a_caller_in(gateway, tls, tokens):
    answer = asks(gateway, tls, tokens.tokens["partner"])
    assert (answer.status_code, answer.json()) == (200, {"predictions": ["a"]})


@pytest.mark.parametrize("token", [None, "zst_wrong", "x", "é" * 300])
def test_no_token_or_a_wrong_one_is_401_and_says_how(gateway, tls, token):
    headers = {} if token is None else {"authorization": f"Bearer {token}".encode()}
    with httpx.Client(verify=trusting(tls), timeout=20) as client:
        answer = client.post(gateway.secure + PREDICT, json=BODY, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="zstreamer"'
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Authorization" in answer.json()["detail"]


def test_a_revoked_token_is_401_within_a_second(gateway, tls, tokens):
    token = tokens.tokens["leaver"]
    assert asks(gateway, tls, token).status_code == 200
    tokens.folder.revoke("leaver")
    until(lambda: asks(gateway, tls, token).status_code == 401, 1.0)


def test_what_is_kept_of_a_token_is_not_the_token(tokens):
    kept = "".join(path.read_text() for path in tokens.path.rglob("*.key"))
    assert "sha256" in kept
    assert all(token not in kept for token in tokens.tokens.values())


def test_the_port_for_probes_has_the_open_pages_alone(gateway, tls):
    assert httpx.get(f"{gateway.probes}/metrics").status_code == 200
    assert httpx.get(f"{gateway.probes}/v1/models").status_code == 404
    assert httpx.post(gateway.probes + PREDICT, json=BODY).status_code == 404
    assert asks(gateway, tls, path="/metrics").status_code == 401


def test_callers_need_a_certificate_of_the_authority(gateway, tls):
    for context in (trusting(tls, "stranger"), str(tls / "ours.pem")):
        verify = (
            context
            if isinstance(context, ssl.SSLContext)
            else ssl.create_default_context(cafile=context)
        )
        with httpx.Client(verify=verify) as client, pytest.raises(httpx.HTTPError):
            client.get(f"{gateway.secure}/healthz")


def test_tls_of_an_older_version_is_not_spoken(gateway, tls):
    context = trusting(tls)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with httpx.Client(verify=context) as client, pytest.raises(httpx.ConnectError):
        client.get(f"{gateway.secure}/healthz")


def test_a_new_certificate_is_taken_while_a_connection_goes_on(gateway, tls, tokens):

    headers = {"authorization": f"Bearer {tokens.tokens['partner']}"}
    with httpx.Client(verify=trusting(tls), headers=headers, timeout=20) as lasting:
        assert lasting.post(gateway.secure + PREDICT, json=BODY).status_code == 200
        before = serial(gateway, tls)
        signed(tls, "server", "ours")
        until(lambda: serial(gateway, tls) != before, 5)
        assert lasting.post(gateway.secure + PREDICT, json=BODY).status_code == 200


def serial(gateway, tls):
    with (
        socket.create_connection(("localhost", gateway.port), timeout=5) as raw,
        trusting(tls).wrap_socket(raw, server_hostname="localhost") as wrapped,
    ):
        return wrapped.getpeercert()["serialNumber"]


def test_no_other_site_may_read_answers_in_a_browser(gateway, tls, tokens):
    origin = {"origin": "https://elsewhere.example"}
    with httpx.Client(verify=trusting(tls)) as client:
        asked = client.options(
            gateway.secure + PREDICT, headers={**origin, "access-control-request-method": "POST"}
        )
        answered = client.get(f"{gateway.secure}/v1/models", headers=origin)
    for each in (asked, answered):
        assert not any(name.startswith("access-control") for name in each.headers)


def test_files_that_do_not_belong_together_are_refused_at_the_start(shared, tls):

    with Server(
        "zstreamer", "gateway", "--broker", shared.address,
        "--certificate", tls / "server.pem", "--private-key", tls / "caller.key",
        wait=False,
    ) as server:  # fmt: skip
        assert server.process.wait(20) == 2
