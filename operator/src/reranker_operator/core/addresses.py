"""Addresses outside the cluster, as the objects that make them tell of them.

An Ingress with a host name has that address from the start: many controllers never report one.
A load balancer has none before its status names one, and a route leads nowhere before a Gateway
has accepted it.
"""

from collections.abc import Iterator, Sequence

from reranker_operator import names
from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.api.exposure import ParentRef
from reranker_operator.api.meta import GRPC_ROUTE, HTTP_ROUTE, INGRESS, SERVICE, Resource
from reranker_operator.core.wording import advise, quote
from reranker_operator.core.world import Manifest, ServiceWorld, owners_of, title_of

_JUDGED = ("Accepted", "ResolvedRefs")


def outside_url(world: ServiceWorld) -> str | None:
    """The address for clients outside: of the Ingress, the route, the load balancer."""
    urls = (_ingress_url(world), _route_url(world), _balancer_url(world))
    return next((url for url in urls if url is not None), None)


def address_problems(world: ServiceWorld) -> list[Condition]:
    """What is missing for the addresses that are asked for."""
    return [*_route_problems(world), *_balancer_problems(world)]


def note(world: ServiceWorld) -> str:
    """What is no problem for sure: a controller that says nothing of an Ingress may serve it."""
    live = own(world, INGRESS, world.service.metadata.name)
    if live is None or _reported(live):
        return ""
    return f"; no controller has told an address of Ingress {live['metadata']['name']} so far"


def own(world: ServiceWorld, resource: Resource, name: str) -> Manifest | None:
    """What is beside the pods by this name, if it is the service's own."""
    uid = world.service.metadata.uid
    for entry in world.companions:
        if title_of(entry) == (resource.kind, name) and uid in owners_of(entry):
            return entry
    return None


def backends(route: Manifest) -> Iterator[Manifest]:
    """Whom a route leads to, by all of its rules."""
    for rule in route["spec"].get("rules") or ():
        yield from rule.get("backendRefs") or ()


def _ingress_url(world: ServiceWorld) -> str | None:
    asked = world.service.spec.expose.ingress
    live = own(world, INGRESS, world.service.metadata.name)
    if asked is None or live is None:
        return None
    host = _named(asked.hosts) or (None if asked.hosts else _reported(live))
    scheme = "https" if asked.tls_secret else "http"
    return f"{scheme}://{host}{_base(asked.paths)}" if host else None


def _route_url(world: ServiceWorld) -> str | None:
    asked = world.service.spec.expose.route
    if asked is None or not _accepted(own(world, HTTP_ROUTE, world.service.metadata.name)):
        return None
    host = _named(asked.hostnames)
    port = next((f":{ref.port}" for ref in asked.parent_refs if ref.port not in _USUAL), "")
    return f"{asked.scheme}://{host}{port}{_base(asked.paths)}" if host else None


#: Ports that an address leaves out.
_USUAL = (None, 80, 443)


def _balancer_url(world: ServiceWorld) -> str | None:
    live = _balancer(world)
    host = _reported(live) if live else None
    spec = world.service.spec
    return f"{spec.serving.scheme}://{host}:{spec.expose.service.port}" if host else None


def _balancer(world: ServiceWorld) -> Manifest | None:
    if world.service.spec.expose.service.type != "LoadBalancer":
        return None
    return own(world, SERVICE, names.external_service(world.service.metadata.name))


def _named(hosts: tuple[str, ...]) -> str | None:
    """The first that is one name, not a pattern."""
    return next((host for host in hosts if not host.startswith("*")), None)


def _base(paths: tuple[str, ...]) -> str:
    return paths[0].rstrip("/")


def _reported(live: Manifest) -> str | None:
    entries = ((live.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    for entry in entries:
        if address := entry.get("hostname") or entry.get("ip"):
            return f"[{address}]" if ":" in address else str(address)
    return None


def _balancer_problems(world: ServiceWorld) -> Iterator[Condition]:
    live = _balancer(world)
    if world.service.spec.expose.service.type != "LoadBalancer" or (live and _reported(live)):
        return
    name = names.external_service(world.service.metadata.name)
    text = (
        f"Service {name} waits for the address of its load balancer; if none comes, see "
        f"kubectl describe service {name}"
    )
    yield amiss(Reason.ADDRESS_PENDING, text)


def _verdicts(live: Manifest) -> list[Manifest]:
    """What Gateways say of the route, as it is now."""
    generation = live["metadata"].get("generation", 1)
    return [
        entry
        for parent in (live.get("status") or {}).get("parents") or []
        for entry in parent.get("conditions") or []
        if entry.get("type") in _JUDGED and entry.get("observedGeneration", 0) >= generation
    ]


def _accepted(live: Manifest | None) -> bool:
    said = {(entry["type"], entry["status"]) for entry in _verdicts(live)} if live else set()
    return ("Accepted", "True") in said


def _route_problems(world: ServiceWorld) -> Iterator[Condition]:
    expose = world.service.spec.expose
    if expose.route is not None:
        yield from _problems_of(world, HTTP_ROUTE, "route", expose.route.parent_refs)
    if expose.grpc_route is not None and world.service.spec.serving.grpc:
        yield from _problems_of(world, GRPC_ROUTE, "grpcRoute", expose.grpc_route.parent_refs)


def route_problem(world: ServiceWorld, kind: Resource) -> Condition | None:
    """Why a route of this kind, which is asked for, leads nobody to where it says."""
    expose = world.service.spec.expose
    field, asked = (
        ("route", expose.route) if kind is HTTP_ROUTE else ("grpcRoute", expose.grpc_route)
    )
    refs = () if asked is None else asked.parent_refs
    return next(_problems_of(world, kind, field, refs), None)


def _problems_of(
    world: ServiceWorld, kind: Resource, field: str, refs: Sequence[ParentRef]
) -> Iterator[Condition]:
    meta = world.service.metadata
    live = own(world, kind, meta.name)
    for entry in _verdicts(live) if live else ():
        if entry["status"] == "False":
            said = quote(entry.get("message") or entry.get("reason"))
            text = f"{kind.kind} {meta.name}: {entry['type']} is False: {said}"
            remedy = f"correct spec.expose.{field} or the Gateway"
            yield amiss(Reason.ROUTE_REFUSED, advise(text, remedy))
            return
    if not _accepted(live):
        gateways = ", ".join(f"{ref.namespace or meta.namespace}/{ref.name}" for ref in refs)
        text = (
            f"{kind.kind} {meta.name} is not yet accepted by a Gateway; check that {gateways} "
            "exists and that its controller runs"
        )
        yield amiss(Reason.ADDRESS_PENDING, text)


def amiss(reason: Reason, text: str) -> Condition:
    """Something beside the pods is not as it was asked for."""
    return condition(ConditionType.INTEGRATED, False, reason, text)
