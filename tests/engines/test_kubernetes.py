"""The Helm chart and its pods: `scripts/engines kubernetes`."""

import pytest

from tests.engines.chart import CHART, VALUES, found, helm, rendered, run

validate = pytest.importorskip("kubernetes_validate")
pytestmark = pytest.mark.timeout(120)

VERSIONS = ("1.29", "1.32", "1.34")

OWN = {"ScaledObject", "ServiceMonitor", "PodMonitor", "HTTPRoute", "ClusterServingRuntime"}
"""Kinds that other projects define, so that Kubernetes' own schemas have none for them."""


@pytest.fixture(scope="module", autouse=True)
def tools():
    if helm() is None:
        pytest.skip("helm is not installed")


def of(values):
    return rendered(CHART / "ci" / f"{values}.yaml")


@pytest.mark.parametrize("values", VALUES, ids=lambda each: each.stem)
def test_it_passes_the_strict_lint(values):
    run("lint", "--strict", CHART, "-f", values)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VALUES, ids=lambda each: each.stem)
def test_every_object_is_valid(values, version):
    objects = rendered(values)
    assert objects
    for each in objects:
        if each["kind"] not in OWN:
            validate.validate(each, version, strict=True)
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "zs"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("models.default.gpu=1", "additional properties 'gpu' not allowed"),
        ("broker.replicas=0", "minimum"),
        ("models.default.target=no target", "does not match pattern"),
        ("keys.enabled=true", "name the Secret with"),
        ("gateway.ingress.enabled=true", "gateway.ingress.host"),
    ],
)
def test_values_that_make_no_sense_are_refused(values, words):
    given = CHART / "ci" / "default.yaml"
    done = run("template", "zs", CHART, "-f", given, f"--set={values}", check=False)
    assert done.returncode
    assert words in done.stderr


@pytest.mark.parametrize("values", VALUES, ids=lambda each: each.stem)
def test_a_pod_gets_longer_to_end_than_its_drain_takes(values):
    for each in rendered(values):
        if each["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = each["spec"]["template"]["spec"]
        [container] = pod["containers"]
        [drain] = [a for a in container["args"] if a.startswith("--drain-grace=")]
        stop = container.get("lifecycle", {}).get("preStop", {})
        waits = float(stop["exec"]["command"][1]) if stop else 0.0
        assert pod["terminationGracePeriodSeconds"] >= float(drain.partition("=")[2]) + waits + 5


@pytest.mark.parametrize("values", VALUES, ids=lambda each: each.stem)
def test_pods_are_restricted(values):
    for each in rendered(values):
        if each["kind"] in ("Deployment", "StatefulSet", "Pod"):
            pod = each["spec"] if each["kind"] == "Pod" else each["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["enableServiceLinks"] is False
            for container in pod["containers"]:
                rights = container["securityContext"]
                assert rights["capabilities"] == {"drop": ["ALL"]}
                assert rights["allowPrivilegeEscalation"] is False


def test_workers_and_gateway_find_every_broker_by_the_headless_service():
    objects = of("default")
    service = found(objects, "Service", "-broker")
    assert service["spec"]["clusterIP"] == "None"
    name = service["metadata"]["name"]
    ports = {each["name"]: each["port"] for each in service["spec"]["ports"]}
    for kind, port in (("-worker-default", ports["workers"]), ("-gateway", ports["clients"])):
        [container] = found(objects, "Deployment", kind)["spec"]["template"]["spec"]["containers"]
        assert f"--broker=tcp+dns://{name}:{port}" in container["args"]


def test_the_gateway_waits_for_the_first_model_that_has_a_target():
    objects = rendered(CHART / "values.yaml", "models.zoo.target=m:Zoo")
    for kind, end in (("Deployment", "-gateway"), ("Pod", "-test")):
        spec = found(objects, kind, end)["spec"]
        [container] = spec.get("template", {"spec": spec})["spec"]["containers"]
        assert "--model=zoo" in container["args"]


def test_gpus_are_limits_beside_what_else_is_limited():
    [container] = found(of("gpus"), "Deployment", "-bert")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "32Gi"}
    assert container["image"] == "registry.example/bert:1.2-cuda"
    assert "--model=resnet_50" in str(found(of("gpus"), "Deployment", "-resnet-50"))


def test_keda_scales_on_the_workers_that_are_wanted():
    objects = of("autoscaling")
    scaled = found(objects, "ScaledObject")
    [trigger] = scaled["spec"]["triggers"]
    assert 'zstreamer_wanted_workers{model="default",namespace="models"}' in str(trigger)
    assert trigger["metadata"]["threshold"] == "1"
    assert "replicas" not in found(objects, "Deployment", "-worker-default")["spec"]


def test_each_version_is_a_deployment_that_scales_by_itself():
    objects = of("versions")
    deployments = {
        each["metadata"]["name"].partition("-worker-")[2]: each["spec"]
        for each in objects
        if each["kind"] == "Deployment" and "-worker-" in each["metadata"]["name"]
    }
    assert set(deployments) == {"bert--1", "bert--2-0-cu12", "bert--distilled", "resnet"}
    pods = {name: spec["template"]["spec"] for name, spec in deployments.items()}
    for name, version, target, image, gpus in (
        ("bert--1", "1", "bert_model:ManagedBertModel", "registry.example/bert:1", 1),
        (
            "bert--2-0-cu12",
            "2.0+cu12",
            "bert_model:ManagedBertModel",
            "registry.example/bert:2.0",
            1,
        ),
        ("bert--distilled", "distilled", "bert_model:Distilled", "registry.example/bert:1", 0),
        ("resnet", None, "vision:ResNet", "registry.example/bert:1", 0),
    ):
        [container] = pods[name]["containers"]
        versions = [a for a in container["args"] if a.startswith("--version=")]
        assert versions == ([f"--version={version}"] if version else [])
        assert container["args"][0] == target
        assert container["image"] == image
        limits = container["resources"].get("limits", {})
        assert limits.get("nvidia.com/gpu", 0) == gpus
    labels = [spec["selector"]["matchLabels"] for spec in deployments.values()]
    for each in labels:
        covers = [other for other in labels if each.items() <= other.items()]
        assert len(covers) == 1, "a Deployment would take over another one's pods"
    [trigger] = found(objects, "ScaledObject", "-bert--2-0-cu12")["spec"]["triggers"]
    assert 'model="bert@2.0+cu12",namespace="models"' in trigger["metadata"]["query"]
    assert "replicas" not in deployments["bert--2-0-cu12"]
    assert deployments["bert--1"]["replicas"] == 4


def test_brokers_read_the_routes_that_the_values_say(tmp_path):
    from zstreamer.broker import routes_file
    from zstreamer.broker.routes import Route

    objects = of("versions")
    file = tmp_path / "routes.toml"
    file.write_text(found(objects, "ConfigMap", "-routes")["data"]["routes.toml"])
    assert routes_file.read(file) == {
        "bert": Route({"1": 90.0, "2.0+cu12": 10.0}, {"2.0+cu12": 2}, "distilled", 0.25),
        "stable": Route(alias="bert@1"),
    }
    pod = found(objects, "StatefulSet")["spec"]["template"]["spec"]
    [container], [volume], [mount] = (
        pod["containers"],
        pod["volumes"],
        pod["containers"][0]["volumeMounts"],
    )
    assert f"--routes={mount['mountPath']}/routes.toml" in container["args"]
    assert volume["configMap"]["name"] == found(objects, "ConfigMap")["metadata"]["name"]
    assert "subPath" not in mount, "a change would not reach the pod"
    text = str(of("default"))
    assert "ConfigMap" not in text
    assert "--routes" not in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("routes.bert.hold.1=5", "routes.bert.hold.1 is 5, and replicas of that version is 4"),
        ("models.bert.versions.2\\.0-CU12.replicas=1", "rename one"),
        ("models.bert.versions.a@b.replicas=1", "does not match pattern"),
        ("models.bert.versions.1.versions.2.replicas=1", "'versions' not allowed"),
        ("routes.bert.weight=1", "additional properties 'weight' not allowed"),
        ("routes.stable.shadow=2", "maxProperties"),
    ],
)
def test_versions_and_routes_that_make_no_sense_are_refused(values, words):
    given = CHART / "ci" / "versions.yaml"
    done = run("template", "zs", CHART, "-f", given, f"--set={values}", check=False)
    assert done.returncode
    assert words in done.stderr


