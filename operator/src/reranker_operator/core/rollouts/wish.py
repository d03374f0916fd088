"""Which revision is to get the traffic: the spec's, unless that was undone or given up."""

from dataclasses import dataclass

from reranker_operator import names
from reranker_operator.api.rollout import FailedRevision, RevisionRecord
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core import references
from reranker_operator.core.revisions import live_deployments
from reranker_operator.core.rollouts.orders import order, retry_of
from reranker_operator.core.world import Manifest, ServiceWorld
from reranker_operator.render import serving as render
from reranker_operator.render.pods import Json


@dataclass(frozen=True)
class Wish:
    """`revision` is to serve; `template` is how it is made, None for as it was made before.

    `asked` is what the spec, or an undo, asks for, where that is known. It is another one when it
    was given up. `undone`: by annotation. `problem`: why the annotation can't be followed.
    """

    revision: str | None
    template: Json | None = None
    asked: str | None = None
    given_up: FailedRevision | None = None
    undone: bool = False
    problem: str | None = None


def choose(world: ServiceWorld, engine: RerankerEngine | None, serving: str | None) -> Wish:
    """What to bring into service; `engine` is that of the spec, if it is ready."""
    used = references.of_pods(world, live_deployments(world).get(serving or ""))
    template = render.pod_template(world.service, engine, world.defaults, used) if engine else None
    asked = render.revision_of(template) if template else None
    back, problem = _undo(world), None
    undone = back is not None and back != asked
    if back is not None and undone:
        if can_be_made(world, back):
            asked, template = back, None
        else:
            undone, problem = False, _cannot_undo(world, back)
    revision = asked or serving
    failure = given_up(world.service, revision)
    former = fallback(world, revision, serving) if failure else None
    if failure is None or former is None:
        return Wish(revision, template, asked, undone=undone, problem=problem)
    return Wish(former, None, asked, failure, undone, problem)


def given_up(service: RerankerService, revision: str | None) -> FailedRevision | None:
    """Its failure, while it holds. That nobody asks for another try any more is no other try."""
    retry = retry_of(service)
    return next(
        (
            entry
            for entry in service.status.failed
            if entry.revision == revision and entry.in_force and retry in (None, entry.retry)
        ),
        None,
    )


def proven(service: RerankerService) -> str | None:
    """The revision that was the last to pass all gates."""
    history = service.status.history
    return history[0].revision if history else None


def fallback(world: ServiceWorld, revision: str | None, serving: str | None) -> str | None:
    """The revision to go back to from this one, if there is one."""
    last = proven(world.service)
    if last is not None and last != revision and can_be_made(world, last):
        return last
    return serving if serving != revision else None


def can_be_made(world: ServiceWorld, revision: str) -> bool:
    """Its Deployment is there, or can be made again as it was."""
    return revision in live_deployments(world) or remembered(world, revision) is not None


def remembered(world: ServiceWorld, revision: str) -> Manifest | None:
    """A Deployment as far as the record has it, if its engine is still there."""
    engines = {
        entry.metadata.name for entry in world.engines if entry.metadata.deletion_timestamp is None
    }
    for record in world.service.status.history:
        if record.revision == revision and record.template and record.engine in engines:
            return _as_deployment(record)
    return None


def _as_deployment(record: RevisionRecord) -> Manifest:
    annotations = {names.TEMPLATE_ANNOTATION: record.template or ""}
    if record.spec_hash:
        annotations[names.SPEC_HASH] = record.spec_hash
    return {
        "metadata": {
            "labels": {names.REVISION_LABEL: record.revision, names.ENGINE_LABEL: record.engine},
            "annotations": annotations,
        }
    }


def _undo(world: ServiceWorld) -> str | None:
    """The revision that the annotation names, while it is to be followed."""
    found = order(world.service, names.UNDO)
    if found is None or (found.more and found.more != render.spec_hash(world.service)):
        return None
    return found.revision


def _cannot_undo(world: ServiceWorld, revision: str) -> str:
    kept = [
        record.revision
        for record in world.service.status.history
        if can_be_made(world, record.revision)
    ]
    there = ", ".join(dict.fromkeys(kept)) or "none"
    return (
        f"annotation {names.UNDO} names revision {revision}, which is not kept (kept: {there}); "
        "name one of those, or apply the former spec and remove the annotation"
    )
