"""What a cluster shows of things that go wrong, and ways to bring them about.

Words of the scheduler, the kubelet, the controllers and the API server are those of Kubernetes
1.35.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reranker_contracts import Stage, StageReason, StageResult
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.conditions import Reason
from reranker_operator.errors import OperatorError

from .controllers import NAMESPACE, Fault
from .simulation import Simulation

Provoke = Callable[[Simulation], None]
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Cause:
    """One cause: what makes it, where it is told, and words of the message.

    `after_ready` makes it happen to a service that serves; `lasting`: no time mends it.
    """

    reason: Reason | StageReason
    kind: str
    words: tuple[str, ...]
    provoke: Provoke
    spec: Json = field(default_factory=dict)
    after_ready: bool = False
    lasting: bool = False
    name: str = ""

    @property
    def id(self) -> str:
        return self.name or self.reason.value


# What a cluster says of pods.


def pending(message: str, reason: str = "Unschedulable") -> Json:
    """What the scheduler says of a pod that it can't place."""
    return {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-05T12:00:00Z",
            }
        ],
    }  # fmt: skip


def nodes_lack(what: str) -> Json:
    """With what the preemption has to add to it."""
    return pending(
        f"0/3 nodes are available: {what}. preemption: 0/3 nodes are available: 3 Preemption is "
        "not helpful for scheduling."
    )


def placed(
    *,
    init: list[Json] | None = None,
    main: list[Json] | None = None,
    phase: str = "Pending",
    ready: str = "False",
    containers_ready: str | None = None,
    since: str = "2026-01-05T12:00:00Z",
    **more: Any,
) -> Json:
    """A pod on a node, with its containers."""
    unready = {} if ready == "True" else {"reason": "ContainersNotReady"}
    if containers_ready is not None:
        # The node's controller changes the status and nothing else.
        unready = {}
    return {
        "phase": phase,
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": since},
            {"type": "Ready", "status": ready, "lastTransitionTime": since, **unready},
            {"type": "ContainersReady", "status": containers_ready or ready},
            *more.pop("conditions", []),
        ],
        "initContainerStatuses": init or [],
        "containerStatuses": main or [],
        **more,
    }


def container(name: str, state: Json, **more: Any) -> Json:
    return {
        "name": name, "image": f"{name}:1", "imageID": "", "ready": False, "restartCount": 0,
        "started": False, "state": state, "lastState": {}, **more,
    }  # fmt: skip


def waiting(name: str, reason: str, message: str = "") -> Json:
    return container(name, {"waiting": {"reason": reason, "message": message}})


def dead(name: str, code: int, reason: str = "Error", message: str = "") -> Json:
    end = {
        "exitCode": code, "reason": reason, "message": message,
        "startedAt": "2026-01-05T12:00:00Z", "finishedAt": "2026-01-05T12:00:09Z",
    }  # fmt: skip
    return container(name, {"terminated": end})


def looping(name: str, code: int, reason: str = "Error", message: str = "") -> Json:
    """Between two restarts."""
    back_off = {"reason": "CrashLoopBackOff", "message": f"back-off 40s restarting {name}"}
    last = dead(name, code, reason, message)["state"]
    return container(name, {"waiting": back_off}, restartCount=3, lastState=last)


def verified() -> Json:
    return dead("verify", 0, "Completed")


def triton_up() -> Json:
    return container("triton", {"running": {}}, ready=True, started=True)


def gateway_up(**more: Any) -> Json:
    running = {"running": {"startedAt": "2026-01-05T12:00:00Z"}}
    return container("gateway", running, started=True, **more)


def creating(*names: str) -> list[Json]:
    return [waiting(name, "PodInitializing") for name in names]


# Ways to provoke.


def told(stage: str, status: Json) -> Provoke:
    def provoke(sim: Simulation) -> None:
        sim.told[stage] = status

    return provoke


def pull(reason: str, message: str) -> Provoke:
    """Of the model's image, in the Job that resolves it."""
    init = [waiting("source", reason, message)]
    init[0]["image"] = "registry.example/models/tiny:1"
    return told("resolve", placed(init=init, main=creating("resolve")))


def refused(stage: str, reason: StageReason) -> Provoke:
    """A stage fails for a reason of its own, each time anew."""

    def provoke(sim: Simulation) -> None:
        sim.faults[stage] = [Fault("refused", reason)] * 3

    return provoke


def no_pods(message: str) -> Provoke:
    def provoke(sim: Simulation) -> None:
        sim.refusal = message

    return provoke


def no_right(verb: str, kind: str, error: Exception) -> Provoke:
    def provoke(sim: Simulation) -> None:
        sim.defects_are_expected = not isinstance(error, OperatorError)
        sim.cluster.refusals[verb, kind] = error

    return provoke


def stuck(stage: str, status: Json, reason: str, message: str) -> Provoke:
    """A pod of which only an Event says what holds it up."""

    def provoke(sim: Simulation) -> None:
        sim.told[stage] = status
        sim.event_of_pods = (reason, message)

    return provoke


def unbound(claim: Json, *events: tuple[str, str]) -> Provoke:
    """The store's claim and what its Events say."""

    def provoke(sim: Simulation) -> None:
        sim.told["prepare"] = pending(
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
        )
        sim.claim_told, sim.events_of_claims = claim, events

    return provoke


def nodes(why: str, *entries: Json) -> Provoke:
    """What the cluster has for nodes, and what its scheduler says of them."""

    def provoke(sim: Simulation) -> None:
        sim.told["serving"] = nodes_lack(why)
        for entry in entries:
            sim.cluster.put(entry)

    return provoke


def gpu_node(name: str, *taints: Json) -> Json:
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {}},
        "spec": {"taints": list(taints)}, "status": {"allocatable": {GPU: "4"}},
    }  # fmt: skip


def theirs(kind: str, name: str, api_version: str = "v1") -> Provoke:
    def provoke(sim: Simulation) -> None:
        meta = {"name": name, "namespace": NAMESPACE}
        entry = {"apiVersion": api_version, "kind": kind, "metadata": meta, "spec": {"own": True}}
        sim.cluster.put(entry)

    return provoke


def verify_says(reason: StageReason) -> Provoke:
    said = StageResult(stage=Stage.VERIFY, ok=False, reason=reason, message="words", seconds=1)
    verify = looping("verify", 1, message=said.to_message())
    return told("serving", placed(init=[verify], main=creating("gateway")))


def serving(*init: Json, main: Json | None = None, **more: Any) -> Provoke:
    statuses = list(init) or [verified(), triton_up()]
    return told("serving", placed(init=statuses, main=[main or creating("gateway")[0]], **more))
