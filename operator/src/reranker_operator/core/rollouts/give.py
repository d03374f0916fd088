"""What is done to a revision's Deployment: it gets pods, or goes."""

from collections.abc import Mapping

from reranker_operator.api.meta import DEPLOYMENT
from reranker_operator.core.plan import Action, Apply, Delete, Scale
from reranker_operator.core.revisions import asked_of
from reranker_operator.core.rollouts.wish import remembered
from reranker_operator.core.world import Manifest, ServiceWorld
from reranker_operator.render import serving as render
from reranker_operator.render.pods import Json


def give(
    world: ServiceWorld,
    live: Mapping[str, Manifest],
    revision: str,
    replicas: int,
    template: Json | None = None,
) -> list[Action]:
    """A revision's Deployment with this many pods; without `template` as it was made."""
    if template is not None:
        return [Apply(render.deployment(world.service, template, replicas))]
    entry = live.get(revision)
    manifest = render.restored(world.service, entry, replicas) if entry else None
    if manifest is None and (known := remembered(world, revision)) is not None:
        manifest = render.restored(world.service, known, replicas)
    if manifest is not None:
        return [Apply(manifest)]
    if entry is None or asked_of(entry) == replicas:
        return []
    return [Scale(entry["metadata"]["name"], replicas)]


def delete(entry: Manifest) -> Delete:
    """The Deployment goes, if it still is the one that was seen."""
    return Delete(DEPLOYMENT, entry["metadata"]["name"], entry["metadata"]["uid"])
