"""Images, compose file and units: checked by rules, and built where this machine can.

ZSTREAMER_BASE_IMAGE names an image with Python that buildah has, to build on.
"""

import os
import re
import shutil
import subprocess

import pytest

from tests.helpers.cluster import ROOT
from zstreamer.config import BrokerConfig, GatewayConfig, WorkerConfig
from zstreamer.setting import settings

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.timeout(600)

DEPLOY = ROOT / "deploy"
FILES = sorted((DEPLOY / "docker").glob("Dockerfile*"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PROGRAMS = {"broker": BrokerConfig, "worker": WorkerConfig, "gateway": GatewayConfig}


def instructions(file):
    text = re.sub(r"\\\n", " ", file.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


@pytest.mark.parametrize("file", FILES, ids=lambda each: each.name)
def test_an_image_runs_as_nobody_and_is_watched(file):
    found = instructions(file)
    last = dict(found)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"]), (
        "a number, which runAsNonRoot can check"
    )
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert last["HEALTHCHECK"].endswith("]") and last["ENTRYPOINT"].startswith("[")
    assert "ADD" not in last
    base = next(rest for name, rest in found if name == "ARG" and rest.startswith("BASE="))
    assert ":" in base and not base.endswith(":latest")
    for name, rest in found:
        if name == "RUN":
            assert "sudo" not in rest
            assert "pip install" not in rest or "--no-cache-dir" in rest
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()


def flags_are_known(command):
    known = {one.flag for one in settings(PROGRAMS[command[0]])}
    for argument in command[1:]:
        if argument.startswith("--"):
            assert argument.partition("=")[0] in known, argument


def test_the_compose_file_starts_programs_with_flags_that_they_have():
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    assert {"broker", "worker", "gateway", "prometheus", "grafana"} == services.keys()
    for name, service in services.items():
        if name in PROGRAMS:
            flags_are_known(service["command"])
            grace = {one.name: one for one in settings(PROGRAMS[name])}["drain_grace"].default
            assert float(service["stop_grace_period"].rstrip("s")) > grace
            assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        for volume in service.get("volumes", []):
            assert (DEPLOY / "docker" / volume.partition(":")[0]).exists()


def test_the_procfile_does_too():
    for line in (DEPLOY / "Procfile").read_text().splitlines():
        name, command = line.split(": ", 1)
        assert command.split()[:2] == ["zstreamer", name]
        flags_are_known(command.split()[1:])


@pytest.mark.parametrize("unit", UNITS, ids=lambda each: each.name)
def test_a_unit_is_one_that_systemd_takes(unit, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    # The program is elsewhere on this machine.
    text = unit.read_text().replace("/opt/zstreamer/bin/zstreamer", "/bin/true")
    copy = tmp_path / unit.name.replace("@", "@bert")
    copy.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    words = [line for line in done.stderr.splitlines() if unit.name[:-8].rstrip("@") in line]
    assert not words


def test_the_image_can_be_built_and_its_program_started():
    base = os.environ.get("ZSTREAMER_BASE_IMAGE")
    if not base or not shutil.which("buildah"):
        pytest.skip("needs buildah, and ZSTREAMER_BASE_IMAGE")

    def buildah(*arguments):
        command = ["buildah", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    tag = "localhost/zstreamer:test"
    buildah(
        "build", "--isolation=chroot", "--network=host", f"--build-arg=BASE={base}",
        "--volume=/etc/ssl/certs:/etc/ssl/certs:ro", f"--file={FILES[0]}", f"--tag={tag}", ROOT,
    )  # fmt: skip
    container = buildah("from", "--pull-never", tag)
    try:
        assert "uid=10001" in buildah("run", "--isolation=chroot", container, "--", "id")
        version = buildah("run", "--isolation=chroot", container, "--", "zstreamer", "--version")
        assert version.startswith("zstreamer ")
    finally:
        buildah("rm", container)
