"""Objects beside the Deployment and its Service: addresses outside, budget, policies, monitor.

Builders say what should exist; what this service owns beyond that goes. An object of somebody else
is never taken over, and a kind that the cluster lacks is waited for: the service serves on, and
`Integrated` tells of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reranker_operator import names
from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.api.meta import (
    GRPC_ROUTE,
    HTTP_ROUTE,
    NETWORK_POLICY,
    RERANKER_SERVICE,
    RESOURCES,
    SERVICE,
    SERVICE_MONITOR,
    Resource,
)
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core import activation
from reranker_operator.core.addresses import (
    address_problems,
    amiss,
    backends,
    note,
    outside_url,
    own,
)
from reranker_operator.core.plan import Action, Apply, Delete
from reranker_operator.core.replicas import may_sleep, wanted_replicas
from reranker_operator.core.revisions import led_to
from reranker_operator.core.rollout import Rollout
from reranker_operator.core.world import Manifest, ServiceWorld, is_leaving, owners_of, title_of
from reranker_operator.render import activator, exposure, network, upkeep

#: Seconds until something is looked at again that nobody may tell us of: a name that somebody
#: else has, a kind that is not watched yet.
RECHECK = 60.0

#: Where each optional kind is asked for, and what brings it.
_FIELDS = {
    HTTP_ROUTE: ("spec.expose.route", "the Gateway API"),
    GRPC_ROUTE: ("spec.expose.grpcRoute", "the Gateway API"),
    SERVICE_MONITOR: ("spec.monitoring.serviceMonitor", "the Prometheus operator"),
}

_ROUTES = {HTTP_ROUTE.kind, GRPC_ROUTE.kind}

Title = tuple[str, str]


@dataclass(frozen=True)
class Companions:
    """`before` any pod is made, `after` the rollout; the outside address as it was observed.

    `led`: the service's own address leads somewhere, or will.
    """

    before: tuple[Action, ...]
    after: tuple[Action, ...]
    judgement: Condition
    url: str | None
    requeue_after: float | None
    led: bool


def names_asked(service: RerankerService) -> list[tuple[Resource, str]]:
    """Kind and name of all that the spec asks for, to find out who has these names."""
    wanted = _wanted(service, {}, {}, ["an engine"], operator_namespace="")
    if may_sleep(service):
        wanted += _activators(service, {}, operator_namespace="")
    if service.spec.rollout.strategy in ("blueGreen", "canary"):
        wanted.append(exposure.preview_service(service, ""))
    return [(RESOURCES[entry["kind"]], entry["metadata"]["name"]) for entry in wanted]


def companions(world: ServiceWorld, engine: str | None, rollout: Rollout) -> Companions:
    """What becomes of them now. They lead to where the rollout lets the service's address lead."""
    selector = _selector(world, rollout.actions)
    led = selector is not None
    engines, namespace = _engines(world, engine), world.defaults.operator_namespace
    service, reached = world.service, activation.leading(world, selector or {})
    live = {title_of(entry): entry for entry in world.companions}
    preview = _preview(world, rollout)
    # Another service may have that name, and none of our requests may come to it.
    blocked = preview is not None and _one(world, preview, live.get(title_of(preview)))[0]
    wanted = _wanted(
        service,
        selector or {},
        reached,
        engines,
        operator_namespace=namespace,
        weight=None if blocked else rollout.weight,
        activator_is_there=(needed := activation.is_needed(world)),
    )
    if needed:
        wanted += _activators(service, selector or {}, operator_namespace=namespace)
    if preview is not None:
        # Before the routes that lead to it.
        wanted.insert(0, preview)
    problems: list[Condition] = []
    actions: list[Action] = []
    for manifest in wanted:
        problem, action = _one(world, manifest, live.get(title_of(manifest)))
        problems += [problem] if problem else []
        # Before the first revision there is no address to lead to.
        if action is not None and (led or manifest["kind"] == NETWORK_POLICY.kind):
            actions.append(action)
    actions += _unwanted(world, {title_of(entry) for entry in wanted})
    problems += address_problems(world) if led else []
    return Companions(
        before=tuple(action for action in actions if _is_policy(action)),
        after=tuple(action for action in actions if not _is_policy(action)),
        judgement=_judge(wanted, problems, note(world), led=led),
        url=outside_url(world),
        requeue_after=RECHECK if problems else None,
        led=led,
    )


