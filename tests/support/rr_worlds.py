"""What an API server answers about a service in every state, for the kubectl plugin."""

import datetime
from typing import Any

Json = dict[str, Any]

NOW = datetime.datetime(2026, 1, 5, 12, 0, tzinfo=datetime.UTC)
ENGINE = "demo-model-onnx-cpu-fp32-0e96df9b8d"
OLDER = "demo-model-onnx-cpu-fp32-77aa01b2c3"
_URL = "http://demo.shop.svc:8000"
_MANAGED = {"app.kubernetes.io/managed-by": "reranker-operator"}
_TIMES = [("fetch", 1.25), ("export", 65.0), ("publish-prepared", 3.1)]
_COMPILE_TIMES = [("compile", 2.0), ("validate", 14.4), ("publish", 0.3)]


def ago(seconds: float) -> str:
    """A time as the API writes it."""
    return (NOW - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str, reason: str, message: str = "") -> Json:
    """An entry of `status.conditions`."""
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "observedGeneration": 1, "lastTransitionTime": ago(180),
    }  # fmt: skip


def service(*conditions: Json, stage: str = "", age: float = 300, **status: Any) -> Json:
    """The service `demo`; without conditions it has no status at all."""
    told = {"observedGeneration": 1, "conditions": list(conditions), "stage": stage} | status
    return {
        "metadata": {
            "name": "demo", "namespace": "shop", "uid": "uid-demo", "generation": 1,
            "creationTimestamp": ago(age),
        },
        "spec": {"model": {"source": "hf://org/demo-model"}, "replicas": 1},
        "status": told if conditions else {},
    }  # fmt: skip


def engine(name: str, *conditions: Json, stage: str, taken: list[tuple[str, float]]) -> Json:
    """An engine that `demo` owns a part of."""
    return {
        "metadata": {
            "name": name, "namespace": "shop", "uid": f"uid-{name}",
            "ownerReferences": [{"uid": "uid-demo"}],
        },
        "status": {
            "conditions": list(conditions),
            "stage": stage,
            "stages": [{"name": name, "seconds": seconds} for name, seconds in taken],
        },
    }  # fmt: skip


def built(name: str = ENGINE) -> Json:
    """An engine that is ready."""
    done = [condition(kind, "True", "Done") for kind in ("Prepared", "Compiled", "Validated")]
    done.append(condition("Ready", "True", "Ready"))
    found = engine(name, *done, stage="Ready", taken=[*_TIMES, *_COMPILE_TIMES])
    found["status"] |= {"sizeBytes": 91_900_000, "parity": {"kendallTau": 1.0, "pairs": 122}}
    return found


def pod(name: str, labels: dict[str, str], containers: list[Json], phase: str, age: float) -> Json:
    """A pod; all of `containers` but the last are init containers."""
    specs = [{key: row[key] for key in ("name", "restartPolicy") if key in row}
             for row in containers]  # fmt: skip
    return {
        "metadata": {
            "name": name, "namespace": "shop", "labels": _MANAGED | labels,
            "creationTimestamp": ago(age),
        },
        "spec": {"initContainers": specs[:-1], "containers": specs[-1:]},
        "status": {
            "phase": phase,
            "initContainerStatuses": containers[:-1],
            "containerStatuses": containers[-1:],
        },
    }  # fmt: skip


def running(name: str, since: float = 5, **more: Any) -> Json:
    """A container that runs."""
    return {"name": name, "state": {"running": {"startedAt": ago(since)}}, **more}


def ended(name: str, code: int = 0, took: float = 2) -> Json:
    """A container that has ended."""
    times = {"startedAt": ago(20 + took), "finishedAt": ago(20)}
    return {"name": name, "state": {"terminated": {"exitCode": code, "reason": "Error", **times}}}


def waiting(name: str, reason: str = "PodInitializing", **more: Any) -> Json:
    """A container that waits."""
    return {"name": name, "state": {"waiting": {"reason": reason}}, **more}


def resolver(state: Json, phase: str) -> Json:
    """The pod that resolves the source."""
    labels = {"reranker.dev/service": "demo", "reranker.dev/stage": "resolve"}
    return pod("demo-resolve-1a2b3c-x7k2p", labels, [state], phase, 6)


def builder(step: str, containers: list[Json]) -> Json:
    """The pod of a build's Job."""
    labels = {"reranker.dev/engine": ENGINE, "reranker.dev/stage": step}
    return pod(f"{ENGINE}-{step}-1-x7k2p", labels, containers, "Pending", 24)


def server(revision: str, gateway: Json, triton: Json, phase: str = "Running") -> Json:
    """A pod that serves."""
    labels = {"reranker.dev/service": "demo", "reranker.dev/revision": revision}
    sidecar = {**triton, "restartPolicy": "Always"}
    return pod(
        f"demo-{revision}-5d9f-x7k2p", labels, [ended("verify"), sidecar, gateway], phase, 95
    )


