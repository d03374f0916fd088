"""What a service adds to its pods: all of it arrives, and nothing of ours gives way."""

from typing import Any

import pytest

from reranker_operator.api import reserved
from reranker_operator.api.v1alpha1 import EngineSource, RerankerEngine, RerankerService
from reranker_operator.render import jobs, serving
from reranker_operator.render.defaults import Defaults

Json = dict[str, Any]

POD: Json = {
    "labels": {"team": "search", "app.kubernetes.io/name": "mine"},
    "annotations": {"note": "x", "reranker.dev/engine-digest": "mine"},
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"x": [1]}}},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
        {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule",
         "labelSelector": {"matchLabels": {"a": "b"}}},
    ],
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "schedulerName": "volcano",
    "serviceAccountName": "reader",
    "imagePullSecrets": [{"name": "extra"}, {"name": "registry"}],
    "terminationGracePeriodSeconds": 300,
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub"]}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.2"], "options": []},
    "volumes": [{"name": "certs", "secret": {"secretName": "tls"}}, {"name": "log", "emptyDir": {}},
                {"name": "info", "downwardAPI": {"items": [{"path": "labels"}]}}],
    "initContainers": [{"name": "wait", "image": "busybox", "restartPolicy": "Always"}],
    "sidecars": [
        {"name": "agent", "image": "agent:1", "args": ["$(KEY)"],
         "securityContext": {"readOnlyRootFilesystem": False, "runAsUser": 1000},
         "env": [{"name": "EMPTY", "value": ""}],
         "ports": [{"containerPort": 9100}],
         "livenessProbe": {"tcpSocket": {"port": 9100}},
         "volumeMounts": [{"name": "log", "mountPath": "/log"}]},
    ],
}  # fmt: skip
CONTAINERS: Json = {
    "gateway": {
        "imagePullPolicy": "Always",
        "env": [{"name": "RERANKER_LOG_LEVEL", "value": "DEBUG"},
                {"name": "HTTP_PROXY", "value": "http://mine:1"}],
        "envFrom": [{"secretRef": {"name": "more"}}],
        "volumeMounts": [{"name": "certs", "mountPath": "/certs", "readOnly": True}],
        "readinessProbe": {"periodSeconds": 1},
        "startupProbe": {"failureThreshold": 30},
    },
    "triton": {"startupProbe": {"failureThreshold": 1200}, "env": [{"name": "RERANKER_THREADS",
                                                                    "value": "4"}]},
}  # fmt: skip
NETWORK: Json = {
    "proxy": {"httpsProxy": "http://proxy:3128", "httpProxy": "http://proxy:3128",
              "noProxy": "10.0.0.0/8,"},
    "caBundle": {"secret": {"name": "authorities", "key": "bundle.pem"}},
}  # fmt: skip

SECURITY: Json = {
    "auth": {"secretRef": {"name": "callers"}},
    "tls": {"secretName": "rank-tls"},
}


@pytest.fixture
def full(service: RerankerService) -> RerankerService:
    raw = service.model_dump(mode="json", by_alias=True, exclude_none=True)
    spec = raw["spec"] | NETWORK
    spec["serving"] = spec["serving"] | CONTAINERS | SECURITY | {"pod": POD}
    return RerankerService.model_validate(raw | {"spec": spec})


@pytest.fixture
def template(full: RerankerService, engine: RerankerEngine, defaults: Defaults) -> Json:
    return serving.pod_template(full, engine, defaults)


def _container(pod: Json, name: str) -> Json:
    (found,) = [c for c in [*pod["initContainers"], *pod["containers"]] if c["name"] == name]
    assert isinstance(found, dict)
    return found


def _env(container: Json) -> dict[str, Any]:
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names)), "the API server refuses a variable that is there twice"
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def test_labels_and_annotations_of_ours_win(template: Json) -> None:
    meta = template["metadata"]
    assert meta["labels"]["team"] == "search"
    assert meta["labels"]["app.kubernetes.io/name"] == "reranker"
    assert meta["annotations"]["note"] == "x"
    assert len(meta["annotations"]["reranker.dev/engine-digest"]) == 64


