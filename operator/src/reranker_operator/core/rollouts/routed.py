"""Whether the routes give a canary the share that it should have: asked for is not yet in force."""

from reranker_operator import names
from reranker_operator.api.meta import GRPC_ROUTE, HTTP_ROUTE, SERVICE, Resource
from reranker_operator.core.addresses import backends, own, route_problem
from reranker_operator.core.world import Manifest, ServiceWorld, is_leaving


def asked_routes(world: ServiceWorld) -> list[Resource]:
    """The kinds of routes that can divide the requests."""
    expose, asked = world.service.spec.expose, []
    if expose.route is not None:
        asked.append(HTTP_ROUTE)
    if expose.grpc_route is not None and world.service.spec.serving.grpc:
        asked.append(GRPC_ROUTE)
    return [kind for kind in asked if kind.kind not in world.missing_kinds]


def unseen(world: ServiceWorld) -> str | None:
    """A kind of route that is to divide the requests, and that the operator has no right to."""
    kinds = (entry.kind for entry in asked_routes(world))
    return next((kind for kind in kinds if kind in world.forbidden_kinds), None)


def lacks(world: ServiceWorld, weight: int) -> str | None:
    """Why so many percent of the requests are not what the new revision gets; None: they are."""
    meta = world.service.metadata
    if (forbidden := unseen(world)) is not None:
        return f"the operator has no right to {forbidden} {meta.name}; give it those of its chart"
    preview = names.preview_service(meta.name)
    if (found := own(world, SERVICE, preview)) is None or is_leaving(found):
        return f"Service {preview} does not lead to it: it is not there, or is somebody else's"
    for kind in asked_routes(world):
        route = own(world, kind, meta.name)
        if route is None:
            return f"{kind.kind} {meta.name} is not there, or is somebody else's"
        if _weight(route, preview) != weight:
            return f"{kind.kind} {meta.name} was not yet given the weight of {weight} %"
        if (problem := route_problem(world, kind)) is not None:
            return problem.message
    return None


def in_force(world: ServiceWorld) -> int:
    """Percent that the new revision gets by the routes as they are; the least of them."""
    name = world.service.metadata.name
    preview = names.preview_service(name)
    if own(world, SERVICE, preview) is None:
        return 0
    routes = [(kind, own(world, kind, name)) for kind in asked_routes(world)]
    return min(
        (
            0 if route is None or route_problem(world, kind) else _weight(route, preview) or 0
            for kind, route in routes
        ),
        default=0,
    )


def _weight(route: Manifest, preview: str) -> int | None:
    return next(
        (
            int(backend.get("weight", 1))
            for backend in backends(route)
            if backend.get("name") == preview
        ),
        None,
    )
