"""The end of a RerankerEngine: nobody uses it any more, or it is being deleted."""

import datetime

from reranker_operator import names
from reranker_operator.api.meta import JOB, RERANKER_ENGINE
from reranker_operator.core import jobs
from reranker_operator.core.plan import Create, Delete, DropFinalizer, Plan
from reranker_operator.core.store import digests_of, sharing
from reranker_operator.core.world import EngineWorld
from reranker_operator.render.jobs import remove_job

#: A new engine gets its first owner in a second write; until then nobody may think it orphaned.
_ORPHAN_GRACE = datetime.timedelta(seconds=60)


def plan_orphan(world: EngineWorld) -> Plan:
    """Nobody owns the engine: delete it, unless its first owner may still be on its way."""
    meta = world.engine.metadata
    # Status is only written for an engine that has an owner.
    if world.engine.status.observed_generation is None:
        created = meta.creation_timestamp or world.now
        left = (created + _ORPHAN_GRACE - world.now).total_seconds()
        if left > 0:
            return Plan(requeue_after=left, details=("no owner yet",))
    # Garbage collection stops its Jobs. By version: a service may just be taking it up again.
    return Plan(
        actions=(Delete(RERANKER_ENGINE, meta.name, meta.uid, meta.resource_version),),
        details=("no service uses the engine any more",),
    )


def _unused(world: EngineWorld) -> list[str]:
    """Digests that no other engine in the store needs: engines of other names can have the same.

    None at all where there are engines that can't be read.
    """
    used = {digest for other in sharing(world) for digest in other.digests}
    mine = digests_of(world.engine) if world.all_siblings else ()
    return [digest for digest in mine if digest not in used]


def plan_cleanup(world: EngineWorld) -> Plan:
    """Remove the files from a store that outlives the engine; only such engines are held."""
    meta = world.engine.metadata
    if names.FINALIZER not in meta.finalizers:
        return Plan()
    drop = DropFinalizer(RERANKER_ENGINE, meta.name)
    if world.claim is None:
        return Plan(actions=(drop,), details=("the store is gone",))
    builds = [
        Delete(JOB, job["metadata"]["name"], job["metadata"]["uid"])
        for job in world.jobs
        if job["metadata"]["labels"].get(names.STAGE_LABEL) != "remove"
    ]
    view = jobs.view(names.stage_job(meta.name, "remove", 0), world.jobs, world.pods, world.now)
    if view.state in ("succeeded", "failed"):
        return Plan(actions=(drop,), details=(f"removal {view.state}",))
    if view.state == "running":
        return Plan(actions=tuple(builds), details=("files are being removed",))
    digests = _unused(world)
    if not digests:
        return Plan(actions=(*builds, drop), details=("others use the same files, or may",))
    return Plan(
        actions=(*builds, Create(remove_job(world.engine, digests, world.defaults))),
        details=("removing the engine's files",),
    )
