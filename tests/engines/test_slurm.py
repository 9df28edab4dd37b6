"""The sbatch script on a real slurmctld and slurmd: `scripts/engines slurm`."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.load import Load
from tests.helpers.cluster import ROOT, free_port
from tests.helpers.waiting import until
from zstreamer import Client
from zstreamer.client.status import fetch
from zstreamer.errors import BrokerUnreachable
from zstreamer.wire.address_file import read

pytestmark = [pytest.mark.timeout(240), pytest.mark.root]

SCRIPT = ROOT / "deploy" / "slurm" / "zstreamer.sbatch"

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=20
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """One node with all daemons, whose files are in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.daemons = []
        self.env = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),  # the models of the tests
        }

    def run(self, *command, check=True):
        done = subprocess.run(
            [str(each) for each in command],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def __enter__(self):
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        ports = {"ctld": free_port(), "slurmd": free_port()}
        text = CONFIG.format(host=host, folder=self.folder, **ports)
        (self.folder / "slurm.conf").write_text(text)
        munge = self.folder / "munge"
        files = ("socket", "pid-file", "log-file", "seed-file", "key-file")
        names = {"socket": "socket", "key-file": "key"}
        self._start(
            "munged", "--foreground", "--force",
            *(f"--{each}={munge}/{names.get(each, each)}" for each in files),
        )  # fmt: skip
        until((munge / "socket").exists)
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", host)
        until(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T", check=False), 60, 0.2)
        return self

    def _start(self, *command):
        with (self.folder / f"{command[0]}.out").open("w") as out:
            daemon = subprocess.Popen(command, env=self.env, stdout=out, stderr=out)
        self.daemons.append(daemon)

    def __exit__(self, *_):
        self.run("scancel", "--user=root", check=False)
        with contextlib.suppress(AssertionError):
            until(lambda: not self.run("squeue", "-h", check=False), 40, 0.2)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait()


@pytest.fixture
def slurm(tmp_path):
    for each in ("munged", "slurmctld", "slurmd", "sbatch"):
        if not shutil.which(each):
            pytest.skip(f"{each} is not installed")
    if os.geteuid():
        pytest.skip("only root may start Slurm's daemons")
    tmp_path.chmod(0o755)
    with Slurm(tmp_path) as slurm:
        yield slurm


def submit(slurm, name, *settings):
    """Submit a job whose broker writes run-NAME/broker; return its number."""
    run = slurm.folder / f"run-{name}"
    given = f"--export=ALL,ZSTREAMER_RUN={run}", f"--output={slurm.folder}/job-%j.out"
    model = "tests.helpers.models:double", "--log-level=warning"
    job = slurm.run("sbatch", "--parsable", *given, *settings, SCRIPT, *model)
    until((run / "broker").exists, 60, 0.1)
    return job


def warm_workers(slurm, name):
    with contextlib.suppress(BrokerUnreachable):
        path = slurm.folder / f"run-{name}" / "broker"
        model = fetch(read(path, "clients"))["models"].get("default", {})
        return sum(each["state"] == "warm" for each in model.get("workers", ()))
    return 0


def test_a_job_serves_and_another_takes_its_place_under_load(slurm):
    first = submit(slurm, "first", "--ntasks-per-node=2")
    address = f"file:{slurm.folder}/run-*/broker"
    with Client(address, connect_timeout=60, timeout=60) as client:
        client.wait_ready(60)
        with Load(client, callers=4) as load:
            answered, worst = load.go_on(300)
            print(f"\none job of two workers: {answered} answered, worst {worst:.2f} s")
            submit(slurm, "second")
            until(lambda: warm_workers(slurm, "second"), 60, 0.1)
            answered, worst = load.go_on(300)
            print(f"a second job beside it: {answered} answered, worst {worst:.2f} s")
            # As at the end of its time: it drains.
            slurm.run("scancel", "--batch", "--signal=TERM", first)
            until(lambda: "COMPLETED" in slurm.run("scontrol", "show", "job", first), 60, 0.2)
            answered, worst = load.go_on(300)
            print(f"the first one drained: {answered} answered, worst {worst:.2f} s")
        print(load)
        assert load.errors == []
    assert not (slurm.folder / "run-first" / "broker").exists()
