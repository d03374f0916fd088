"""The serving pod: verify, then Triton as a native sidecar, measure for some, then the gateway.

A native sidecar starts before and stops after the gateway, so a draining gateway keeps its
backend. Triton listens on loopback only, where the kubelet can't reach it: its probes are commands.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, TypeGuard

from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.api.pods import ContainerSettings
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.render import proxy, security, shadow
from reranker_operator.render.checks import Checks
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.engines import gpu_labels
from reranker_operator.render.passthrough import annotations, customise, extend, labels, probe
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
from reranker_operator.render.supervision import supervised

HTTP_PORT = 8000
GRPC_PORT = 8001
METRICS_PORT = 8002
_TRITON_PORT = 9001
#: On a volume of the pod that gateway and Triton share.
_DOOMED = "/tmp/doomed"  # noqa: S108
#: Longer than the gateway's drain delay and the longest request together.
_GRACE_SECONDS = 75
#: What is left of it when the gateway has cut off its last request: Triton ends then.
_AFTER_DRAIN_SECONDS = 15
_GPU = "nvidia.com/gpu"
_NOT_OF_PODS = {
    "replicas", "autoscaling", "rollout", "expose", "disruption", "network_policy", "monitoring",
}  # fmt: skip
_LARGEST_TEMPLATE = 1 << 20

_TRITON = [
    "tritonserver",
    "--model-repository=/engine/repository",
    "--model-control-mode=explicit",
    "--load-model=reranker",
    "--disable-auto-complete-config",
    "--strict-readiness=true",
    "--exit-on-error=true",
    "--http-address=127.0.0.1", "--http-port=9000",
    "--grpc-address=127.0.0.1", f"--grpc-port={_TRITON_PORT}",
    "--metrics-address=127.0.0.1", "--metrics-port=9002",
    "--exit-timeout-secs=10",
]  # fmt: skip


def pod_template(
    service: RerankerService,
    engine: RerankerEngine,
    defaults: Defaults,
    references: str | None = None,
) -> Json:
    """The pod that serves `engine` for `service`, without the revision's label.

    `references` tells the versions of the Secrets and ConfigMaps that it uses: other versions are
    another pod.
    """
    spec, settings = service.spec, service.spec.serving.pod
    engine_mount = mount(
        "engine", "/engine", read_only=True, sub_path=f"engines/{engine.spec.digest}"
    )
    tmp = mount("tmp", "/tmp")  # noqa: S108 - a volume of the pod
    shared = mount("shm", "/dev/shm")  # noqa: S108 - a volume of the pod
    gateway_image = spec.serving.gateway.image or defaults.gateway_image
    checks = Checks(
        engine, gateway_image, defaults, [engine_mount, tmp], f"127.0.0.1:{_TRITON_PORT}"
    )
    authorities = proxy.mounts(spec.ca_bundle)
    triton = _triton(service, engine, defaults, [engine_mount, tmp, shared, *authorities])
    secrets = security.mounts(spec.serving)
    gateway = _gateway(
        service,
        gateway_image,
        defaults,
        [engine_mount, tmp, *authorities, *secrets],
        name=spec.model.served_name or engine.spec.model_name,
    )
    pod = pod_spec(
        defaults,
        init_containers=[
            checks.verify(),
            triton,
            *checks.measure(
                spec.engine.parity, _resources(spec.serving.gateway, defaults.gateway_resources)
            ),
        ],
        containers=[gateway],
        volumes=[
            claim_volume("engine", store_claim_name(engine.spec.store), read_only=True),
            empty_dir("tmp", size="256Mi"),
            empty_dir("shm", size="256Mi", memory=True),
            *proxy.volumes(spec.ca_bundle),
            *security.volumes(spec.serving),
        ],
    )
    pod["terminationGracePeriodSeconds"] = (
        settings.termination_grace_period_seconds or _GRACE_SECONDS
    )
    pod |= _placement(service, engine)
    tags = names.labels("serving", service.metadata.name) | {
        names.SERVICE_LABEL: service.metadata.name,
        names.ENGINE_LABEL: engine.metadata.name,
    }
    notes = {names.DIGEST_ANNOTATION: engine.spec.digest}
    if references is not None:
        notes[names.REFERENCES_ANNOTATION] = references
    meta = {"labels": labels(settings, tags), "annotations": annotations(settings, notes)}
    return {"metadata": meta, "spec": extend(pod, service)}


def revision_of(template: Json) -> str:
    """The revision that this pod template is."""
    return names.short_hash(canonical_json(template))


def _packed(text: str) -> str:
    # Not remembered: it takes 0.03 ms, and what tenants write would pile up here.
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def deployment(service: RerankerService, template: Json, replicas: int) -> Json:
    """One revision; its template never changes, a change makes another revision.

    It carries the template as it was rendered: a later operator can no longer make it, but must
    put it right when somebody else changes it, and say how another revision differs from it.
    """
    meta, revision = service.metadata, revision_of(template)
    packed = _packed(canonical_json(template))
    surge = service.spec.rollout.strategy != "noSurge"
    selector = pod_selector(meta.name, revision)
    tags = template["metadata"]["labels"] | selector
    template = template | {"metadata": template["metadata"] | {"labels": tags}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.deployment(meta.name, revision),
            "namespace": meta.namespace,
            "labels": tags,
            "annotations": {
                names.SPEC_HASH: spec_hash(service),
                names.TEMPLATE_ANNOTATION: packed,
            },
            "ownerReferences": [owner_reference(service, controller=True)],
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": 600,
            "strategy": {
                "type": "RollingUpdate",
                # Only for changes by others, and for undoing them.
                "rollingUpdate": {
                    "maxSurge": 1 if surge else 0,
                    "maxUnavailable": 0 if surge else 1,
                },
            },
            "selector": {"matchLabels": selector},
            "template": template,
        },
    }


def template_of(entry: Mapping[str, Any]) -> Json | None:
    """The pod template that a Deployment was made from; None when somebody has damaged it."""
    meta = entry["metadata"]
    packed = meta.get("annotations", {}).get(names.TEMPLATE_ANNOTATION, "")
    try:
        # Bounded: a small annotation can hold a very large text.
        text = zlib.decompressobj().decompress(base64.b64decode(packed), _LARGEST_TEMPLATE)
        template = json.loads(text)
    except (ValueError, RecursionError, zlib.error):
        return None
    if not _is_template(template):
        return None
    intact = revision_of(template) == meta.get("labels", {}).get(names.REVISION_LABEL)
    return template if intact else None


def _is_template(found: Any) -> TypeGuard[Json]:
    """Whoever makes up a template can make up its hash, too."""
    if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
        return False
    pod, meta = found.get("spec"), found["metadata"]
    tags = all(isinstance(meta.get(kind), dict) for kind in ("labels", "annotations"))
    return tags and isinstance(pod, dict) and bool(pod.get("containers"))


def restored(service: RerankerService, entry: Mapping[str, Any], replicas: int) -> Json | None:
    """A Deployment of a former spec or operator as it was made; None when that is not known."""
    template = template_of(entry)
    if template is None:
        return None
    manifest = deployment(service, template, replicas)
    spec = entry["metadata"].get("annotations", {}).get(names.SPEC_HASH, "")
    manifest["metadata"]["annotations"][names.SPEC_HASH] = spec
    return manifest


def spec_hash(service: RerankerService) -> str:
    """Of everything that the user asks of a pod; a new field's default leaves it as it is."""
    asked = service.spec.model_dump(mode="json", exclude=_NOT_OF_PODS, exclude_defaults=True)
    # Of the rollout's settings those that pods are told.
    asked |= shadow.settings(service, HTTP_PORT)
    return names.short_hash(canonical_json(asked), 16)


