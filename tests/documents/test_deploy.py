"""The dashboard and the alerts: every series exists, and a real Prometheus can work with them."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.cluster import Cluster, free_port
from tests.helpers.waiting import until
from zstreamer import series
from zstreamer.config import GatewayConfig
from zstreamer.system.process import Process

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD = json.loads((ROOT / "deploy/grafana/zstreamer.json").read_text())

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="no Prometheus here; Debian has a package `prometheus`",
)


def panels():
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def queries():
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_every_series_that_dashboard_and_alerts_name_exists():
    known = {each.name: each for catalog in series.PAGES.values() for each in catalog}
    known |= {
        f"{name}_{end}": each
        for name, each in list(known.items())
        for end in ("bucket", "sum", "count")
        if each.kind == "histogram"
    }
    alerts = re.sub(r"job=~?\"[^\"]*\"", "", RULES.read_text())
    for text in (*queries(), DASHBOARD["templating"]["list"][1]["definition"], alerts):
        for name, selector in re.findall(r"\b(zstreamer_\w+)(?:{([^}]*)})?", text):
            assert name in known, name
            labels = {*known[name].labels, "instance", "job", "le"}
            assert set(re.findall(r"(\w+)[=!]~?\"", selector)) <= labels, text


def test_the_dashboard_is_complete_and_its_panels_do_not_overlap():
    ids = [each["id"] for each in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = set()
    for each in DASHBOARD["panels"]:
        at = each["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not own & cells
        cells |= own
    for each in panels():
        assert each["title"] and each["targets"] and each["fieldConfig"]["defaults"]["unit"]


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert():
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    links = re.findall(r"runbook_url: docs/runbook.md#(\w+)", RULES.read_text())
    runbook = (ROOT / "docs/runbook.md").read_text()
    assert re.findall(r"^## (\w+)$", runbook, re.MULTILINE) == alerts
    assert links == [each.lower() for each in alerts]
    for section in runbook.split("\n## ")[1:]:
        assert all(f"**{word}**" in section for word in ("Means", "Look at", "Do"))


@needs_prometheus
def test_promtool_accepts_the_rules_and_the_configuration():
    for command in (["rules", RULES], ["config", RULES.with_name("prometheus.yml")]):
        subprocess.run(["promtool", "check", *command], check=True, capture_output=True)


@needs_prometheus
def test_a_real_prometheus_scrapes_a_cluster_and_answers_every_query(tmp_path):
    ports = {name: free_port() for name in ("broker", "worker", "gateway", "prometheus")}
    shutil.copy(RULES, tmp_path / "rules.yml")
    config = (RULES.with_name("prometheus.yml")).read_text()
    config = config.replace("15s", "200ms").replace(', "127.0.0.1:9101"', "")
    for name, usual in (("broker", "7789"), ("worker", "9100"), ("gateway", "8000")):
        config = config.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{ports[name]}")
    (tmp_path / "prometheus.yml").write_text(config + "\n")
    command = ["prometheus", f"--web.listen-address=127.0.0.1:{ports['prometheus']}"]
    with (
        Cluster(http_port=ports["broker"]) as cluster,
        Process(
            "zstreamer.web.gateway.parent",
            GatewayConfig(broker=(cluster.address,), port=ports["gateway"], log_level="error"),
        ),
        subprocess.Popen(
            [*command, "--config.file=prometheus.yml", "--storage.tsdb.path=data"],
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
        ) as prometheus,
    ):
        try:
            cluster.worker("Costly", metrics_port=ports["worker"])
            with cluster.client() as client:
                client.wait_ready(30)
                ask = f"http://127.0.0.1:{ports['prometheus']}/api/v1/query?query="
                until(lambda: len(_query(ask, "up == 1")) == 3, 20)
                for _ in range(8):
                    client.predict(["one", "three"])
                    time.sleep(0.25)  # for several scrapes to differ
                until(lambda: _query(ask, 'zstreamer_items_total{outcome="ok"} >= 16'), 10)
            answered = [bool(_query(ask, _filled(query))) for query in queries()]
            assert sum(answered) > 0.8 * len(answered), [
                query for query, good in zip(queries(), answered, strict=True) if not good
            ]
            rules = f"http://127.0.0.1:{ports['prometheus']}/api/v1/rules"
            with urllib.request.urlopen(rules) as response:
                (group,) = json.load(response)["data"]["groups"]
            assert [each["name"] for each in group["rules"] if each["state"] == "firing"] == []
            assert all(each.get("lastError", "") == "" for each in group["rules"])
        finally:
            prometheus.kill()


def _filled(query):
    query = query.replace("$__rate_interval", "5s")
    return query.replace("$model", ".*")


def _query(ask, query):
    try:
        with urllib.request.urlopen(ask + urllib.parse.quote(query), timeout=5) as response:
            answer = json.load(response)
    except ConnectionError:
        return []
    except OSError as error:
        if "refused" in str(error):
            return []
        raise
    assert answer["status"] == "success"
    return answer["data"]["result"]
