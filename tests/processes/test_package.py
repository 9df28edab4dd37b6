"""What is published: the sdist and the wheel, built, installed and used outside the repository."""

import contextlib
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

import zstreamer
from tests.helpers.cluster import free_port
from tests.helpers.waiting import until

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TRAP = "raise SystemError('a file of the user took the place of the standard library')\n"

MODEL = """
def double(batch):
    return [2 * item for item in batch]
"""

PROGRAM = """
import sys

import zstreamer
from zstreamer import Streamer

def double(batch):
    return [2 * item for item in batch]

if __name__ == "__main__":
    assert zstreamer.__file__.startswith(sys.prefix), zstreamer.__file__
    with Streamer(double, batch_size=8) as streamer:
        print(streamer.predict([1, 2, 3]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that holds an sdist and a wheel of a copy of this repository."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "__pycache__", "tests")
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)
    finish(sys.executable, "-m", "build", "--sdist", "--wheel", "--outdir", folder, source)
    shutil.rmtree(source)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(built):
    return next(built.glob("*.tar.gz"))


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(request, tmp_path_factory):
    """The `bin` folder of a fresh environment with zstreamer and a stale backport in it.

    It sees what zstreamer depends on in this process's environment, but not this repository.
    """
    folder = tmp_path_factory.mktemp(f"from_{request.param}")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    package = request.getfixturevalue(request.param)
    pip = (sys.executable, "-m", "pip", "--python", python)
    finish(*pip, "install", "--quiet", "--no-deps", "--disable-pip-version-check", package)
    library = Path(finish(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    # A path that a .pth file names has its own .pth files ignored, as that of an editable install.
    (library / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (library / "dataclasses.py").write_text(TRAP)
    return folder / "bin"


@pytest.fixture
def folder(tmp_path):
    """A current folder whose files are named like modules of the standard library."""
    for name in ("broker", "logging", "queue"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    (tmp_path / "my_model.py").write_text(MODEL)
    return tmp_path


def environment():
    """This process's variables, without those that let a child import the repository."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ZSTREAMER_"))}


def finish(*command, cwd="/"):
    """Run a command to its end; what it printed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


def top_level(names):
    return {name.partition("/")[0] for name in names}


def test_a_wheel_installs_nothing_but_zstreamer(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        version = wheel.name.split("-")[1]
        assert top_level(names) == {"zstreamer", f"zstreamer-{version}.dist-info"}
        information = f"zstreamer-{version}.dist-info"
        assert archive.read(f"{information}/top_level.txt").split() == [b"zstreamer"]
        metadata = email.message_from_bytes(archive.read(f"{information}/METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata.get_payload().startswith("# zstreamer")


def test_a_wheel_holds_every_file_of_the_package(wheel):
    package = [Path(each) for each in tracked("zstreamer", "broker")]
    wanted = {
        str("zstreamer" / each if each.parts[0] == "broker" else each)
        for each in package
        if each.suffix
    }
    assert {"zstreamer/broker/core.py", "zstreamer/py.typed"} <= wanted
    assert {"zstreamer/web/api/openapi.json", "zstreamer/web/api/page.html"} <= wanted
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info" not in name}
        assert not [name for name in held if archive.getinfo(name).external_attr >> 28 == 0xA]
    assert held == wanted


def tracked(*folders):
    """The files of these folders, without what runs leave behind."""
    for folder in folders:
        for parent, _, names in os.walk(ROOT / folder):
            for name in names:
                if "__pycache__" not in parent:
                    yield Path(parent, name).relative_to(ROOT)


def test_the_index_takes_what_is_published(wheel, sdist):
    assert "PASSED" in finish(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)


def test_the_version_is_written_in_one_place(wheel, sdist):
    version = zstreamer.__version__
    assert wheel.name.split("-")[1] == version
    assert sdist.name == f"zstreamer-{version}.tar.gz"
    assert 'version = "' not in (ROOT / "pyproject.toml").read_text().partition("[tool")[0]
    chart = (ROOT / "deploy" / "helm" / "zstreamer" / "Chart.yaml").read_text()
    assert f'appVersion: "{version}"' in chart, "the chart runs the image of this version"


def test_the_changelog_says_what_is_new():
    """Headings are versions, newest first, each with kinds of changes that have entries."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    for each in versions[1:]:
        assert re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", each)
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert not re.search(r"^### .+\n\n(?!- )", text, re.MULTILINE)


def test_an_sdist_can_be_built_from(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        assert not [each.name for each in archive.getmembers() if each.issym()]
    assert {"pyproject.toml", "LICENSE", "README.md", "zstreamer/broker/core.py"} <= names


def test_import_and_help(installed, folder, wheel):
    text = "import zstreamer; print(zstreamer.__version__, zstreamer.Client.__name__)"
    printed = finish(installed / "python", "-I", "-c", text)
    assert printed.split() == [wheel.name.split("-")[1], "Client"]
    assert "Run the broker" in finish(installed / "zstreamer", "--help", cwd=folder)


def test_a_streamer_in_a_script_beside_a_file_called_broker(installed, folder, tmp_path_factory):
    scripts = tmp_path_factory.mktemp("scripts")
    (scripts / "broker.py").write_text(TRAP)
    (scripts / "program.py").write_text(PROGRAM)
    assert finish(installed / "python", scripts / "program.py", cwd=folder) == "[2, 4, 6]"


def test_up_serves_over_http_in_a_folder_of_traps(installed, folder):
    http = free_port()
    ports = ("--port", free_port(), "--worker-port", free_port(), "--http-port", 0)
    command = [installed / "zstreamer", "up", "my_model:double", "--http", http, *ports]
    url = f"http://127.0.0.1:{http}"
    with subprocess.Popen(list(map(str, command)), cwd=folder, env=environment()) as up:
        try:
            until(lambda: is_ready(up, url), 60, 0.1)
            answer = httpx.post(f"{url}/v1/models/default:predict", json={"instances": [21]})
            assert answer.json() == {"predictions": [42]}
            call = (installed / "zstreamer", "call", "--address", f"tcp://127.0.0.1:{ports[1]}")
            assert finish(*call, "ab", cwd=folder).endswith("abab")
            up.terminate()
            assert up.wait(20) == 0
        finally:
            up.kill()


def is_ready(up, url):
    assert up.poll() is None, f"zstreamer up ended with {up.returncode}"
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=3).status_code == 200
