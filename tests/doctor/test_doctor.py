"""What the doctor says first of ill clusters; `python -m tests.doctor` has all illnesses."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.doctor import situations
from tests.doctor.situations import MODELS, load
from tests.helpers.cluster import Cluster
from tests.helpers.models import double
from tests.helpers.waiting import until
from zstreamer import Streamer
from zstreamer.doctor import examine
from zstreamer.doctor.evidence import Broker, Sample
from zstreamer.doctor.machines import findings

QUICK = 2.0


@pytest.fixture(scope="module")
def ill():
    """One cluster, and in it a model for each illness, under the load that shows it."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(tcp=True))
        for model, target, settings in (
            ("lonely", "steady", {}),
            ("costly", "Costly", {"max_batch_cost": 40.0}),
            ("failing", "failing", {}),
            ("hung", "hung", {"predict_timeout": 60.0}),
            ("well", "steady", {}),
        ):
            cluster.worker(f"{MODELS}:{target}", model=model, **settings)
        cluster.wait_up()
        for model in ("lonely", "costly", "failing", "hung", "well"):
            until(lambda name=model: cluster.model(name).get("ready"), 30)
        for model, callers in (("lonely", 1), ("costly", 24), ("failing", 2)):
            stack.enter_context(load(cluster, callers, model=model))
        cluster.client(model="hung").submit([1])
        until(lambda: cluster.model("hung")["workers"][0]["batch_age"] > 2, 30)
        yield cluster


CODES = {
    "lonely": ["one-by-one"],
    "costly": ["cost"],
    "failing": ["fails-everything"],
    "hung": ["hangs"],
    "well": [],
    "nobody": ["unknown-model"],
}


def test_each_illness_is_named_and_the_well_model_is_not(ill):
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda m: examine(ill.address, seconds=QUICK, model=m), CODES)
    codes = {m: [f.code for f in r.findings][:1] for m, r in zip(CODES, found, strict=True)}
    assert codes == CODES


def test_an_address_without_a_broker_is_told_by_its_kind():
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        names = ("absent", "absent_socket", "other_server", "keys")
        cases = {name: stack.enter_context(situations.ALL[name]()) for name in names}
        reports = pool.map(lambda case: examine(case.address, seconds=0), cases.values())
        found = {n: [f.code for f in r.findings] for n, r in zip(cases, reports, strict=True)}
    assert found == {name: [case.code] for name, case in cases.items()}


def test_the_port_for_workers_is_known_for_that(ill):
    report = examine(ill.worker_address, seconds=0)
    assert [each.code for each in report.findings] == ["worker-port"]
    assert "7787" in report.findings[0].advice


def test_a_streamer_is_well():
    with Streamer(double, batch_size=4, wait_for_worker_ready=True) as streamer:
        report = streamer.doctor(seconds=0.5)
    assert report.healthy, report
    assert str(report).startswith("nothing is wrong")


def test_the_worst_comes_first_and_each_says_how_it_knows():
    worker = {"id": 1, "host": "h", "pid": 2, "state": "warm", "release": "0.0.9", "time": 0.0}
    broker = {"release": "0.1.0", "memory": 95, "memory_limit": 100, "draining": True}
    snapshot = {"broker": broker, "models": {"m": {"workers": [worker]}}}
    looked = Broker("tcp://h:1", [Sample(1000.0, 0.0, snapshot)])
    found = sorted(findings([looked], "0.1.0"), key=lambda each: -each.severity)
    assert [each.code for each in found] == ["memory", "broker-draining", "releases"]
    assert all(each.evidence and each.advice for each in found)


@pytest.mark.parametrize("odd", [None, {}, {"models": []}, {"broker": 3, "models": {"m": None}}])
def test_a_snapshot_of_another_shape_is_read_as_far_as_it_goes(odd):
    from zstreamer.doctor import batches, models

    looked = Broker("tcp://h:1", [Sample(0.0, 0.0, odd or {})] * 3)
    list(findings([looked], "0.1.0"))
    for model in looked.models.values():
        list(models.findings(model))
        list(batches.findings(looked, model))
