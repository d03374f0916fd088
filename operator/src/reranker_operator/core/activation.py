"""Sleep and waking of a service that may have no pods: whom its address leads to meanwhile.

    pods serve ─▶ address to the activator ─▶ seen by its endpoints ─▶ no pods
         ▲                                                                │
         └─────────────── address to the pods ◀─ first pod ready ◀────────┘

At each moment the address leads to somebody who answers or holds: pods only go when the endpoints
of the address are the activator's, and the activator has the address whenever no pod is ready.
Until the activator itself is ready, nothing of this happens and the pods stay.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from reranker_operator import names
from reranker_operator.api.meta import DEPLOYMENT, SERVICE
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.causes.pods import is_ready as pod_is_ready
from reranker_operator.core.plan import Action, Apply, Delete
from reranker_operator.core.replicas import may_sleep, wanted_replicas
from reranker_operator.core.revisions import (
    asked_of,
    is_activators,
    running_of,
)
from reranker_operator.core.world import Manifest, ServiceWorld, is_leaving, owners_of, title_of
from reranker_operator.render import activator as render

#: Seconds between looks at the endpoints, of which nobody tells.
_LOOK_SECONDS = 0.5


def is_needed(world: ServiceWorld) -> bool:
    """The activator and what it needs, also for as long as it has requests."""
    mine = render.selector(world.service.metadata.name)
    return (
        may_sleep(world.service)
        or is_activators(world.k8s_service)
        or _deployment(world) is not None
        or any(_matches(pod, mine) for pod in world.pods)
    )


def pods_to_run(world: ServiceWorld) -> int:
    """The wanted number of pods, or those there are while the address still leads to them."""
    wanted = wanted_replicas(world.service)
    if wanted > 0 or not may_sleep(world.service):
        return wanted
    spec, running = world.service.spec.autoscaling, running_of(world)
    if _has_taken_over(world):
        return 0
    return min(running, spec.max) if spec else running


def stays_awake(world: ServiceWorld) -> bool:
    """No pod is wanted, and yet they must stay for a moment."""
    return wanted_replicas(world.service) == 0 and pods_to_run(world) > 0


def holds(world: ServiceWorld) -> bool:
    """The address leads to the activator, as it was observed."""
    return is_activators(world.k8s_service)


def lead(world: ServiceWorld, actions: Iterable[Action]) -> tuple[Action, ...]:
    """The rollout's actions, with the address led to the activator where it must hold."""
    return tuple(_led(world, action) for action in actions)


def leading(world: ServiceWorld, selector: Mapping[str, str]) -> Mapping[str, str]:
    """Where addresses lead that are to lead to the pods of `selector`."""
    wanted = wanted_replicas(world.service)
    # It also goes on holding after it was taken out of the spec, for pods that are on their way.
    may_hold = may_sleep(world.service) or (holds(world) and wanted > 0)
    if not may_hold or not is_ready(world):
        return selector
    answering = any(
        _matches(pod, selector) and pod_is_ready(pod) and not is_leaving(pod) for pod in world.pods
    )
    awake = wanted > 0 and answering
    return selector if awake else render.selector(world.service.metadata.name)


def is_ready(world: ServiceWorld) -> bool:
    """It can hold requests and hand them on."""
    entry, service = _deployment(world), world.service.metadata
    status = entry.get("status", {}) if entry else {}
    reaches = any(
        title_of(other) == (SERVICE.kind, names.pods_service(service.name))
        and service.uid in owners_of(other)
        for other in world.companions
    )
    return reaches and status.get("availableReplicas", 0) > 0


def actions(world: ServiceWorld, *, led: bool) -> tuple[Action, ...]:
    """What becomes of its Deployment; `led` once there is an address."""
    entry = _deployment(world)
    if may_sleep(world.service):
        if entry is None and not led:
            return ()
        return (Apply(_wanted(world, entry)),)
    if entry is None or is_activators(world.k8s_service) or not _is_left(world):
        return ()
    return (Delete(DEPLOYMENT, entry["metadata"]["name"], entry["metadata"]["uid"]),)


