"""Runs the pods of rendered manifests as processes of this machine.

Each pod is a network namespace with an address of its own. Its container's very command, arguments
and environment run there; its probes are asked, what is ready stands behind the Service's name,
and it is ended as a kubelet ends it: out of the Service, preStop, SIGTERM, SIGKILL after the grace.
Volumes of ConfigMaps lie in folders of this machine, which arguments name in place of their own.
Images, other volumes, users and network policies are left out.
"""

import contextlib
import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from itertools import count
from pathlib import Path

from tests.helpers.cluster import ROOT
from tests.helpers.waiting import until
from tests.processes.test_network import ip

NETWORK = "10.213.58"
TICK = 0.1


class Pod:
    """One pod: a namespace, a process, and what its probes have said."""

    def __init__(self, node, name, labels, spec, number, folders):
        self.node, self.name, self.labels, self.spec = node, name, labels, spec
        self._folders = folders
        self.address = f"{NETWORK}.{number}"
        self.space = f"zsk{os.getpid()}-{number}"
        self.ready = self.started = self.ending = False
        [self.container] = spec["containers"]
        self.ports = {p["name"]: p["containerPort"] for p in self.container.get("ports", [])}
        self.process = None
        self._stopped = threading.Event()
        self._failures = 0

    def start(self):
        c = self.container
        env = {k: v for k, v in os.environ.items() if not k.startswith("ZSTREAMER_")}
        env |= {each["name"]: str(each["value"]) for each in c.get("env", [])}
        command = [*c["command"], *c.get("args", [])]
        for path, folder in self._folders.items():
            command = [each.replace(path, str(folder)) for each in command]
        if command[0] == "zstreamer":
            command[0:1] = [sys.executable, "-m", "zstreamer"]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.space, *command], cwd=ROOT, env=env
        )
        threading.Thread(target=self._probe, daemon=True).start()

    def _probe(self):
        startup = self.container.get("startupProbe")
        while not self._stopped.is_set() and startup and not self._ask(startup):
            assert self.process.poll() is None, f"{self.name} has ended with {self.process.poll()}"
            self._stopped.wait(startup["periodSeconds"])
        self.started = True
        probe = self.container.get("readinessProbe")
        while not self._stopped.is_set():
            if probe is None or self._ask(probe):
                self._failures, self.ready = 0, not self.ending
            else:
                self._failures += 1
                if self._failures >= probe.get("failureThreshold", 3):
                    self.ready = False
            self._stopped.wait(probe["periodSeconds"] if probe else 1.0)

    def _ask(self, probe):
        get = probe["httpGet"]
        url = f"http://{self.address}:{self.ports[get['port']]}{get['path']}"
        with contextlib.suppress(OSError):
            timeout = probe.get("timeoutSeconds", 1)
            with urllib.request.urlopen(url, timeout=timeout) as answer:
                return answer.status < 400
        return False

    def end(self):
        """End it as a kubelet does; returns its exit code."""
        self.ending, self.ready = True, False
        grace = self.spec["terminationGracePeriodSeconds"]
        end = time.monotonic() + grace
        if stop := self.container.get("lifecycle", {}).get("preStop"):
            subprocess.run(stop["exec"]["command"], check=True, timeout=grace)
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._stopped.set()
        return code

    def lose(self):
        """Its node is gone: packets vanish, and nothing is said to anybody."""
        self._stopped.set()
        self.ready = False