def test_the_pod_takes_what_is_given(template: Json) -> None:
    pod = template["spec"]
    for key in ("affinity", "priorityClassName", "runtimeClassName", "schedulerName",
                "serviceAccountName", "hostAliases", "dnsPolicy"):  # fmt: skip
        assert pod[key] == POD[key]
    assert pod["dnsConfig"] == {"nameservers": ["10.0.0.2"]}, "the server drops empty lists"
    assert [entry["key"] for entry in pod["tolerations"]] == ["gpu", "spot"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}, {"name": "extra"}]
    assert pod["automountServiceAccountToken"] is False
    assert {"name": "info", "downwardAPI": {"items": [{"path": "labels"}]}} in pod["volumes"]
    zone, rack = pod["topologySpreadConstraints"]
    assert zone["labelSelector"] == {"matchLabels": {"reranker.dev/service": "rank"}}
    assert zone["matchLabelKeys"] == ["reranker.dev/revision"]
    assert rack["labelSelector"] == {"matchLabels": {"a": "b"}}
    assert "matchLabelKeys" not in rack


def test_containers_stand_in_an_order_that_works(template: Json) -> None:
    pod = template["spec"]
    assert [entry["name"] for entry in pod["initContainers"]] == ["verify", "wait", "triton"]
    assert [entry["name"] for entry in pod["containers"]] == ["gateway", "agent"]
    assert _container(pod, "wait")["restartPolicy"] == "Always"


def test_further_containers_have_our_security(template: Json) -> None:
    agent = _container(template["spec"], "agent")
    assert agent["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "runAsUser": 1000,
        "capabilities": {"drop": ["ALL"]},
    }
    assert agent["args"] == ["$(KEY)"], "theirs, as Kubernetes has it"
    assert agent["ports"] == [{"containerPort": 9100, "protocol": "TCP"}]
    assert "command" not in agent


def test_our_containers_keep_what_is_ours(template: Json) -> None:
    gateway, triton = (_container(template["spec"], name) for name in ("gateway", "triton"))
    env = _env(gateway)
    assert env["RERANKER_LOG_LEVEL"] == "DEBUG"
    assert env["RERANKER_ENGINE_DIR"] == "/engine"
    assert env["RERANKER_HTTP_PORT"] == "8000", "envFrom must not move it"
    assert _env(triton)["RERANKER_THREADS"] == "4"
    assert gateway["imagePullPolicy"] == "Always"
    assert gateway["envFrom"] == [{"secretRef": {"name": "more"}}]
    assert gateway["readinessProbe"]["periodSeconds"] == 1
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/v1/health/ready?leaving=ready"
    assert gateway["startupProbe"]["failureThreshold"] == 30
    assert triton["startupProbe"] | {"exec": None} == {
        "exec": None, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1200,
    }  # fmt: skip
    assert triton["restartPolicy"] == "Always"


def test_requests_in_progress_end_before_the_pod_is_killed(template: Json) -> None:
    assert template["spec"]["terminationGracePeriodSeconds"] == 300
    env = _env(_container(template["spec"], "gateway"))
    assert env["RERANKER_DRAIN_TIMEOUT_SECONDS"] == "285"


def test_proxy_and_authorities_reach_the_pods(template: Json) -> None:
    pod = template["spec"]
    for name in ("gateway", "triton"):
        container = _container(pod, name)
        env = _env(container)
        assert env["https_proxy"] == env["HTTPS_PROXY"] == "http://proxy:3128"
        # Triton is asked at loopback, by clients that heed the proxy.
        assert env["no_proxy"] == "10.0.0.0/8,localhost,127.0.0.1,.svc,.cluster.local"
        (path,) = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "ca-bundle"]
        assert env["SSL_CERT_FILE"] == env["REQUESTS_CA_BUNDLE"] == f"{path}/ca.crt"
    assert _env(_container(pod, "gateway"))["HTTP_PROXY"] == "http://mine:1"
    assert "SSL_CERT_FILE" not in str(_container(pod, "verify"))
    assert {
        "name": "ca-bundle",
        "secret": {"secretName": "authorities", "items": [{"key": "bundle.pem", "path": "ca.crt"}]},
    } in pod["volumes"]


