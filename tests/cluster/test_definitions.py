"""What the API server does with manifests: refuse with the field path, fill in, keep immutable."""

from typing import Any

import pytest
from support.kubectl import Json, Kubectl, KubectlError

pytestmark = pytest.mark.cluster


def service(spec: Json, name: str = "x") -> Json:
    return {
        "apiVersion": "reranker.dev/v1alpha1",
        "kind": "RerankerService",
        "metadata": {"name": name},
        "spec": spec,
    }


HUB = {"source": "hf://org/model"}
OCI = {"source": "oci://registry/model:v1"}


def registry(**settings: Any) -> Json:
    place = {"repository": "oci://registry.example/engines"}
    return {"model": HUB, "engine": {"registry": place | settings}}


def pod(**settings: Any) -> Json:
    return {"serving": {"pod": settings}}


def gateway(**settings: Any) -> Json:
    return {"serving": {"gateway": settings}}


MOUNT = {"name": "mine", "mountPath": "/mine"}
MINE = {"name": "mine", "emptyDir": {}}
EXTRA = {"name": "agent", "image": "agent:1"}
#: What would undo something of ours, or could never run.
PODS: list[tuple[Json, str]] = [
    (pod(labels={"reranker.dev/service": "x"}), "are the operator's own; choose other keys"),
    (pod(labels={"app.kubernetes.io/name": "x"}), "are the operator's own; choose other keys"),
    (pod(annotations={"reranker.dev/references": "x"}), "choose other keys"),
    (pod(volumes=[MINE | {"name": "engine"}]), "a volume can't be called engine, tmp"),
    (pod(volumes=[MINE, MINE]), "Duplicate value"),
    (pod(volumes=[{"name": "a"}]), "a volume needs exactly one of"),
    (pod(volumes=[MINE | {"secret": {"secretName": "a"}}]), "a volume needs exactly one of"),
    (pod(volumes=[{"name": "a", "hostPath": {"path": "/"}}]), "unknown field"),
    (pod(volumes=[{"name": "a", "projected": {"sources": [{}]}}]), "a source needs exactly one"),
    (pod(sidecars=[EXTRA | {"name": "triton"}]), "a container can't be called verify, triton"),
    (pod(initContainers=[EXTRA | {"name": "verify"}]), "a container can't be called verify"),
    (pod(sidecars=[EXTRA], initContainers=[EXTRA]), "can't share a name; rename one"),
    (pod(sidecars=[EXTRA | {"ports": [{"containerPort": 8000}]}]), "are the operator's own"),
    (
        pod(sidecars=[EXTRA | {"ports": [{"containerPort": 80, "name": "http"}]}]),
        "are the operator's own; choose others",
    ),
    (
        pod(sidecars=[EXTRA | {"ports": [{"containerPort": 80, "hostPort": 80}]}]),
        "unknown field",
    ),
    (pod(sidecars=[EXTRA | {"securityContext": {"privileged": True}}]), "unknown field"),
    (
        pod(sidecars=[EXTRA | {"securityContext": {"runAsUser": 0}}]),
        "should be greater than or equal to 1",
    ),
    (pod(sidecars=[EXTRA | {"volumeMounts": [MOUNT]}]), "may only name volumes of"),
    (pod(terminationGracePeriodSeconds=5), "should be greater than or equal to 30"),
    (pod(dnsPolicy="None"), "needs serving.pod.dnsConfig"),
    (gateway(volumeMounts=[MOUNT]), "serving.gateway.volumeMounts may only name volumes of"),
    (
        {"serving": {"pod": {"volumes": [MINE]},
                     "gateway": {"volumeMounts": [MOUNT | {"mountPath": "/engine/model.json"}]}}},
        "mountPath can't be /engine",
    ),
    (
        {"serving": {"pod": {"volumes": [MINE]},
                     "triton": {"volumeMounts": [MOUNT | {"mountPath": "/x/../engine"}]}}},
        "should match",
    ),
    (gateway(env=[{"name": "RERANKER_HTTP_PORT", "value": "1"}]), "the operator sets this"),
    (gateway(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "Duplicate value"),
    (
        gateway(env=[{"name": "A", "value": "1",
                      "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        "value and valueFrom exclude each other",
    ),
    (gateway(env=[{"name": "A", "valueFrom": {}}]), "valueFrom needs exactly one of"),
    (gateway(envFrom=[{"prefix": "A_"}]), "needs exactly one of configMapRef and secretRef"),
    ({"proxy": {"noProxy": "a"}}, "proxy needs httpProxy or httpsProxy"),
    ({"proxy": {"httpProxy": "proxy:3128"}}, "spec.proxy.httpProxy"),
    ({"caBundle": {}}, "caBundle needs exactly one of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"model": HUB, "modle": 1}, 'unknown field "spec.modle"'),
        ({}, "spec.model: Required value"),
        ({"model": HUB, "replicas": "three"}, "spec.replicas: Invalid value"),
        ({"model": HUB, "replicas": -1}, "spec.replicas in body should be greater than or equal"),
        ({"model": HUB, "autoscaling": {}}, "spec.autoscaling.max: Required value"),
        (
            {"model": HUB, "autoscaling": {"min": 3, "max": 2}},
            "autoscaling.min is greater than autoscaling.max",
        ),
        ({"model": HUB, "engine": {"maxLength": 4}}, "spec.engine.maxLength"),
        ({"model": HUB, "engine": {"runtime": "tflite"}}, "spec.engine.runtime: Unsupported value"),
        ({"model": HUB, "accelerator": {"count": 2}}, "need accelerator.type nvidia"),
        (
            {"model": OCI | {"secretRef": {"name": "s"}}},
            "for oci:// use model.imagePullSecret",
        ),
        ({"model": HUB | {"imagePullSecret": "s"}}, "for others use model.secretRef"),
        ({"model": OCI | {"revision": "v2"}}, "model.revision is not for oci:// and pvc://"),
        ({"model": HUB | {"endpoint": "https://h"}}, "are for s3:// sources"),
        ({"model": {"source": "https://h/m.tar.gz"}}, "must be the archive's hash"),
        ({"model": {"source": "cross-encoder/ms-marco"}}, "write hf://ORG/NAME"),
        (
            {"model": {"source": "https://huggingface.co/cross-encoder/ms-marco"}},
            "is a page of the Hugging Face hub",
        ),
        (
            {"model": {"source": "https://h/m.tar.gz", "revision": "sha256:abc"}},
            "must be the archive's hash",
        ),
        (
            {
                "model": {
                    "source": "https://h/m.tar.gz",
                    "revision": f"sha256:{'a' * 64}",
                    "secretRef": {"name": "s"},
                }
            },
            "model.secretRef is for hf://, ngc:// and s3:// sources",
        ),
        (
            {"model": {"source": "s3://models/m", "endpoint": "https://user:pw@h"}},
            "spec.model.endpoint in body should match",
        ),
        (
            {"model": HUB | {"adapter": {"source": "oci://registry/lora:1"}}},
            "model.adapter.source is hf://ORG/NAME or pvc://CLAIM/PATH",
        ),
        (
            {"model": HUB | {"adapter": {"source": "pvc://c/lora", "revision": "v2"}}},
            "model.adapter.revision is for hf:// sources",
        ),
        (
            {"model": HUB | {"template": "{query} {query} {passage}"}},
            "model.template needs {query} and {passage}",
        ),
        ({"model": HUB | {"labels": []}}, "spec.model.labels"),
        ({"model": HUB | {"pooling": "max"}}, "spec.model.pooling: Unsupported value"),
        (
            {
                "model": HUB,
                "engine": {"store": {"existingClaim": "a", "storageClassName": "b"}},
            },
            "exclude each other",
        ),
        (
            {"model": HUB, "engine": {"store": {"existingClaim": "../../kube-system/secrets/x"}}},
            "is not the name of a Kubernetes object",
        ),
        ({"model": {"source": "pvc://../x"}}, "model.source names no volume claim"),
        (
            {"model": HUB, "engine": {"resources": {"requests": {"cpu": "lots"}}}},
            "spec.engine.resources.requests.cpu in body should match",
        ),
        (
            {"model": HUB, "expose": {"service": {"nodePort": 30080}}},
            "set expose.service.type to NodePort or LoadBalancer",
        ),
        (
            {"model": HUB, "expose": {"service": {"type": "NodePort", "sourceRanges": ["::/0"]}}},
            "need expose.service.type LoadBalancer",
        ),
        ({"model": HUB, "expose": {"ingress": {"tlsSecret": "t"}}}, "list the host names"),
        (
            {"model": HUB, "rollout": {"gates": {"shadow": {}}}},
            "set rollout.strategy to canary, or to blueGreen with blueGreen.previewSeconds",
        ),
        (
            {"model": HUB, "rollout": {"strategy": "blueGreen", "gates": {"shadow": {}}}},
            "compares while the former revision has the traffic",
        ),
        ({"model": HUB, "expose": {"route": {}}}, "spec.expose.route.parentRefs: Required value"),
        (
            {"model": HUB, "disruption": {"minAvailable": 1, "maxUnavailable": 1}},
            "exclude each other",
        ),
        ({"model": HUB, "disruption": {"minAvailable": "half"}}, "or a share up to 100%"),
        ({"model": HUB, "disruption": {"maxUnavailable": "0%"}}, "would block every drain"),
        ({"model": HUB, "disruption": {"maxUnavailable": 0}}, "would block every drain"),
        (
            {"model": HUB, "networkPolicy": {"clients": [{}]}},
            "give one of the two",
        ),
        (
            {
                "model": HUB,
                "networkPolicy": {
                    "egress": [{"to": [{"podSelector": {}, "ipBlock": {"cidr": "::/0"}}]}]
                },
            },
            "networkPolicy.egress[].to[] is either an ipBlock",
        ),
        (
            {"model": HUB, "monitoring": {"serviceMonitor": {"interval": "often"}}},
            "spec.monitoring.serviceMonitor.interval",
        ),
        (registry(repository="oci://registry.example/engines:v1"), "registry.repository in body"),
        (registry(repository="https://registry.example/engines"), "registry.repository in body"),
        (registry(pull=False), "engine.registry does nothing"),
        (registry(build=False, push=True), "build false waits for what others push"),
        (registry(signKey={"name": "s"}), "signKey signs what is pushed"),
        (registry(pull=False, push=True, requireSigned={"secret": {"name": "s"}}), "is pulled"),
        (registry(requireSigned={}), "either a configMap or a secret"),
        (
            {
                "model": HUB,
                "engine": {
                    "image": "mine:1",
                    "registry": {"repository": "oci://r.example/e", "secretName": "s"},
                },
            },
            "only given to the operator's own builder image",
        ),
        *[({"model": HUB} | part, message) for part, message in PODS],
    ],
)
def test_bad_manifests_are_refused_with_the_field(
    api: Kubectl, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(KubectlError) as refused:
        api.apply(service(spec))
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["a" * 41, "1st", "a.b"])
def test_names_that_no_service_could_have_are_refused(api: Kubectl, name: str) -> None:
    with pytest.raises(KubectlError, match="at most 40 characters"):
        api.apply(service({"model": HUB}, name))


def test_defaults_scale_and_columns(api: Kubectl) -> None:
    api.apply(service({"model": HUB}, "plain"))
    spec = api.get("rr", "plain")["spec"]
    assert spec["replicas"] == 1
    assert spec["engine"]["parity"] == {"minKendallTau": 0.995, "maxNdcgDelta": 0.002}
    assert spec["serving"]["truncate"] == "NONE"
    api("scale", "rr", "plain", "--replicas=3")
    assert api.get("rr", "plain")["spec"]["replicas"] == 3
    head = api("get", "rr", "plain").splitlines()[0].split()
    assert head == ["NAME", "MODEL", "ENGINE", "READY", "STAGE", "REPLICAS", "URL", "AGE"]
    api("delete", "rr", "plain")


def test_what_is_asked_for_beside_the_pods_is_taken(api: Kubectl) -> None:
    spec = {
        "expose": {
            "service": {"type": "LoadBalancer", "sourceRanges": ["10.0.0.0/8"]},
            "ingress": {"hosts": ["*.example.com"], "tlsSecret": "t"},
            "route": {"parentRefs": [{"name": "edge"}]},
        },
        "disruption": {"minAvailable": "50%"},
        "networkPolicy": {
            "enabled": True,
            "clients": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "builderEgress": [],
        },
        "monitoring": {"serviceMonitor": {}},
    }
    api.apply(service({"model": HUB} | spec, "beside"))
    api.apply(service({"model": HUB, "disruption": {"maxUnavailable": 1}}, "beside"))
    assert api.get("rr", "beside")["spec"]["expose"] == {
        "service": {"port": 8000, "type": "ClusterIP"}
    }
    api("delete", "rr", "beside")


def test_scores_are_compared_by_strategies_that_have_time_for_it(api: Kubectl) -> None:
    gates = {"gates": {"shadow": {"percent": 7}}}
    for strategy in (
        {"strategy": "canary"},
        {"strategy": "blueGreen", "blueGreen": {"previewSeconds": 60}},
        {"strategy": "blueGreen", "blueGreen": {"autoPromote": False}},
    ):
        api.apply(service({"model": HUB, "rollout": strategy | gates}, "compared"))
        kept = api.get("rr", "compared")["spec"]["rollout"]["gates"]["shadow"]
        assert kept == {"percent": 7, "minKendallTau": 0.95, "minRequests": 50}
    api("delete", "rr", "compared")


def test_a_pod_with_everything_is_taken(api: Kubectl) -> None:
    more: Json = {
        "volumes": [MINE, {"name": "certs", "secret": {"secretName": "tls"}}],
        "sidecars": [EXTRA | {"volumeMounts": [MOUNT],
                              "livenessProbe": {"exec": {"command": ["x"]}},
                              "ports": [{"containerPort": 9100}]}],
        "initContainers": [EXTRA | {"name": "wait", "restartPolicy": "Always"}],
        "labels": {"team": "search"},
        "affinity": {"podAntiAffinity": {"x": [{"weight": 1}]}},
    }  # fmt: skip
    api.apply(service({"model": HUB} | pod(**more), "all"))
    kept = api.get("rr", "all")["spec"]["serving"]["pod"]
    assert kept["affinity"] == more["affinity"], "what is open keeps its fields"
    assert kept["sidecars"][0]["ports"] == [{"containerPort": 9100, "protocol": "TCP"}]
    assert kept["sidecars"][0]["livenessProbe"] == {"exec": {"command": ["x"]}}
    api("delete", "rr", "all")


def test_only_settings_of_the_build_may_change_in_an_engine(api: Kubectl) -> None:
    toolchain = dict.fromkeys(
        ("torch", "transformers", "tokenizers", "peft", "onnx", "onnxruntime"), "1"
    )
    identity = {"prepared": "0" * 64, "runtime": "onnxruntime", "precision": "fp32",
                "accelerator": "cpu", "maxBatchSize": 8, "version": "1", "recipe": 1}  # fmt: skip
    spec: Json = {
        "digest": "0" * 64,
        "modelName": "m",
        "source": {"source": "hf://org/model", "secretRef": {"name": "hub"}},
        "prepare": {"revision": "1", "toolchain": toolchain | {"recipe": 1}},
        "identity": identity,
        "build": {"image": "builder:1"},
        "store": {},
    }
    engine: Json = {"apiVersion": "reranker.dev/v1alpha1", "kind": "RerankerEngine"}
    engine |= {"metadata": {"name": "fixed"}}
    api.apply(engine | {"spec": spec})
    changed = {
        "source": {"source": "hf://org/model"},
        "build": {"image": "builder:2", "resources": {"limits": {"memory": "4Gi"}}},
    }
    api.apply(engine | {"spec": spec | changed})
    assert "secretRef" not in api.get("rre", "fixed")["spec"]["source"]
    for frozen in (
        {"digest": "1" * 64},
        {"modelName": "n"},
        {"prepare": spec["prepare"] | {"revision": "2"}},
        {"identity": identity | {"maxBatchSize": 9}},
        {"store": {"storageClassName": "fast"}},
    ):
        with pytest.raises(KubectlError, match="change the RerankerService instead"):
            api.apply(engine | {"spec": spec | frozen})
    api("delete", "rre", "fixed")


def test_every_field_is_explained(api: Kubectl) -> None:
    text = api("explain", "rr.spec", "--recursive=false")
    groups = ("expose", "disruption", "networkPolicy", "monitoring")
    for field in ("model", "engine", "accelerator", "serving", "replicas", *groups):
        assert field in text
    for field in ("engine", *groups, "expose.ingress", "expose.route", "expose.service"):
        assert "<no description>" not in api("explain", f"rr.spec.{field}")
