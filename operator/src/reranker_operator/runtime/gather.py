"""From a key to a World: one namespace, label selectors; of the engines those that matter here."""

import asyncio
import datetime
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from reranker_contracts.targets import MEASURED_IN_PODS
from reranker_operator import names
from reranker_operator.adapters.cluster import (
    Cluster,
    IndexedCluster,
    Json,
    made_from,
    named,
    owned_by,
)
from reranker_operator.api.meta import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    JOB,
    NODE,
    POD,
    PVC,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    SERVICE,
)
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core import diagnose
from reranker_operator.core.activation import ready_endpoints, watched_endpoints
from reranker_operator.core.causes.pods import is_build
from reranker_operator.core.needed import asks_by_source, engines_named
from reranker_operator.core.nodes import Nodes
from reranker_operator.core.references import of_service
from reranker_operator.core.store import concerns_siblings, mounted
from reranker_operator.core.world import EngineWorld, Reference, ServiceWorld, Sibling, owners_of
from reranker_operator.errors import Forbidden
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.pods import store_claim_name
from reranker_operator.runtime.gather_companions import get_or_none, read_companions
from reranker_operator.runtime.loads import Loads
from reranker_operator.runtime.optional_kinds import OptionalKinds
from reranker_operator.runtime.queue import Key
from reranker_operator.runtime.reading import Unreadable, read, sibling, unknown_keys
from reranker_operator.runtime.references import References
from reranker_operator.runtime.reports import warnings

logger = logging.getLogger(__name__)
_SLICE_OF = "kubernetes.io/service-name"


async def service_world(
    cluster: IndexedCluster,
    raw: Json,
    defaults: Defaults,
    now: datetime.datetime,
    *,
    read_nodes: bool,
    kinds: OptionalKinds | None = None,
    references: References | None = None,
    loads: Loads | None = None,
) -> ServiceWorld:
    """Read everything around one RerankerService."""
    service, _ = read(RerankerService, raw)
    namespace, name = service.metadata.namespace, service.metadata.name
    mine = {names.SERVICE_LABEL: name}
    wants_nodes = read_nodes and service.spec.accelerator.type != "none"
    jobs, pods, deployments, address, nodes = await asyncio.gather(
        cluster.list(JOB, namespace, mine),
        cluster.list(POD, namespace, mine),
        cluster.list(DEPLOYMENT, namespace, mine),
        get_or_none(cluster, SERVICE, namespace, name),
        _nodes(cluster) if wants_nodes else _nothing(),
    )
    beside = await read_companions(cluster, service, kinds)
    own_jobs = _jobs_of(service, jobs)
    deployments += await _unlabelled(cluster, service, deployments)
    deployments = [entry for entry in deployments if _is_revision(entry, service)]
    pods = [pod for pod in pods if pod["metadata"].get("ownerReferences")]
    world = ServiceWorld(
        service=service,
        now=now,
        defaults=defaults,
        unknown=unknown_keys(raw),
        jobs=own_jobs,
        pods=tuple(pods),
        deployments=tuple(deployments),
        k8s_service=address if _is_ours(address, service) else None,
        nodes=nodes,
        warnings=await warnings(cluster, now, jobs=own_jobs, pods=pods),
        companions=beside.found,
        missing_kinds=beside.missing,
        forbidden_kinds=beside.forbidden,
        stranger=address if not _is_ours(address, service) else None,
        versions=await _versions(references, service),
        endpoints=await _endpoints(cluster, service, address, deployments),
        loads=() if loads is None else loads.of(service, pods),
    )
    world = await _with_claims(cluster, await _with_engines(cluster, world))
    if loads is not None:
        loads.planned(world)
    return world


async def _with_engines(cluster: IndexedCluster, world: ServiceWorld) -> ServiceWorld:
    """And with those engines of the namespace that this service has to do with."""
    meta = world.service.metadata
    facets = {owned_by(meta.uid), *map(named, engines_named(world))}
    if asks_by_source(world):
        facets.add(made_from(world.service.spec.model.source))
    engines = await cluster.related(RERANKER_ENGINE, meta.namespace, facets)
    return replace(
        world,
        engines=tuple(_readable(engines)),
        engine_owners={entry["metadata"]["name"]: owners_of(entry) for entry in engines},
    )


def _readable(entries: Iterable[Json]) -> Iterator[RerankerEngine]:
    """Without those that can't be read; their own reconcile says what is wrong."""
    for entry in entries:
        try:
            yield read(RerankerEngine, entry)[0]
        except Unreadable as error:
            logger.warning("RerankerEngine %s is left out: %s", entry["metadata"]["name"], error)


async def _with_claims(cluster: IndexedCluster, world: ServiceWorld) -> ServiceWorld:
    """And with the claims of its engines, its pods and its spec, and those that it owns."""
    service = world.service
    namespace = service.metadata.namespace
    stores = {store_claim_name(entry.spec.store) for entry in world.engines}
    stores |= {store_claim_name(service.spec.engine.store)}
    stores |= {claim for entry in world.deployments for claim in mounted(entry)}
    owned = await cluster.related(PVC, namespace, {owned_by(service.metadata.uid)})
    stores |= {claim["metadata"]["name"] for claim in owned}
    claims = [get_or_none(cluster, PVC, namespace, claim) for claim in sorted(stores)]
    found = [claim for claim in await asyncio.gather(*claims) if claim is not None]
    return replace(world, claims=tuple(found))