def deployment(revision: str, engine_name: str, ready: int, age: float = 100) -> Json:
    """A revision."""
    labels = {
        "reranker.dev/service": "demo",
        "reranker.dev/revision": revision,
        "reranker.dev/engine": engine_name,
    }
    return {
        "metadata": {
            "name": f"demo-{revision}", "namespace": "shop", "labels": _MANAGED | labels,
            "creationTimestamp": ago(age),
        },
        "spec": {"replicas": 1},
        "status": {"readyReplicas": ready},
    }  # fmt: skip


def model() -> Json:
    """A resolved model, for `status.model`."""
    return {
        "name": "demo-model",
        "architecture": "BertForSequenceClassification",
        "revision": "sha256:0123456789abcdef0123456789abcdef",
    }


_ACCEPTED = condition("Accepted", "True", "Accepted", "the spec can be carried out")
_RESOLVED = condition("ModelResolved", "True", "Resolved", "demo-model at sha256:0123456789ab")
_BUILT = condition("EngineReady", "True", "Built", f"{ENGINE}: Kendall tau 1.0000 (at least 0.995)")
_AVAILABLE = condition("Serving", "True", "Available", "1 of 1 pods are ready")
_NO_ENGINE = condition("Serving", "False", "WaitingForEngine", "waits for the engine")
_UP = {"ready": True, "started": True}


def _resolving() -> dict[str, list[Json]]:
    text = "reading the model's files"
    told = (
        _ACCEPTED,
        condition("ModelResolved", "Unknown", "Resolving", text),
        condition("EngineReady", "Unknown", "WaitingForModel", "waits for the model"),
        _NO_ENGINE,
        condition("Progressing", "True", "WaitingForEngine", "waits for the model"),
        condition("Ready", "False", "Resolving", text),
    )
    return {
        "rerankerservices": [service(*told, stage="Resolving", age=8)],
        "pods": [resolver(running("resolve"), "Running")],
    }


def _building() -> dict[str, list[Json]]:
    text = f"{ENGINE}: validate is running"
    told = (
        _ACCEPTED, _RESOLVED, condition("EngineReady", "Unknown", "Running", text), _NO_ENGINE,
        condition("Progressing", "True", "WaitingForEngine", text),
        condition("Ready", "False", "Running", text),
    )  # fmt: skip
    compiling = [
        condition("Prepared", "True", "Done", "ONNX and tokeniser are ready"),
        condition("Compiled", "Unknown", "Running", "validate is running"),
        condition("Validated", "Unknown", "Pending", "validate is running"),
        condition("Ready", "False", "Running", "validate is running"),
    ]
    containers = [ended("compile", took=2), running("validate", 12), waiting("publish")]
    return {
        "rerankerservices": [service(*told, stage="Validate", model=model())],
        "rerankerengines": [engine(ENGINE, *compiling, stage="Validate", taken=_TIMES)],
        "pods": [builder("compile", containers)],
    }


def _failing() -> dict[str, list[Json]]:
    text = (
        "resolve: org/demo-model does not exist on the hub, or needs a token; check the name or "
        "set spec.model.secretRef (attempt 3 failed, will try again)"
    )
    told = (
        _ACCEPTED,
        condition("ModelResolved", "False", "SourceNotFound", text),
        condition("EngineReady", "Unknown", "WaitingForModel", "waits for the model"),
        _NO_ENGINE,
        condition("Ready", "False", "SourceNotFound", text),
    )
    return {
        "rerankerservices": [service(*told, stage="SourceNotFound")],
        "pods": [resolver(ended("resolve", 1, 3), "Failed")],
    }


def _crashing() -> dict[str, list[Json]]:
    text = "container triton keeps ending (ended with exit code 1; see its log)"
    told = (
        _ACCEPTED, _RESOLVED, _BUILT, condition("Serving", "False", "CrashLoop", text),
        condition("Progressing", "True", "Starting", "0 of 1 pods are ready"),
        condition("Ready", "False", "CrashLoop", text),
    )  # fmt: skip
    triton = waiting("triton", "CrashLoopBackOff", restartCount=4)
    triton["lastState"] = ended("triton", 1)["state"]
    triton["state"]["waiting"]["message"] = "back-off 1m20s restarting failed container=triton"
    return {
        "rerankerservices": [service(*told, stage="CrashLoop", model=model(), revision="1a2b3c4d")],
        "rerankerengines": [built()],
        "deployments": [deployment("1a2b3c4d", ENGINE, 0)],
        "pods": [server("1a2b3c4d", waiting("gateway"), triton, "Pending")],
    }