def _preview(world: ServiceWorld, rollout: Rollout) -> dict[str, Any] | None:
    """The Service of the revision on its way, as long as anybody may be led to it."""
    revision = rollout.preview or (rollout.serving if _leads_to_preview(world) else None)
    return None if revision is None else exposure.preview_service(world.service, revision)


def _leads_to_preview(world: ServiceWorld) -> bool:
    """A route still has it as a backend, or may have, where the operator has no right to look: no
    request may come to an address that is gone.
    """
    name = names.preview_service(world.service.metadata.name)
    if world.forbidden_kinds & _ROUTES and own(world, SERVICE, name) is not None:
        return True
    return any(
        backend.get("name") == name
        for entry in world.companions
        if entry["kind"] in _ROUTES
        for backend in backends(entry)
    )


def _wanted(
    service: RerankerService,
    selector: Mapping[str, str],
    reached: Mapping[str, str],
    engines: Iterable[str],
    *,
    operator_namespace: str,
    weight: int | None = None,
    activator_is_there: bool = False,
) -> list[dict[str, Any]]:
    """`selector` is of the pods that serve, `reached` of those that addresses lead to."""
    made = (
        network.serving_policy(service, operator_namespace, activator_is_there=activator_is_there),
        network.resolve_policy(service),
        network.build_policy(service, engines),
        exposure.external_service(service, reached),
        upkeep.budget(service, selector, wanted_replicas(service)),
        upkeep.service_monitor(service),
        exposure.ingress(service),
        exposure.http_route(service, weight),
        exposure.grpc_route(service, weight),
    )
    return [manifest for manifest in made if manifest is not None]


def _activators(
    service: RerankerService, selector: Mapping[str, str], *, operator_namespace: str
) -> list[dict[str, Any]]:
    """What the activator needs beside its pods."""
    policy = network.activator_policy(service, operator_namespace)
    made = (activator.pods_service(service, selector), activator.budget(service), policy)
    return [manifest for manifest in made if manifest is not None]


def _selector(world: ServiceWorld, rollout: Sequence[Action]) -> Mapping[str, str] | None:
    """Of the pods behind the service's own address, as they will be or are; None before there is
    one.
    """
    title = (SERVICE.kind, world.service.metadata.name)
    planned = (action.manifest for action in rollout if isinstance(action, Apply))
    address = next((entry for entry in planned if title_of(entry) == title), None)
    if address is None and world.k8s_service is not None:
        return led_to(world)
    selector: Mapping[str, str] | None = address["spec"].get("selector") if address else None
    return selector


def _engines(world: ServiceWorld, wanted: str | None) -> set[str]:
    """Engines whose Jobs run for this service."""
    uid = world.service.metadata.uid
    owned = {name for name, owners in world.engine_owners.items() if uid in owners}
    return owned | ({wanted} if wanted else set())


def _one(
    world: ServiceWorld, manifest: Manifest, live: Manifest | None
) -> tuple[Condition | None, Action | None]:
    """What is amiss with one object, and what to do about it."""
    kind, name = title_of(manifest)
    if kind in world.forbidden_kinds | world.missing_kinds:
        forbidden = kind in world.forbidden_kinds
        return (_forbidden if forbidden else _missing)(RESOURCES[kind]), None
    if live is None:
        return None, Apply(dict(manifest))
    if (taken := other_owner(live, world.service)) is not None:
        return taken, None
    if is_leaving(live):
        return amiss(Reason.PENDING, f"{kind} {name} is being deleted, then made anew"), None
    if _must_be_made_anew(live, manifest):
        text = f"Service {name} is made anew for another class of load balancer"
        return amiss(Reason.PENDING, text), Delete(SERVICE, name, live["metadata"]["uid"])
    return None, Apply(dict(manifest))


