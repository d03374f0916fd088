"""Reads what is beside a Deployment and its Service."""

import asyncio
import logging
from typing import NamedTuple

from reranker_operator import names
from reranker_operator.adapters.cluster import Cluster, Json
from reranker_operator.api.meta import COMPANIONS, OPTIONAL, SERVICE, Resource
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.companions import names_asked
from reranker_operator.errors import Forbidden, NamespaceTerminating, NotFound
from reranker_operator.runtime.optional_kinds import OptionalKinds

logger = logging.getLogger(__name__)


class Companions(NamedTuple):
    """What is there, and the kinds that the cluster lacks or does not let us see."""

    found: tuple[Json, ...]
    missing: frozenset[str]
    forbidden: frozenset[str]


async def read_companions(
    cluster: Cluster, service: RerankerService, kinds: OptionalKinds | None
) -> Companions:
    """Ours are found by label, also what the spec no longer asks for; what has a name that is
    asked for and is not ours, by that name.
    """
    meta, asked = service.metadata, names_asked(service)
    present = await kinds.present(entry for entry, _ in asked if entry in OPTIONAL) if kinds else ()
    readable = [entry for entry in COMPANIONS if entry not in OPTIONAL or entry in present]
    mine = {names.SERVICE_LABEL: meta.name}
    lists = await asyncio.gather(
        *(_list(cluster, entry, meta.namespace, mine, kinds) for entry in (SERVICE, *readable))
    )
    missing = {entry.kind for entry in OPTIONAL if entry not in present}
    forbidden: set[str] = set()
    found: dict[tuple[str, str], Json] = {}
    for resource, entries in zip((SERVICE, *readable), lists, strict=True):
        if isinstance(entries, Forbidden):
            forbidden.add(resource.kind)
            continue
        if entries is None:
            missing.add(resource.kind)
        for entry in entries or ():
            # Entries of a list leave their kind out.
            found[resource.kind, entry["metadata"]["name"]] = entry | {"kind": resource.kind}
    # That is the service's own address.
    found.pop((SERVICE.kind, meta.name), None)
    for resource, name in asked:
        if (resource.kind, name) not in found and resource.kind not in missing | forbidden:
            live = await get_or_none(cluster, resource, meta.namespace, name)
            if live is not None:
                found[resource.kind, name] = live | {"kind": resource.kind}
    return Companions(tuple(found.values()), frozenset(missing), frozenset(forbidden))


async def _list(
    cluster: Cluster,
    resource: Resource,
    namespace: str,
    mine: dict[str, str],
    kinds: OptionalKinds | None,
) -> list[Json] | Forbidden | None:
    """None: the kind went away since it was last seen. Only optional ones may be refused."""
    if kinds is None or resource not in OPTIONAL:
        return await cluster.list(resource, namespace, mine)
    if kinds.is_refused(resource, namespace):
        return Forbidden(resource.kind)
    try:
        return await cluster.list(resource, namespace, mine)
    except NotFound:
        kinds.forget(resource)
        return None
    except NamespaceTerminating:
        raise
    except Forbidden as error:
        logger.warning("%s can't be read in %s: %s", resource.kind, namespace, error)
        kinds.refuse(resource, namespace)
        return error


async def get_or_none(
    cluster: Cluster, resource: Resource, namespace: str, name: str
) -> Json | None:
    """The object of this name, if there is one."""
    try:
        return await cluster.get(resource, namespace, name)
    except NotFound:
        return None
