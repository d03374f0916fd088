"""The store's claim: owned by all who need it, so that it goes with the last of them.

Engines own it for their files, services for the pods that mount it. With the engines alone, a claim
would go with an engine deleted by hand, be held by the serving pods, and let nothing be built.
"""

from collections.abc import Iterable, Iterator

from reranker_operator import names
from reranker_operator.api.conditions import ConditionType, is_true
from reranker_operator.api.meta import PVC, RERANKER_SERVICE
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core.jobs import is_under_way
from reranker_operator.core.plan import Action, Apply, Release
from reranker_operator.core.world import EngineWorld, Manifest, ServiceWorld, Sibling, is_leaving
from reranker_operator.render import engines as render
from reranker_operator.render.pods import store_claim_name
from reranker_operator.render.stages import Retention

#: Services that own a claim, of those that mount it: each has a field manager of its own there,
#: and every apply takes all of them into account. One is enough until it goes, the other is for
#: when it does.
_SERVICE_OWNERS = 2
#: A longer list would outgrow a Job; what is left over then waits for better days.
MOST_KEPT = 2000


def is_foreign(claim: Manifest) -> bool:
    """Somebody's own claim: owning it would delete it with us."""
    return bool(claim["metadata"].get("labels", {}).get(names.APP_MANAGED_BY) != names.MANAGER)


def claim_for_engine(world: EngineWorld) -> tuple[Action, ...]:
    """Make the claim that the engine's files are for, and own it."""
    claim, live = render.claim(world.engine), world.claim
    if claim is None or (live is not None and (is_leaving(live) or is_foreign(live))):
        return ()
    made = () if live is not None else (Apply(claim),)
    return (*made, *_own(live or claim, world.engine))


def claims_for_service(world: ServiceWorld, engine: str | None) -> tuple[Action, ...]:
    """Own the claims that the service's pods mount or will mount, let go of the others.

    Where enough services own a claim already it is theirs to keep.
    Before the name of its `engine` is known a service may never get that far: it takes none then,
    but keeps the one that it has for the engine to come.
    """
    meta, actions = world.service.metadata, list[Action]()
    wanted = store_claim_name(world.service.spec.engine.store)
    needed = {name for entry in world.deployments for name in mounted(entry)}
    if engine is not None:
        needed.add(wanted)
    for claim in world.claims:
        name, owners = claim["metadata"]["name"], claim["metadata"].get("ownerReferences", [])
        if is_leaving(claim) or is_foreign(claim):
            continue
        others = [owner for owner in owners if owner["kind"] == RERANKER_SERVICE.kind]
        if name in needed:
            actions += _own(claim, world.service) if len(others) < _SERVICE_OWNERS else ()
        elif (
            name != wanted
            and meta.uid in {owner["uid"] for owner in owners}
            # Without any owner left it would never be collected.
            and any(owner["kind"] == RerankerEngine.__name__ for owner in owners)
        ):
            actions.append(Release(PVC, name, names.owner_manager(meta.uid)))
    return tuple(actions)


def mounted(deployment: Manifest) -> Iterator[str]:
    """Names of the claims that a Deployment's pods mount."""
    for volume in deployment["spec"]["template"]["spec"].get("volumes", []):
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"]["claimName"]


def _own(claim: Manifest, owner: RerankerService | RerankerEngine) -> tuple[Action, ...]:
    meta = claim["metadata"]
    if owner.metadata.uid in {entry["uid"] for entry in meta.get("ownerReferences", [])}:
        return ()
    body = render.owner_claim(PVC.kind, PVC.api_version, meta["name"], owner)
    return (Apply(body, manager=names.owner_manager(owner.metadata.uid)),)


def concerns_siblings(engine: RerankerEngine, jobs: Iterable[Manifest]) -> bool:
    """Whether something may be decided about the files of others: with each step that starts."""
    if engine.metadata.deletion_timestamp is not None:
        return True
    is_ready = is_true(engine.status.conditions, ConditionType.READY)
    return not is_ready and not any(is_under_way(job) for job in jobs)


def sharing(world: EngineWorld) -> list[Sibling]:
    """Other living engines with files in the same store."""
    mine = store_claim_name(world.engine.spec.store)
    return [other for other in world.siblings if other.claim == mine and not other.is_leaving]


def digests_of(engine: RerankerEngine) -> tuple[str, str]:
    """The engine's own and that of the prepared model it is made from."""
    return engine.spec.digest, engine.spec.identity.prepared


def retention(world: EngineWorld) -> Retention | None:
    """What the next publish leaves in a store that is all ours; None to leave everything."""
    # A volume of the user's may be known by other claims too, also in other namespaces.
    if world.engine.spec.store.existing_claim or not world.all_siblings:
        return None
    living = [digests_of(world.engine), *(other.digests for other in sharing(world))]
    kept = sorted({digest for digests in living for digest in digests})
    if len(kept) > MOST_KEPT:
        return None
    defaults = world.defaults
    return Retention(tuple(kept), world.now, defaults.keep_hours, defaults.high_water_percent)
