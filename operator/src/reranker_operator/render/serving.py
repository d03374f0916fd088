"""The serving pod: verify, then Triton as a native sidecar, then the gateway.

A native sidecar starts before and stops after the gateway, so a draining gateway keeps its
backend. Triton listens on loopback only, where the kubelet can't reach it: its probes are commands.
"""

from typing import Any

from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.api.v1alpha1 import ContainerSettings, RerankerEngine, RerankerService
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.pods import (
    Json,
    claim_volume,
    container,
    empty_dir,
    mount,
    owner_reference,
    pod_spec,
    store_claim_name,
)

HTTP_PORT = 8000
METRICS_PORT = 8002
#: Longer than the gateway's drain delay and the longest request together.
_GRACE_SECONDS = 75
_GPU = "nvidia.com/gpu"
_NOT_OF_PODS = {"replicas", "expose", "disruption", "network_policy", "monitoring"}

_TRITON = [
    "tritonserver",
    "--model-repository=/engine/repository",
    "--model-control-mode=explicit",
    "--load-model=reranker",
    "--disable-auto-complete-config",
    "--strict-readiness=true",
    "--exit-on-error=true",
    "--http-address=127.0.0.1", "--http-port=9000",
    "--grpc-address=127.0.0.1", "--grpc-port=9001",
    "--metrics-address=127.0.0.1", "--metrics-port=9002",
    "--exit-timeout-secs=10",
]  # fmt: skip


def pod_template(service: RerankerService, engine: RerankerEngine, defaults: Defaults) -> Json:
    """The pod that serves `engine` for `service`, without the revision's label."""
    spec = service.spec
    engine_mount = mount(
        "engine", "/engine", read_only=True, sub_path=f"engines/{engine.spec.digest}"
    )
    tmp = mount("tmp", "/tmp")  # noqa: S108 - a volume of the pod
    shared = mount("shm", "/dev/shm")  # noqa: S108 - a volume of the pod
    gateway_image = spec.serving.gateway.image or defaults.gateway_image
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
    verify = container(
        "verify", gateway_image, defaults, resources=small, mounts=[engine_mount, tmp],
        args=["verify", "--engine", "/engine", "--digest", engine.spec.digest,
              "--result", "/dev/termination-log"],
    )  # fmt: skip
    triton = _triton(service, defaults, [engine_mount, tmp, shared])
    gateway = _gateway(service, gateway_image, defaults, [engine_mount, tmp])
    pod = pod_spec(
        defaults,
        init_containers=[verify, triton],
        containers=[gateway],
        volumes=[
            claim_volume("engine", store_claim_name(engine.spec.store), read_only=True),
            empty_dir("tmp", size="256Mi"),
            empty_dir("shm", size="256Mi", memory=True),
        ],
    )
    pod["terminationGracePeriodSeconds"] = _GRACE_SECONDS
    pod |= _placement(service)
    labels = names.labels("serving", service.metadata.name) | {
        names.SERVICE_LABEL: service.metadata.name,
        names.ENGINE_LABEL: engine.metadata.name,
    }
    annotations = {names.DIGEST_ANNOTATION: engine.spec.digest}
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod}


def deployment(service: RerankerService, revision: str, template: Json) -> Json:
    """One revision; its template never changes, a change makes another revision."""
    meta = service.metadata
    selector = {names.SERVICE_LABEL: meta.name, names.REVISION_LABEL: revision}
    labels = template["metadata"]["labels"] | selector
    template = template | {"metadata": template["metadata"] | {"labels": labels}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.deployment(meta.name, revision),
            "namespace": meta.namespace,
            "labels": labels,
            "annotations": {names.SPEC_HASH: spec_hash(service)},
            "ownerReferences": [owner_reference(service, controller=True)],
        },
        "spec": {
            "replicas": service.spec.replicas,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": 600,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": selector},
            "template": template,
        },
    }


def spec_hash(service: RerankerService) -> str:
    """Of everything that the user asks of a pod; a new field's default leaves it as it is."""
    asked = service.spec.model_dump(mode="json", exclude=_NOT_OF_PODS, exclude_defaults=True)
    return names.short_hash(canonical_json(asked), 16)