def _rolling() -> dict[str, list[Json]]:
    text = "revision 9f8e7d6c is starting"
    told = (
        _ACCEPTED, _RESOLVED, _BUILT, _AVAILABLE,
        condition("Progressing", "True", "Rolling", text),
        condition("Ready", "False", "Rolling", text),
    )  # fmt: skip
    status: Json = {"model": model(), "revision": "1a2b3c4d", "readyReplicas": 1, "url": _URL}
    return {
        "rerankerservices": [service(*told, stage="Rolling", **status)],
        "rerankerengines": [built(), built(OLDER)],
        "deployments": [
            deployment("1a2b3c4d", OLDER, 1, age=5000), deployment("9f8e7d6c", ENGINE, 0, age=20),
        ],
        "pods": [
            server("1a2b3c4d", running("gateway", **_UP), running("triton", **_UP)),
            server("9f8e7d6c", waiting("gateway"), running("triton", started=False), "Pending"),
        ],
    }  # fmt: skip


def _ready() -> dict[str, list[Json]]:
    told = (
        _ACCEPTED, _RESOLVED, _BUILT, _AVAILABLE,
        condition("Progressing", "False", "Stable", "revision 1a2b3c4d serves"),
        condition("Ready", "True", "Ready", "ready"),
    )  # fmt: skip
    status: Json = {"model": model(), "revision": "1a2b3c4d", "readyReplicas": 1, "url": _URL}
    return {
        "rerankerservices": [service(*told, stage="Serving", **status)],
        "rerankerengines": [built()],
        "deployments": [deployment("1a2b3c4d", ENGINE, 1)],
        "pods": [
            server(
                "1a2b3c4d",
                running("gateway", **_UP, restartCount=1),
                running("triton", **_UP),
            )
        ],
    }


def _paused() -> dict[str, list[Json]]:
    changes = [f"engine: {ENGINE} → {OLDER} (not built)", "image gateway: gateway:1 → gateway:2"]
    text = (
        "held back: " + "; ".join(changes) + "; set spec.rollout.paused to false to let it happen"
    )
    world = _ready()
    raw = world["rerankerservices"][0]
    raw["spec"]["rollout"] = {"strategy": "surge", "paused": True}
    raw["status"] |= {"stage": "Paused", "pendingChanges": changes}
    raw["status"]["scale"] = {"replicas": 1, "setBy": "gitops"}
    raw["status"]["conditions"][4] = condition("Progressing", "False", "Paused", text)
    return world


def _scaling() -> dict[str, list[Json]]:
    why = "3,000 tokens/s arrive, and a pod does 1,000 tokens/s, of which 70 % count"
    world = _ready()
    raw = world["rerankerservices"][0]
    raw["spec"]["autoscaling"] = {"min": 1, "max": 8}
    ignored = {"replicas": 3, "by": "kubectl", "times": 1, "time": ago(30)}
    raw["status"]["scale"] = {"replicas": 5, "owner": "autoscaling", "ignored": ignored}
    decided = {"desired": 5, "reason": "ScalingOut", "why": why, "time": ago(40)}
    raw["status"]["autoscaling"] = decided
    text = f"5 pods: {why}"
    raw["status"]["conditions"].insert(5, condition("Autoscaled", "True", "ScalingOut", text))
    world["deployments"][0]["spec"]["replicas"] = 5
    return world


def _sleeping() -> dict[str, list[Json]]:
    """Scaled to zero: only the activator has pods."""
    world = _ready()
    raw = world["rerankerservices"][0]
    raw["spec"]["autoscaling"] = {"min": 0, "max": 8}
    raw["status"] |= {"stage": "Sleeping", "replicas": 0, "readyReplicas": 0}
    raw["status"]["scale"] = {"replicas": 0, "owner": "autoscaling", "ignored": {"replicas": 1}}
    raw["status"]["autoscaling"] = {
        "desired": 0, "reason": "LoadMatched", "why": "no request came for 600 s", "time": ago(7300)
    }  # fmt: skip
    world["deployments"][0] |= {"spec": {"replicas": 0}, "status": {}}
    labels = {"reranker.dev/service": "demo", "app.kubernetes.io/component": "activator"}
    meta = world["deployments"][0]["metadata"]
    world["deployments"].append(
        {
            "metadata": meta | {"name": "demo-activator", "labels": _MANAGED | labels},
            "spec": {"replicas": 2},
            "status": {"readyReplicas": 2},
        }
    )
    world["pods"] = [
        pod(f"demo-activator-7c8d-{end}", labels, [running("gateway", ready=True)], "Running", 95)
        for end in ("x7k2p", "y8m3q")
    ]
    return world


def _deleting() -> dict[str, list[Json]]:
    world = _ready()
    world["rerankerservices"][0]["metadata"] |= {
        "deletionTimestamp": ago(30), "finalizers": ["foregroundDeletion"],
    }  # fmt: skip
    world["pods"][0]["metadata"]["deletionTimestamp"] = ago(29)
    return world


#: Objects by plural and state.
WORLDS: dict[str, dict[str, list[Json]]] = {
    "new": {"rerankerservices": [service(age=3)]},
    "resolving": _resolving(),
    "building": _building(),
    "failing": _failing(),
    "crashing": _crashing(),
    "rolling": _rolling(),
    "ready": _ready(),
    "paused": _paused(),
    "scaling": _scaling(),
    "sleeping": _sleeping(),
    "deleting": _deleting(),
}
