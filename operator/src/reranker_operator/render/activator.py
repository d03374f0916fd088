"""The activator of a service that may have no pods: it holds requests until one is there.

Two small pods of the gateway's image, without engine, GPU and API token, and a Service by which
they reach the pods that serve. That one also leads to pods that are not ready yet: the activator
asks them itself, and so need not wait for kubelet, controllers and proxies to agree.
"""

from collections.abc import Mapping
from typing import Final

from reranker_operator import names
from reranker_operator.api.meta import BUDGET, DEPLOYMENT, SERVICE
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.render import security
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.exposure import head
from reranker_operator.render.passthrough import annotations, labels
from reranker_operator.render.pods import Json, container, empty_dir, mount, pod_spec
from reranker_operator.render.serving import (
    GRPC_PORT,
    HTTP_PORT,
    METRICS_PORT,
    aliases_of,
    gateway_environment,
    ports_of,
)

COMPONENT: Final = "activator"
REPLICAS: Final = 2
#: Longest time that a request is held, in seconds.
HOLD_SECONDS: Final = 120
#: What is left of the grace time when those that are held were given up.
_AFTER_DRAIN_SECONDS: Final = 15
_RESOURCES: Final[Json] = {
    "requests": {"cpu": "50m", "memory": "96Mi"},
    "limits": {"memory": "384Mi"},
}
#: Settings of the gateway that are as good for what stands before it.
_SHARED_ENV: Final = frozenset(
    f"RERANKER_{name}"
    for name in (
        "CALLER_HEADER", "GRPC_MAX_MESSAGE_BYTES", "LOG_LEVEL", "MAX_BODY_BYTES",
        "READ_IDLE_SECONDS", "READ_TIMEOUT_SECONDS", "REQUEST_TIMEOUT_SECONDS", "HOLD_SECONDS",
        "MAX_HELD", "MAX_HELD_BYTES",
    )
)  # fmt: skip
_COLD_START: Final = "RERANKER_COLD_START_SECONDS"
#: A few numbers only, so that the pods stay as they are while it takes about as long as before.
_STEPS: Final = (2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 600, 900, 1200)


def selector(service: str) -> dict[str, str]:
    """Labels of the activator's pods."""
    return {names.SERVICE_LABEL: service, names.APP_COMPONENT: COMPONENT}


def pods_service(service: RerankerService, chosen: Mapping[str, str]) -> Json:
    """Leads to the pods that serve, whatever the service's own address leads to."""
    spec: Json = {
        "type": "ClusterIP",
        "publishNotReadyAddresses": True,
        "selector": dict(chosen),
        "ports": [
            {"name": name, "port": port, "targetPort": name}
            | security.protocol(service.spec.serving, name)
            for name, port in ports_of(service).items()
            if name != "metrics"
        ],
    }
    name = names.pods_service(service.metadata.name)
    return head(service, SERVICE, name, "pods") | {"spec": spec}


def budget(service: RerankerService) -> Json:
    """A node drain takes one at a time: each holds requests of its own."""
    spec: Json = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(service.metadata.name)},
    }
    name = names.activator(service.metadata.name)
    return head(service, BUDGET, name, COMPONENT) | {"spec": spec}


def deployment(
    service: RerankerService, defaults: Defaults, model: str | None, cold_start: float | None
) -> Json:
    """`model`: what the model is called where the spec gives no name; `cold_start` in seconds."""
    meta, settings = service.metadata, service.spec.serving.pod
    chosen = selector(meta.name)
    pod = _pod(service, defaults, model, cold_start)
    tags = labels(settings, names.labels(COMPONENT, meta.name) | chosen)
    notes = annotations(settings, {})
    template: Json = {"labels": tags} | ({"annotations": notes} if notes else {})
    spec: Json = {
        "replicas": REPLICAS,
        "revisionHistoryLimit": 0,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
        "selector": {"matchLabels": chosen},
        "template": {"metadata": template, "spec": pod},
    }
    return head(service, DEPLOYMENT, names.activator(meta.name), COMPONENT) | {"spec": spec}


def foretold(seconds: float | None) -> int | None:
    """A measured cold start, rounded up to one of a few numbers of seconds."""
    if seconds is None:
        return None
    return next((step for step in _STEPS if step >= seconds), _STEPS[-1])


def foretold_in(deployment: Mapping[str, object] | None) -> float | None:
    """What the pods of a Deployment are told; None where somebody has made nonsense of it."""
    found: object = deployment
    for key in ("spec", "template", "spec", "containers"):
        found = found.get(key) if isinstance(found, Mapping) else None
    for entry in found if isinstance(found, list) else []:
        for variable in entry.get("env", []):
            if variable["name"] == _COLD_START:
                return _seconds(variable.get("value"))
    return None


def _seconds(text: object) -> float | None:
    try:
        seconds = float(str(text))
    except ValueError:
        return None
    return seconds if 0 < seconds <= _STEPS[-1] else None


def _pod(
    service: RerankerService, defaults: Defaults, model: str | None, cold_start: float | None
) -> Json:
    serving, name = service.spec.serving, service.metadata.name
    backend = names.pods_service(name)
    settings: dict[str, object] = {
        "BACKEND_URL": f"{serving.scheme}://{backend}:{HTTP_PORT}",
        "BACKEND_GRPC": f"{backend}:{GRPC_PORT}" if serving.grpc else None,
        "SERVED_NAME": service.spec.model.served_name or model or name,
        "ALIASES": ",".join(aliases_of(service)) or None,
        "DIALECTS": ",".join(serving.dialects) or None,
        "DRAIN_TIMEOUT_SECONDS": HOLD_SECONDS,
        "COLD_START_SECONDS": None if cold_start is None else f"{cold_start:g}",
    }
    settings |= security.settings(serving)
    shared = [
        {"name": entry.name, "value": entry.value}
        for entry in serving.gateway.env
        if entry.name in _SHARED_ENV and entry.value is not None
    ]
    result = container(
        COMPONENT,
        serving.gateway.image or defaults.gateway_image,
        defaults,
        resources=_RESOURCES,
        mounts=[mount("tmp", "/tmp"), *security.mounts(serving)],  # noqa: S108 - a volume of the pod
        args=["activate"],
        env=gateway_environment(settings) + shared,
    )
    if serving.gateway.image_pull_policy:
        result["imagePullPolicy"] = serving.gateway.image_pull_policy
    pull = tuple(entry.name for entry in serving.pod.image_pull_secrets if entry.name)
    pod = pod_spec(
        defaults,
        containers=[result | _ports_and_probes(service)],
        init_containers=[],
        volumes=[empty_dir("tmp", size="16Mi"), *security.volumes(serving)],
        pull_secrets=pull,
    )
    # An empty list would not come back.
    del pod["initContainers"]
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(name)},
    }
    grace = HOLD_SECONDS + _AFTER_DRAIN_SECONDS
    return pod | {
        "terminationGracePeriodSeconds": grace, "topologySpreadConstraints": [spread],
    }  # fmt: skip


def _ports_and_probes(service: RerankerService) -> Json:
    ready = {"path": "/v1/health/ready", "port": "metrics"}
    live = {"path": "/v1/health/live", "port": "metrics"}
    ports = ports_of(service) | {"metrics": METRICS_PORT}
    return {
        "ports": [{"name": key, "containerPort": port} for key, port in ports.items()],
        "startupProbe": {
            "httpGet": live, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 300,
        },
        "readinessProbe": {
            "httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2,
        },
        "livenessProbe": {
            "httpGet": live, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
    }  # fmt: skip