def service_object(service: RerankerService, revision: str) -> Json:
    """The address of the service, leading to the pods of one revision."""
    meta = service.metadata
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": names.labels("serving", meta.name) | {names.SERVICE_LABEL: meta.name},
            "ownerReferences": [owner_reference(service, controller=True)],
        },
        "spec": {
            "type": "ClusterIP",
            "selector": {names.SERVICE_LABEL: meta.name, names.REVISION_LABEL: revision},
            "ports": [
                {"name": "http", "port": HTTP_PORT, "targetPort": "http"},
                {"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"},
            ],
        },
    }


def _gateway(service: RerankerService, image: str, defaults: Defaults, mounts: list[Json]) -> Json:
    serving, model = service.spec.serving, service.spec.model
    settings: dict[str, object] = {
        "ENGINE_DIR": "/engine",
        "TRITON_URL": "127.0.0.1:9001",
        "TRITON_METRICS_URL": "http://127.0.0.1:9002/metrics",
        "TRUNCATE": serving.truncate,
        "MAX_PASSAGES": serving.max_passages,
        "MAX_QUEUE_TOKENS": serving.max_queue_tokens,
        "TOKEN_BUDGET": serving.token_budget,
        "SERVED_NAME": model.served_name,
        "ALIASES": ",".join(model.aliases) or None,
    }
    result = container(
        "gateway",
        image,
        defaults,
        resources=_resources(serving.gateway, defaults.gateway_resources),
        mounts=mounts,
        args=["serve"],
        env=[
            {"name": f"RERANKER_{name}", "value": str(value)}
            for name, value in settings.items()
            if value is not None
        ],
    )
    ready = {"path": "/v1/health/ready", "port": "http"}
    live = {"path": "/v1/health/live", "port": "http"}
    return result | {
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 2,
                           "failureThreshold": 2},
        "livenessProbe": {"httpGet": live, "initialDelaySeconds": 10, "periodSeconds": 10,
                          "timeoutSeconds": 5, "failureThreshold": 6},
    }  # fmt: skip


def _triton(service: RerankerService, defaults: Defaults, mounts: list[Json]) -> Json:
    settings, accelerator = service.spec.serving.triton, service.spec.accelerator
    gpu = accelerator.type == "nvidia"
    resources = _resources(settings, defaults.triton_resources)
    if gpu:
        count = str(accelerator.count or 1)
        limits = {**resources.get("limits", {}), accelerator.resource_name or _GPU: count}
        resources = {**resources, "limits": limits}
    result = container(
        "triton",
        settings.image or (defaults.triton_gpu_image if gpu else defaults.triton_image),
        defaults,
        resources=resources,
        mounts=mounts,
        command=_TRITON,
        env=[
            {
                "name": "RERANKER_THREADS",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}},
            }
        ],
    )
    probe = {"exec": {"command": ["bash", "-c", _health("/v2/health/ready")]}}
    live = {"exec": {"command": ["bash", "-c", _health("/v2/health/live")]}}
    return result | {
        "restartPolicy": "Always",
        "startupProbe": probe | {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 600},
        "livenessProbe": live | {"periodSeconds": 20, "timeoutSeconds": 5, "failureThreshold": 3},
    }


def _health(path: str) -> str:
    request = rf'printf "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n" >&3'
    return f'exec 3<>/dev/tcp/127.0.0.1/9000 && {request} && grep -q " 200 " <&3'


def _placement(service: RerankerService) -> Json:
    accelerator = service.spec.accelerator
    placement: Json = {}
    if accelerator.node_selector:
        placement["nodeSelector"] = accelerator.node_selector
    if accelerator.tolerations:
        placement["tolerations"] = [entry.to_dict() for entry in accelerator.tolerations]
    return placement


def _resources(settings: ContainerSettings, default: Json) -> dict[str, Any]:
    return dict(settings.resources.to_dict()) if settings.resources else default