class LocalCluster:
    """Deployments, StatefulSets and Services of rendered manifests.

    objects: as helm renders them.
    """

    def __init__(self, objects):
        self.objects = {(o["kind"], o["metadata"]["name"]): copy.deepcopy(o) for o in objects}
        self.pods = []
        self.codes = []
        self._numbers = count(10)
        self._names = count()
        self._folder = Path(tempfile.mkdtemp(prefix="zsk-"))
        self._done = threading.Event()
        self._lock = threading.RLock()
        self._switch = f"zsk{os.getpid()}"

    # Network

    def __enter__(self):
        ip("netns", "add", self._switch)
        self._in("link", "add", "bridge", "type", "bridge")
        self._in("link", "set", "bridge", "up")
        self._host = f"zsk{os.getpid()}h"[:15]
        ip(
            "link",
            "add",
            self._host,
            "type",
            "veth",
            "peer",
            "name",
            "host0",
            "netns",
            self._switch,
        )
        self._in("link", "set", "host0", "master", "bridge", "up")
        ip("addr", "add", f"{NETWORK}.1/24", "dev", self._host)
        ip("link", "set", self._host, "up")
        threading.Thread(target=self._names_follow, daemon=True).start()
        for kind in ("StatefulSet", "Deployment"):
            for key, each in self.objects.items():
                if key[0] == kind:
                    self.scale(key[1], each["spec"].get("replicas", 1), wait=False)
        return self

    def _in(self, *arguments):
        return ip("-n", self._switch, *arguments)

    def _join(self, pod):
        ip("netns", "add", pod.space)
        port = f"p{pod.address.rpartition('.')[2]}"
        self._in("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", pod.space)
        self._in("link", "set", port, "master", "bridge", "up")
        ip("-n", pod.space, "addr", "add", f"{pod.address}/24", "dev", "eth0")
        ip("-n", pod.space, "link", "set", "eth0", "up")
        ip("-n", pod.space, "link", "set", "lo", "up")

    def hosts(self):
        """What Services' names resolve to now."""
        lines = ["127.0.0.1 localhost"]
        for (kind, name), service in self.objects.items():
            if kind == "Service":
                lines += [f"{pod.address} {name}" for pod in self.behind(service)]
        return "\n".join(lines) + "\n"

    def behind(self, service):
        wanted = service["spec"]["selector"].items()
        return [pod for pod in self.pods if pod.ready and wanted <= pod.labels.items()]

    def _names_follow(self):
        while not self._done.wait(TICK):
            with self._lock:
                text = self.hosts()
                for pod in self.pods:
                    path = Path("/etc/netns", pod.space, "hosts")
                    if path.exists() and path.read_text() != text:
                        path.write_text(text)

    # Files

    def _mounted(self, spec):
        """The folder of each ConfigMap that a pod mounts, by the path in the pod."""
        [container] = spec["containers"]
        maps = {
            v["name"]: v["configMap"]["name"] for v in spec.get("volumes", []) if "configMap" in v
        }
        found = {
            mount["mountPath"]: self._folder / maps[mount["name"]]
            for mount in container.get("volumeMounts", [])
            if mount["name"] in maps
        }
        for folder in found.values():
            if not folder.exists():
                self._write(folder, self.objects["ConfigMap", folder.name]["data"])
        return found

    def _write(self, folder, data):
        """Put files into a folder as a kubelet does: all of them change at one moment."""
        real = folder / f"..{next(self._names)}"
        real.mkdir(parents=True)
        for name, text in data.items():
            (real / name).write_text(text)
        new = folder / "..new"
        new.symlink_to(real.name)
        new.replace(folder / "..data")
        for name in data:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")

    def configure(self, objects):
        """Change ConfigMaps to what they are among these objects."""
        for each in objects:
            if each["kind"] == "ConfigMap":
                self._write(self._folder / each["metadata"]["name"], each["data"])

    # Workloads

    def of(self, workload):
        return [p for p in self.pods if p.owner == workload and not p.ending]

    def _new(self, workload):
        kind = "StatefulSet" if ("StatefulSet", workload) in self.objects else "Deployment"
        template = self.objects[kind, workload]["spec"]["template"]
        number = next(self._numbers)
        name = f"{workload}-{next(self._names)}"
        spec, labels = template["spec"], template["metadata"]["labels"]
        pod = Pod("node", name, labels, spec, number, self._mounted(spec))
        pod.owner = workload
        folder = Path("/etc/netns", pod.space)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts").write_text(self.hosts())
        self._join(pod)
        with self._lock:
            self.pods.append(pod)
        pod.start()
        return pod

    def _end(self, pod):
        self.codes.append((pod.name, pod.end()))
        self._forget(pod)

    def _forget(self, pod):
        with self._lock:
            self.pods.remove(pod)
        ip("netns", "del", pod.space, check=False)
        shutil.rmtree(Path("/etc/netns", pod.space), ignore_errors=True)

    def scale(self, workload, replicas, wait=True):
        have = self.of(workload)
        new = [self._new(workload) for _ in range(replicas - len(have))]
        for pod in have[replicas:]:
            self._end(pod)
        if wait:
            self.wait_ready(new)

    def wait_ready(self, pods=None, seconds=60):
        for pod in list(self.pods if pods is None else pods):
            until(lambda pod=pod: pod.ready, seconds, 0.05)

    def roll(self, workload):
        """A rolling update: of a Deployment one more first, of a StatefulSet one after another."""
        for old in self.of(workload):
            if ("Deployment", workload) in self.objects:
                self.wait_ready([self._new(workload)])
                self._end(old)
            else:
                self._end(old)
                self.wait_ready([self._new(workload)])

    def evict(self, workload):
        """What `kubectl drain` does: the pod ends, and another one is started at once."""
        [old, *_] = self.of(workload)
        new = self._new(workload)
        self._end(old)
        self.wait_ready([new])

    def lose(self, pods):
        """The node of these pods is gone; others are started in their place."""
        for pod in pods:
            port = f"p{pod.address.rpartition('.')[2]}"
            self._in("link", "set", port, "down")
            pod.lose()
        new = []
        for pod in pods:
            pod.ending = True
            new.append(self._new(pod.owner))
        self.wait_ready(new)
        for pod in pods:
            pod.process.kill()
            pod.process.wait()
            self._forget(pod)

    def service(self, end):
        [service] = [o for (k, n), o in self.objects.items() if k == "Service" and n.endswith(end)]
        return service

    def name(self, kind, end):
        [name] = [n for (k, n) in self.objects if k == kind and re.search(end + "$", n)]
        return name

    def __exit__(self, *_):
        self._done.set()
        for pod in list(self.pods):
            pod.lose()
            if pod.process is not None:
                pod.process.terminate()
        for pod in list(self.pods):
            with contextlib.suppress(subprocess.TimeoutExpired):
                pod.process.wait(15)
            pod.process.kill()
            pod.process.wait()
            self._forget(pod)
        ip("netns", "del", self._switch, check=False)
        ip("link", "del", self._host, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)