async def engine_world(
    cluster: IndexedCluster,
    raw: Json,
    defaults: Defaults,
    now: datetime.datetime,
) -> EngineWorld:
    """Read everything around one RerankerEngine."""
    engine, unknown = read(RerankerEngine, raw)
    namespace, name = engine.metadata.namespace, engine.metadata.name
    mine = {names.ENGINE_LABEL: name}
    jobs, pods, claim = await asyncio.gather(
        cluster.list(JOB, namespace, mine),
        cluster.list(POD, namespace, mine),
        get_or_none(cluster, PVC, namespace, store_claim_name(engine.spec.store)),
    )
    own_jobs = _jobs_of(engine, jobs)
    siblings = await _siblings(cluster, engine) if concerns_siblings(engine, own_jobs) else None
    measure = engine.spec.identity.runtime in MEASURED_IN_PODS
    told = any(not is_build(pod) and (measure or not diagnose.is_verified(pod)) for pod in pods)
    return EngineWorld(
        engine=engine,
        now=now,
        defaults=defaults,
        owners=owners_of(raw),
        unknown=unknown,
        jobs=own_jobs,
        pods=tuple(pods),
        claim=claim,
        siblings=tuple(filter(None, siblings or ())),
        all_siblings=siblings is not None and None not in siblings,
        deployments=tuple(await cluster.list(DEPLOYMENT, namespace, mine) if told else ()),
        warnings=await warnings(
            cluster,
            now,
            jobs=own_jobs,
            pods=[pod for pod in pods if is_build(pod)],
            claims=() if claim is None else (claim,),
        ),
    )


async def _siblings(cluster: Cluster, engine: RerankerEngine) -> list[Sibling | None]:
    """The other engines of the namespace; None for one that does not say where its files are."""
    meta = engine.metadata
    found = await cluster.list(RERANKER_ENGINE, meta.namespace)
    return [sibling(entry) for entry in found if entry["metadata"]["name"] != meta.name]


async def _endpoints(
    cluster: Cluster, service: RerankerService, address: Json | None, deployments: Iterable[Json]
) -> Mapping[str, frozenset[str]]:
    """Of the Services for which that decides something at the moment."""
    namespace, found = service.metadata.namespace, {}
    for name in watched_endpoints(service, address, deployments):
        slices = await cluster.list(ENDPOINT_SLICE, namespace, {_SLICE_OF: name})
        found[name] = ready_endpoints(slices)
    return found


async def _versions(
    references: References | None, service: RerankerService
) -> Mapping[Reference, str | None]:
    """Of the Secrets and ConfigMaps that the service names; empty where none are looked at."""
    if references is None:
        return {}
    key = Key(RERANKER_SERVICE.kind, service.metadata.namespace, service.metadata.name)
    return await references.versions(key, of_service(service))


def _jobs_of(subject: RerankerService | RerankerEngine, jobs: Iterable[Json]) -> tuple[Json, ...]:
    """Without those of a deleted object of the same name that garbage collection has yet to see.

    Their results tell of files that may be gone.
    """
    return tuple(job for job in jobs if subject.metadata.uid in owners_of(job))


async def _unlabelled(
    cluster: Cluster, service: RerankerService, found: Iterable[Json]
) -> list[Json]:
    """Deployments that should be there and are not found by our labels: somebody changes those."""
    meta, status = service.metadata, service.status
    revisions = {status.revision}
    if status.rollout is not None:
        # The one that the traffic came from stays until the new one is proven.
        revisions |= {status.rollout.revision, *(kept.revision for kept in status.history[:1])}
    missing = {names.deployment(meta.name, revision) for revision in revisions if revision}
    missing -= {entry["metadata"]["name"] for entry in found}
    asked = (get_or_none(cluster, DEPLOYMENT, meta.namespace, name) for name in sorted(missing))
    return [entry for entry in await asyncio.gather(*asked) if entry is not None]


def _is_revision(deployment: Json, service: RerankerService) -> bool:
    """The labels alone may be a copy's, which somebody looks into.

    One without owners is left behind by a deletion that let its dependents live.
    """
    meta, owners = deployment["metadata"], owners_of(deployment)
    revision = meta.get("labels", {}).get(names.REVISION_LABEL, "")
    left = not owners and meta["name"] == names.deployment(service.metadata.name, revision)
    return left or service.metadata.uid in owners


def _is_ours(address: Json | None, service: RerankerService) -> bool:
    return address is not None and service.metadata.uid in owners_of(address)


async def _nodes(cluster: Cluster) -> Nodes | None:
    try:
        found = await cluster.list(NODE, None)
        return found if isinstance(found, Nodes) else Nodes(found)
    except Forbidden:
        # A namespaced installation has no right to see nodes; the scheduler will tell.
        return None


async def _nothing() -> None:
    return None
