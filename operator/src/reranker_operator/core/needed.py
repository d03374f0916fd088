"""Which engines of a namespace the plan of one service is about.

A namespace may have thousands, and each service has to do with very few: those that it owns, those
that its pods and its status name, those of the targets that it may serve, and, while it is not
known what it serves, those that were made from the same source.
"""

from reranker_operator.api.v1alpha1 import RerankerServiceStatus
from reranker_operator.core.gpus import gpu_of
from reranker_operator.core.resolve import Resolution, may_be_known, names_of_targets, resolve
from reranker_operator.core.revisions import engine_of
from reranker_operator.core.world import ServiceWorld
from reranker_operator.source import SourceError


def engines_named(world: ServiceWorld) -> set[str]:
    """Names of engines, in a world that is all there but for its engines."""
    status = world.service.status
    named = {engine_of(entry) for entry in (*world.deployments, *world.pods)}
    named |= {status.engine, *(entry.name for entry in status.engines)}
    named |= {record.engine for record in status.history}
    resolution = _resolution(world)
    if resolution is not None and (model := resolution.model) is not None:
        asked = RerankerServiceStatus(model=model, gpu=gpu_of(world))
        named |= names_of_targets(world, asked)
    return {name for name in named if name}


def asks_by_source(world: ServiceWorld) -> bool:
    """Whether another service's engine may tell what the source is."""
    if not may_be_known(world.service):
        return False
    resolution = _resolution(world)
    return resolution is not None and resolution.model is None


def _resolution(world: ServiceWorld) -> Resolution | None:
    """How far it is; None for a source that is none, and is never resolved."""
    try:
        return resolve(world)
    except SourceError:
        return None