def pod_selector(service: str, revision: str | None) -> dict[str, str]:
    """Labels of the serving pods of one revision, or of all."""
    if revision is None:
        return {names.SERVICE_LABEL: service, names.APP_COMPONENT: "serving"}
    return {names.SERVICE_LABEL: service, names.REVISION_LABEL: revision}


def service_object(service: RerankerService, revision: str | None) -> Json:
    """The address of the service, leading to the pods of one revision, or of all."""
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
            "selector": pod_selector(meta.name, revision),
            "ports": [
                {"name": name, "port": port, "targetPort": name}
                | security.protocol(service.spec.serving, name)
                for name, port in ports_of(service).items()
            ],
        },
    }


def gateway_environment(settings: Mapping[str, object]) -> list[Json]:
    """Settings of the gateway's program as variables; None is its own default."""
    return [
        {"name": f"RERANKER_{name}", "value": str(value)}
        for name, value in settings.items()
        if value is not None
    ]


def _gateway(
    service: RerankerService, image: str, defaults: Defaults, mounts: list[Json], *, name: str
) -> Json:
    serving = service.spec.serving
    settings: dict[str, object] = {
        "ENGINE_DIR": "/engine",
        "TRITON_URL": f"127.0.0.1:{_TRITON_PORT}",
        "DOOMED_FILE": _DOOMED,
        "TRITON_METRICS_URL": "http://127.0.0.1:9002/metrics",
        "DIALECTS": ",".join(serving.dialects) or None,
        "TRUNCATE": serving.truncate,
        "LONG_PASSAGES": None if serving.long_passages == "cut" else serving.long_passages,
        "MAX_PASSAGES": serving.max_passages,
        "MAX_QUEUE_TOKENS": serving.max_queue_tokens,
        "TOKEN_BUDGET": serving.token_budget,
        # Not as the engine has it: another service may have had the same files under another name.
        "SERVED_NAME": name,
        "ALIASES": ",".join(aliases_of(service)) or None,
        "DRAIN_TIMEOUT_SECONDS": _drain_seconds(serving.pod.termination_grace_period_seconds),
    }
    settings |= security.settings(serving) | shadow.settings(service, HTTP_PORT)
    if serving.gateway.env_from or serving.gateway.env:
        # What they bring must not move the ports: a variable that is given here goes before it,
        # also before those by which NVIDIA's NIMs are set up.
        settings |= {"HOST": "0.0.0.0", "HTTP_PORT": HTTP_PORT, "METRICS_PORT": METRICS_PORT}  # noqa: S104 - the pod's own address
        settings |= {"GRPC_PORT": GRPC_PORT}
    result = container(
        "gateway",
        image,
        defaults,
        resources=_resources(serving.gateway, defaults.gateway_resources),
        mounts=mounts,
        args=["serve"],
        env=gateway_environment(settings)
        + shadow.variables(service)
        + proxy.environment(service.spec.proxy, service.spec.ca_bundle),
    )
    result = customise(result, serving.gateway)
    # Where it is plain HTTP: the kubelet would ask over TLS only if told, and trusts anybody then.
    port = "metrics" if serving.tls else "http"
    # While a pod that ends is still ready, Kubernetes leads to it for want of another one; when
    # there is one, the end itself takes the pod out of the endpoints.
    ready = {"path": "/v1/health/ready?leaving=ready", "port": port}
    live = {"path": "/v1/health/live", "port": port}
    probes = {
        # Starved of CPU, Python takes minutes to start; a restart would only begin them anew.
        "startupProbe": probe(
            {"httpGet": live, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 300},
            serving.gateway.startup_probe,
        ),
        "readinessProbe": probe(
            {"httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 4},
            serving.gateway.readiness_probe,
        ),
        "livenessProbe": probe(
            {"httpGet": live, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
            serving.gateway.liveness_probe,
        ),
    }
    ports = [{"name": name, "containerPort": port} for name, port in ports_of(service).items()]
    return result | {"ports": ports} | probes


def ports_of(service: RerankerService) -> dict[str, int]:
    """Of the gateway, by name."""
    grpc = {"grpc": GRPC_PORT} if service.spec.serving.grpc else {}
    return {"http": HTTP_PORT} | grpc | {"metrics": METRICS_PORT}


def _drain_seconds(grace: int | None) -> int | None:
    """The gateway ends by itself before it would be killed."""
    return None if grace is None else grace - _AFTER_DRAIN_SECONDS


def aliases_of(service: RerankerService) -> tuple[str, ...]:
    """A service always answers to its own name: what clients know is its address."""
    model = service.spec.model
    known = (model.served_name, *model.aliases)
    own = service.metadata.name
    return model.aliases if own in known else (*model.aliases, own)


def _triton(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults, mounts: list[Json]
) -> Json:
    settings, accelerator = service.spec.serving.triton, service.spec.accelerator
    gpu = accelerator.type == "nvidia"
    resources = _resources(settings, defaults.triton_resources)
    if gpu:
        count = str(accelerator.count or 1)
        limits = {**resources.get("limits", {}), accelerator.resource_name or _GPU: count}
        resources = {**resources, "limits": limits}
    # Without it CUDA's FP32 products have 10 bits, which is not what was measured.
    exact = gpu and engine.spec.identity.runtime == "onnxruntime"
    numbers = [{"name": "NVIDIA_TF32_OVERRIDE", "value": "0"}] if exact else []
    result = container(
        "triton",
        settings.image or (defaults.triton_gpu_image if gpu else defaults.triton_image),
        defaults,
        resources=resources,
        mounts=mounts,
        command=supervised(_TRITON, port=_TRITON_PORT, doomed=_DOOMED),
        env=[
            {
                "name": "RERANKER_THREADS",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}},
            },
            *numbers,
            *proxy.environment(service.spec.proxy, service.spec.ca_bundle),
        ],
    )
    ready = {"exec": {"command": ["bash", "-c", _health("/v2/health/ready")]}}
    live = {"exec": {"command": ["bash", "-c", _health("/v2/health/live")]}}
    return customise(result, settings) | {
        "restartPolicy": "Always",
        "startupProbe": probe(
            ready | {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 600},
            settings.startup_probe,
        ),
        "livenessProbe": probe(
            live | {"periodSeconds": 20, "timeoutSeconds": 5, "failureThreshold": 3},
            settings.liveness_probe,
        ),
    }


def _health(path: str) -> str:
    request = rf'printf "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n" >&3'
    return f'exec 3<>/dev/tcp/127.0.0.1/9000 && {request} && grep -q " 200 " <&3'


def _placement(service: RerankerService, engine: RerankerEngine) -> Json:
    accelerator = service.spec.accelerator
    placement: Json = {}
    selector = {**(accelerator.node_selector or {}), **gpu_labels(engine.spec.identity)}
    if selector:
        placement["nodeSelector"] = selector
    if accelerator.tolerations:
        placement["tolerations"] = [entry.to_dict() for entry in accelerator.tolerations]
    return placement


def _resources(settings: ContainerSettings, default: Json) -> dict[str, Any]:
    return dict(settings.resources.to_dict()) if settings.resources else default