def test_keys_are_mounted_and_insecure_is_not_said():
    folder = "/etc/zstreamer/keys"
    for each in of("keys"):
        if each["kind"] in ("Deployment", "StatefulSet"):
            pod = each["spec"]["template"]["spec"]
            [container] = pod["containers"]
            assert "--insecure" not in container["args"]
            mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            if container["name"] == "broker":
                assert f"--keys={folder}" in container["args"]
                assert mounts == {
                    f"{folder}/broker.key_secret": "broker",
                    f"{folder}/clients": "clients",
                    f"{folder}/workers": "workers",
                }
            else:
                assert f"--keys={folder}/key_secret" in container["args"]
                assert folder in mounts
            modes = [v["secret"]["defaultMode"] for v in pod["volumes"] if "secret" in v]
            assert modes and set(modes) == {0o440}, "what others may read is refused"


def test_only_workers_reach_the_port_for_workers():
    [rule] = [
        each
        for each in found(of("default"), "NetworkPolicy", "-broker")["spec"]["ingress"]
        if each["ports"] == [{"port": "workers"}]
    ]
    [peer] = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "worker"


def test_nothing_is_left_of_what_is_turned_off():
    kinds = {each["kind"] for each in of("bare")}
    assert kinds == {"Service", "StatefulSet", "Deployment", "ClusterServingRuntime", "Pod"}


def test_every_flag_is_one_that_its_program_has():
    from zstreamer.config import BrokerConfig, GatewayConfig, WorkerConfig
    from zstreamer.setting import settings

    known = {
        name: {one.flag for one in settings(program)}
        for name, program in (
            ("broker", BrokerConfig),
            ("worker", WorkerConfig),
            ("gateway", GatewayConfig),
        )
    }
    for values in VALUES:
        for each in rendered(values):
            if each["kind"] in ("Deployment", "StatefulSet"):
                [container] = each["spec"]["template"]["spec"]["containers"]
                _, program = container["command"]
                flags = {a.partition("=")[0] for a in container["args"] if a.startswith("--")}
                assert flags <= known[program]
