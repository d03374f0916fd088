"""Revisions: which Deployment gets the traffic, which ones go.

A revision is the hash of what runs. The new one comes up beside the old one; only when all its
pods are ready does the Service's selector move over; only when that was observed does the old one
go. A newer wish in between drops the half-made revision and starts from the newest.
"""

from dataclasses import dataclass

from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.api.meta import DEPLOYMENT
from reranker_operator.api.v1alpha1 import RerankerEngine
from reranker_operator.core import references
from reranker_operator.core.plan import Action, Apply, Delete, Scale
from reranker_operator.core.world import Manifest, ServiceWorld
from reranker_operator.render import serving as render


@dataclass(frozen=True)
class Rollout:
    """`serving` is the revision behind the Service, as observed; `wanted` the one of the spec."""

    serving: str | None
    wanted: str | None
    actions: tuple[Action, ...] = ()

    @property
    def rolling(self) -> bool:
        """A wanted revision is not yet the serving one."""
        return self.wanted is not None and self.wanted != self.serving


def revision_of(manifest: Manifest) -> str | None:
    """The revision in an object's labels."""
    value = manifest["metadata"].get("labels", {}).get(names.REVISION_LABEL)
    return None if value is None else str(value)


def engine_of(deployment: Manifest | None) -> str | None:
    """Name of the engine that a Deployment's pods serve."""
    return deployment["metadata"]["labels"].get(names.ENGINE_LABEL) if deployment else None


def pods_of(world: ServiceWorld, revision: str | None) -> list[Manifest]:
    """The pods of one revision."""
    return [pod for pod in world.pods if revision is not None and revision_of(pod) == revision]


def live_deployments(world: ServiceWorld) -> dict[str, Manifest]:
    """Deployments by revision, those being deleted left out."""
    return {
        revision: entry
        for entry in world.deployments
        if (revision := revision_of(entry)) and "deletionTimestamp" not in entry["metadata"]
    }


def serving_revision(world: ServiceWorld) -> str | None:
    """The revision that the Service selects, if its Deployment is there.

    When somebody deleted or changed the Service it is the one that was seen to serve last: its
    pods still run, and the next revision may be far from ready.
    """
    selector = (world.k8s_service or {}).get("spec", {}).get("selector", {})
    live = live_deployments(world)
    for revision in (selector.get(names.REVISION_LABEL), world.service.status.revision):
        if revision in live:
            return str(revision)
    return None


def carries_out_spec(world: ServiceWorld) -> bool:
    """What serves was made from this very spec: only the operator or the source has changed."""
    entry = live_deployments(world).get(serving_revision(world) or "")
    annotations = entry["metadata"].get("annotations", {}) if entry else {}
    return bool(annotations.get(names.SPEC_HASH) == render.spec_hash(world.service))


def roll_out(world: ServiceWorld, engine: RerankerEngine | None) -> Rollout:
    """Bring `engine` into service; None keeps what serves and lets it follow `replicas`."""
    serving, live = serving_revision(world), live_deployments(world)
    if engine is None:
        return Rollout(serving, None, tuple(_hold(world, live, serving)))
    used = references.of_pods(world, live.get(serving or ""))
    template = render.pod_template(world.service, engine, world.defaults, used)
    wanted = names.short_hash(canonical_json(template))
    actions: list[Action] = [Apply(render.deployment(world.service, wanted, template))]
    move = serving is None or (wanted in live and is_available(live[wanted], world))
    target = wanted if move else serving
    actions.append(Apply(render.service_object(world.service, target or wanted)))
    if serving == wanted:
        rest = [entry for revision, entry in live.items() if revision != wanted]
    else:
        rest = [entry for revision, entry in live.items() if revision not in (wanted, serving)]
        actions += _follow_replicas(world, live, serving)
    actions += [_delete(entry) for entry in rest]
    return Rollout(serving, wanted, tuple(actions))


def is_available(deployment: Manifest, world: ServiceWorld) -> bool:
    """All wanted pods of the Deployment are ready, by what its controller observed last."""
    status = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1)
    wanted = world.service.spec.replicas
    return bool(
        seen
        and deployment["spec"].get("replicas", 1) == wanted
        and status.get("availableReplicas", 0) >= wanted
    )


def _hold(world: ServiceWorld, live: dict[str, Manifest], serving: str | None) -> list[Action]:
    actions = _follow_replicas(world, live, serving)
    if serving is not None:
        actions.append(Apply(render.service_object(world.service, serving)))
    half_made = [entry for revision, entry in live.items() if revision != serving]
    return [*actions, *(_delete(entry) for entry in half_made)]


def _follow_replicas(
    world: ServiceWorld, live: dict[str, Manifest], serving: str | None
) -> list[Action]:
    """The old revision is no longer rendered, but `replicas` may still change."""
    if serving is None:
        return []
    entry, wanted = live[serving], world.service.spec.replicas
    if entry["spec"].get("replicas", 1) == wanted:
        return []
    return [Scale(entry["metadata"]["name"], wanted)]


def _delete(entry: Manifest) -> Delete:
    return Delete(DEPLOYMENT, entry["metadata"]["name"], entry["metadata"]["uid"])