def test_of_a_build_only_what_fetches_gets_out(
    full: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    source = EngineSource(
        source="hf://org/tiny", proxy=full.spec.proxy, ca_bundle=full.spec.ca_bundle
    )
    built = engine.model_copy(update={"spec": engine.spec.model_copy(update={"source": source})})
    prepare = jobs.prepare_job(built, 1, defaults, None)["spec"]["template"]["spec"]
    resolve = jobs.resolve_job(full, source, "k", 1, defaults)["spec"]["template"]["spec"]
    holders = {
        entry["name"]
        for pod in (prepare, resolve)
        for entry in [*pod["initContainers"], *pod["containers"]]
        if "HTTPS_PROXY" in str(entry) and "/etc/ca-bundle/ca.crt" in str(entry)
    }
    assert holders == {"fetch", "resolve"}
    compiled = jobs.compile_job(built, 1, defaults, None)
    assert "proxy" not in str(compiled).lower()


def test_a_plain_service_gets_nothing(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    text = str(serving.pod_template(service, engine, defaults))
    for word in (
        "PROXY",
        "ca-bundle",
        "envFrom",
        "affinity",
        "topologySpread",
        "DRAIN",
        "HOST",
        "KEYS",
        "TLS",
    ):
        assert word not in text


def test_what_is_reserved_is_what_we_use(template: Json) -> None:
    pod = template["spec"]
    ours = {"verify", "triton", "gateway"}
    theirs = {entry["name"] for entry in POD["volumes"]}
    # That one is only there for engines of TensorRT-RTX.
    assert set(reserved.CONTAINERS) == ours | {"measure"}
    assert {entry["name"] for entry in pod["volumes"]} - theirs == set(reserved.VOLUMES)
    containers = [_container(pod, name) for name in ours]
    mounted = {
        mount["mountPath"]
        for entry in containers
        for mount in entry["volumeMounts"]
        if mount["name"] not in theirs
    }
    assert mounted <= set(reserved.PATHS)
    gateway = _container(pod, "gateway")
    assert {port["containerPort"] for port in gateway["ports"]} <= set(reserved.PORTS)
    assert {port["name"] for port in gateway["ports"]} <= set(reserved.PORT_NAMES)
    given = {entry["name"] for entry in CONTAINERS["gateway"]["env"]}
    made = {name for name in _env(gateway) if name.startswith("RERANKER_")} - given
    assert made <= set(reserved.GATEWAY_ENV)
    labels = set(template["metadata"]["labels"]) - set(POD["labels"])
    assert all(key in reserved.LABELS or key.startswith(reserved.PREFIX) for key in labels)


def test_keys_and_certificates_are_mounted_and_never_read(
    template: Json, full: RerankerService
) -> None:
    pod = template["spec"]
    sources = {entry["name"]: entry for entry in pod["volumes"]}
    assert sources["api-keys"]["secret"] == {"secretName": "callers"}
    assert sources["tls"]["secret"] == {"secretName": "rank-tls"}
    holders = {
        entry["name"]
        for entry in [*pod["initContainers"], *pod["containers"]]
        if {mount["name"] for mount in entry.get("volumeMounts", ())} & {"api-keys", "tls"}
    }
    assert holders == {"gateway"}
    gateway = _container(pod, "gateway")
    mounts = {entry["name"]: entry for entry in gateway["volumeMounts"]}
    variables = {"api-keys": "RERANKER_API_KEYS_DIR", "tls": "RERANKER_TLS_DIR"}
    for name, variable in variables.items():
        # A part of a volume is never brought up to date.
        assert mounts[name] == {
            "name": name, "mountPath": _env(gateway)[variable], "readOnly": True,
        }  # fmt: skip
    probed = {
        gateway[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")
    }
    assert probed == {"metrics"}
    ports = serving.service_object(full, "r")["spec"]["ports"]
    assert {port["name"]: port.get("appProtocol") for port in ports} == {
        "http": "https", "grpc": "https", "metrics": None,
    }  # fmt: skip


def test_plain_pods_are_probed_at_the_api(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    pod = serving.pod_template(service, engine, defaults)["spec"]
    assert _container(pod, "gateway")["readinessProbe"]["httpGet"]["port"] == "http"
    ports = serving.service_object(service, "r")["spec"]["ports"]
    assert {port["name"]: port.get("appProtocol") for port in ports} == {
        "http": None, "grpc": "kubernetes.io/h2c", "metrics": None,
    }  # fmt: skip