def next_look(world: ServiceWorld) -> float | None:
    """Seconds until the endpoints are worth another look."""
    goes = not may_sleep(world.service) and _deployment(world) is not None
    return _LOOK_SECONDS if goes or (stays_awake(world) and holds(world)) else None


def watched_endpoints(
    service: RerankerService, address: Manifest | None, deployments: Iterable[Manifest]
) -> tuple[str, ...]:
    """Services whose endpoints decide something now."""
    name, found = service.metadata.name, list(deployments)
    activator = names.activator(name)
    others = [entry for entry in found if entry["metadata"]["name"] != activator]
    if may_sleep(service):
        decides = is_activators(address) and any(map(asked_of, others))
    else:
        decides = address is not None and len(others) < len(found)
    if not decides:
        return ()
    outside = service.spec.expose.service.type != "ClusterIP"
    return (name, names.external_service(name)) if outside else (name,)


def ready_endpoints(slices: Iterable[Manifest]) -> frozenset[str]:
    """Names of the pods that get a Service's traffic."""
    return frozenset(
        str(entry["targetRef"]["name"])
        for part in slices
        for entry in part.get("endpoints") or ()
        # No word counts as ready.
        if (entry.get("conditions") or {}).get("ready") is not False and entry.get("targetRef")
    )


def _has_taken_over(world: ServiceWorld) -> bool:
    """Everybody who knows an address of the service reaches the activator."""
    found = _endpoints(world)
    return is_activators(world.k8s_service) and all(
        entry and entry <= _own_pods(world) for entry in found
    )


def _is_left(world: ServiceWorld) -> bool:
    """Nobody who knows an address of the service reaches the activator any more."""
    # Of a service that is switched off nobody follows it.
    nobody = wanted_replicas(world.service) == 0
    return all((entry or nobody) and not entry & _own_pods(world) for entry in _endpoints(world))


def _endpoints(world: ServiceWorld) -> list[frozenset[str]]:
    watched = watched_endpoints(world.service, world.k8s_service, world.deployments)
    return [world.endpoints.get(name, frozenset()) for name in watched]


def _own_pods(world: ServiceWorld) -> set[str]:
    mine = render.selector(world.service.metadata.name)
    return {str(pod["metadata"]["name"]) for pod in world.pods if _matches(pod, mine)}


def _led(world: ServiceWorld, action: Action) -> Action:
    title = (SERVICE.kind, world.service.metadata.name)
    if not isinstance(action, Apply) or title_of(action.manifest) != title:
        return action
    spec: dict[str, Any] = action.manifest["spec"]
    chosen = dict(leading(world, spec["selector"]))
    return Apply(action.manifest | {"spec": spec | {"selector": chosen}}, action.manager)


def _wanted(world: ServiceWorld, entry: Manifest | None) -> dict[str, Any]:
    service, told = world.service, render.foretold_in(entry)
    measured = service.status.cold_start
    found = render.foretold(measured.seconds if measured else None)
    if entry is not None and (found is None or is_activators(world.k8s_service)):
        # Not while it holds requests: to tell it would be to begin it anew.
        return render.deployment(service, world.defaults, _model(service), told)
    return render.deployment(service, world.defaults, _model(service), found)


def _model(service: RerankerService) -> str | None:
    return service.status.model.name if service.status.model else None


def _deployment(world: ServiceWorld) -> Manifest | None:
    name = names.activator(world.service.metadata.name)
    return next(
        (
            entry
            for entry in world.deployments
            if entry["metadata"]["name"] == name and not is_leaving(entry)
        ),
        None,
    )


def _matches(pod: Manifest, selector: Mapping[str, str]) -> bool:
    return selector.items() <= (pod["metadata"].get("labels") or {}).items()