def _forbidden(resource: Resource) -> Condition:
    text = (
        f"{_FIELDS[resource][0]} needs the kind {resource.kind} of {resource.api_version}, which "
        "the operator has no right to; give it the rights of its chart, or remove the field"
    )
    return amiss(Reason.FORBIDDEN, text)


def _missing(resource: Resource) -> Condition:
    field, product = _FIELDS[resource]
    text = (
        f"{field} needs the kind {resource.kind} of {resource.api_version}, which this cluster "
        f"does not have; install {product}, or remove the field"
    )
    return amiss(Reason.KIND_MISSING, text)


def other_owner(live: Manifest, service: RerankerService) -> Condition | None:
    """Whose the object is when it is not this service's, as a condition."""
    kind, name = title_of(live)
    meta = live["metadata"]
    owners = meta.get("ownerReferences") or []
    if service.metadata.uid in owners_of(live):
        return None
    ours = (meta.get("labels") or {}).get(names.APP_MANAGED_BY) == names.MANAGER
    if ours and not owners:
        # Left behind by a deletion that let its dependents live.
        return None
    former = {"kind": RERANKER_SERVICE.kind, "name": service.metadata.name}
    if ours and all(former.items() <= owner.items() for owner in owners):
        text = f"{kind} {name} is of a deleted service of this name and goes by itself"
        return amiss(Reason.PENDING, text)
    whose = ", ".join(f"{owner['kind']} {owner['name']}" for owner in owners) or "somebody else"
    text = (
        f"{kind} {name} exists and belongs to {whose}; delete or rename it, or rename this "
        f"RerankerService"
    )
    return amiss(Reason.FOREIGN_OWNER, text)


def _must_be_made_anew(live: Manifest, manifest: Manifest) -> bool:
    """The class of a load balancer can't be changed."""
    if live["kind"] != SERVICE.kind or live["spec"].get("type") != "LoadBalancer":
        return False
    made_with = live["metadata"].get("annotations", {}).get(names.BALANCER_ANNOTATION)
    wanted = manifest["metadata"]["annotations"][names.BALANCER_ANNOTATION]
    return bool(manifest["spec"]["type"] == "LoadBalancer" and made_with not in (None, wanted))


def _unwanted(world: ServiceWorld, wanted: set[Title]) -> Iterator[Delete]:
    for entry in world.companions:
        meta = entry["metadata"]
        if (
            title_of(entry) not in wanted
            and world.service.metadata.uid in owners_of(entry)
            and not is_leaving(entry)
        ):
            yield Delete(RESOURCES[entry["kind"]], meta["name"], meta["uid"])


def _judge(
    wanted: Sequence[Manifest], problems: list[Condition], remark: str, *, led: bool
) -> Condition:
    """The gravest first: what people must mend, then what may come by itself."""
    order = (Reason.FORBIDDEN, Reason.KIND_MISSING, Reason.FOREIGN_OWNER, Reason.ROUTE_REFUSED)
    grave = [entry for reason in order for entry in problems if entry.reason == reason]
    if grave:
        return _together([entry for entry in grave if entry.reason == grave[0].reason])
    if wanted and not led:
        text = "made with the first revision"
        return condition(ConditionType.INTEGRATED, "Unknown", Reason.PENDING, text)
    if problems:
        return problems[0]
    made = ", ".join(f"{kind} {name}" for kind, name in sorted(map(title_of, wanted)))
    text = (
        f"made beside the pods: {made}{remark}" if made else "nothing is asked for beside the pods"
    )
    return condition(ConditionType.INTEGRATED, True, Reason.INTEGRATED, text)


def _together(problems: Sequence[Condition]) -> Condition:
    """All that is amiss for one reason, so that nobody mends it piece by piece."""
    return amiss(Reason(problems[0].reason), ". ".join(entry.message for entry in problems))


def _is_policy(action: Action) -> bool:
    return isinstance(action, Apply) and action.manifest["kind"] == NETWORK_POLICY.kind
