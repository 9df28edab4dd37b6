"""Tenants on real processes: a crowd beside somebody else, limits, and limits that change."""

from __future__ import annotations

import threading
import time

import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.servers import Server
from tests.helpers.waiting import until
from zstreamer import errors


def test_a_crowd_of_one_tenant_gets_the_share_of_one():
    with Cluster() as cluster:
        cluster.worker("Sleeper", batch_size=8, init_kwargs={"seconds": 0.01})
        crowd = [cluster.client(tenant="crowd") for _ in range(8)]
        small = cluster.client(tenant="small")
        small.wait_ready(30)
        answered = {"crowd": 0, "small": 0}
        ends = time.monotonic() + 2.0

        def ask(client, name):
            while time.monotonic() < ends:
                client.predict(list(range(40)), timeout=60)
                answered[name] += 40

        threads = [threading.Thread(target=ask, args=(client, "crowd")) for client in crowd]
        threads += [threading.Thread(target=ask, args=(small, "small")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        share = answered["small"] / sum(answered.values())
        assert 0.4 <= share <= 0.6  # by clients it would be a ninth


def test_limits_hold_and_change_while_the_broker_runs(tmp_path):
    file = tmp_path / "tenants.toml"
    file.write_text("[tenants.few]\nitems_per_second = 5\n")
    with Cluster(tenants=str(file)) as cluster:
        cluster.worker("double")
        few, other = cluster.client(tenant="few"), cluster.client(tenant="other")
        other.wait_ready(30)
        assert few.predict([1, 2, 3, 4, 5, 6]) == [2, 4, 6, 8, 10, 12]
        with pytest.raises(errors.Overloaded, match="'few' may send 5 items a second") as caught:
            few.predict([1])
        assert 0 < caught.value.retry_after < 1
        assert other.predict([1]) == [2]
        file.write_text("[tenants.few]\nitems_per_second = 50000\n")

        def let_in():
            try:
                return few.predict(list(range(100))) == [2 * n for n in range(100)]
            except errors.Overloaded:
                return False

        until(let_in)


def test_the_gateways_header_names_the_tenant_only_where_it_was_said(tmp_path):
    file = tmp_path / "tenants.toml"
    file.write_text("[tenants.few]\nitems_per_second = 1\n")
    with Cluster(tcp=True, tenants=str(file)) as cluster:
        cluster.worker("double")
        cluster.client().wait_ready(30)
        command = ("zstreamer", "gateway", "--broker", cluster.address)
        with Server(*command, "--tenant-header", "X-Tenant") as server:
            named = [server.predict(1, headers={"X-Tenant": "few"}) for _ in range(5)]
            assert (named[0].status_code, named[-1].status_code) == (200, 429)
            wait = int(named[-1].headers["Retry-After"])
            assert 1 <= wait <= 5
            assert named[-1].headers["RateLimit-Policy"] == '"items";q=1;w=1;qu="items"'
            assert named[-1].headers["RateLimit"] == f'"items";r=0;t={wait}'
            assert "RateLimit" not in named[0].headers
            assert server.predict(1).status_code == 200
        with Server(*command) as server:
            named = [server.predict(1, headers={"X-Tenant": "few"}) for _ in range(3)]
            assert [each.status_code for each in named] == [200, 200, 200]
