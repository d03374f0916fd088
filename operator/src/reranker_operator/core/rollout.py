"""Rollout: which Deployment gets how many pods, which one the traffic, which ones go.

Surge: the new revision comes up beside the old one; only when all its pods are ready does the
Service's selector move over; only when that was observed does the old one go. A newer wish in
between drops the half-made revision and starts from the newest.

No surge: the revisions share the number of pods and the traffic. The old side gives up one pod at a
time, see `split`; a newer wish in between makes all former revisions the old side.

Paused: nothing is moved, begun or dropped; what is there is kept as it was made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reranker_operator.api.meta import DEPLOYMENT
from reranker_operator.api.v1alpha1 import RerankerEngine
from reranker_operator.core import references
from reranker_operator.core.activation import pods_to_run
from reranker_operator.core.plan import Action, Apply, Delete, Scale
from reranker_operator.core.revisions import (
    asked_of,
    has_all,
    held_by,
    is_available,
    is_shared,
    live_deployments,
    revision_of,
    serving_revision,
)
from reranker_operator.core.split import split
from reranker_operator.core.world import Manifest, ServiceWorld
from reranker_operator.render import serving as render
from reranker_operator.render.pods import Json


@dataclass(frozen=True)
class Rollout:
    """`serving` is the revision behind the Service, as observed; `wanted` the one to get there.

    `wanted` is None while nothing else than what serves can be served, or may be. `applied` is the
    number of pods that each Deployment, by name, is given.
    """

    serving: str | None
    wanted: str | None
    actions: tuple[Action, ...] = ()
    applied: Mapping[str, int] = field(default_factory=dict)

    @property
    def rolling(self) -> bool:
        """A wanted revision is not yet the serving one."""
        return self.wanted is not None and self.wanted != self.serving

    @property
    def given(self) -> int:
        """Pods that the wanted revision is given now."""
        given = (n for name, n in self.applied.items() if name.endswith(f"-{self.wanted}"))
        return next(given, 0)


def roll_out(world: ServiceWorld, engine: RerankerEngine | None) -> Rollout:
    """Bring `engine` into service; None keeps what serves and lets it follow `replicas`."""
    service, serving = world.service, serving_revision(world)
    used = references.of_pods(world, live_deployments(world).get(serving or ""))
    template = render.pod_template(service, engine, world.defaults, used) if engine else None
    wanted = render.revision_of(template) if template else None
    keeps = wanted is not None and wanted == (serving or service.status.revision)
    if service.spec.rollout.paused and (is_shared(world) or not keeps):
        return _concluded(serving, None, _freeze(world, serving))
    target = wanted or serving
    if target is None:
        half_made = live_deployments(world).values()
        return Rollout(None, None, tuple(_delete(entry) for entry in half_made))
    if service.spec.rollout.strategy == "surge":
        return _concluded(serving, wanted, _surge(world, serving, target, template))
    return _concluded(serving, wanted, _hand_over(world, serving, target, template))


def _surge(
    world: ServiceWorld, serving: str | None, target: str, template: Json | None
) -> list[Action]:
    live, total = live_deployments(world), pods_to_run(world)
    actions = _give(world, live, target, total, template)
    move = serving is None or (target in live and is_available(live[target], world))
    actions.append(Apply(render.service_object(world.service, target if move else serving)))
    if serving not in (None, target):
        actions += _give(world, live, serving, total)
    rest = [entry for revision, entry in live.items() if revision not in (target, serving)]
    return [*actions, *(_delete(entry) for entry in rest)]


def _hand_over(
    world: ServiceWorld, serving: str | None, target: str, template: Json | None
) -> list[Action]:
    live, total = live_deployments(world), pods_to_run(world)
    others = [revision for revision in live if revision != target]
    if not others or (target in live and is_available(live[target], world)):
        actions = _give(world, live, target, total, template)
        actions.append(Apply(render.service_object(world.service, target)))
        # The old ones go when the address was seen to lead to the new one alone.
        gone = others if serving == target and not is_shared(world) else []
        return [*actions, *(_delete(live[revision]) for revision in gone)]
    ready = asked_of(live.get(target)) == 0 or has_all(live[target])
    found = {revision for pod in world.pods if (revision := revision_of(pod))}
    old, new = held_by(world, live, {*others, *found} - {target}), held_by(world, live, {target})
    for_others, for_target = split(total, old, new, new_is_ready=ready)
    shares = _share_out(live, others, serving, for_others)
    address: list[Action] = [Apply(render.service_object(world.service, None))]
    gives = {
        revision: _give(world, live, revision, number) for revision, number in shares.items()
    } | {target: _give(world, live, target, for_target, template)}
    shares[target] = for_target
    # What takes comes before what gives, so that no crash in between leaves more than the total.
    order = sorted(gives, key=lambda name: (shares[name] - asked_of(live.get(name)), name))
    return [*address, *(action for revision in order for action in gives[revision])]


def _share_out(
    live: Mapping[str, Manifest], others: list[str], serving: str | None, total: int
) -> dict[str, int]:
    """Divide what is left to former revisions: those give first that were still on their way."""
    shares = {revision: asked_of(live[revision]) for revision in others}
    excess = sum(shares.values()) - total
    keeper = serving if serving in shares else max(others)
    for revision in sorted(others, key=lambda name: (name == keeper, has_all(live[name]), name)):
        given_up = max(0, min(shares[revision], excess))
        shares[revision] -= given_up
        excess -= given_up
    shares[keeper] += max(0, -excess)
    return shares


def _freeze(world: ServiceWorld, serving: str | None) -> list[Action]:
    """Everything stays as it is; what serves still follows `replicas`, and drift is undone."""
    if serving is None:
        return []
    live, shared = live_deployments(world), is_shared(world)
    shares = {revision: asked_of(entry) for revision, entry in live.items()}
    sharing = list(live) if shared else [serving]
    shares |= _share_out(live, sharing, serving, pods_to_run(world))
    actions = [
        action
        for revision, number in sorted(shares.items())
        for action in _give(world, live, revision, number)
    ]
    target = None if shared else serving
    return [*actions, Apply(render.service_object(world.service, target))]


def _give(
    world: ServiceWorld,
    live: Mapping[str, Manifest],
    revision: str | None,
    replicas: int,
    template: Json | None = None,
) -> list[Action]:
    """A revision's Deployment with this many pods; without `template` as it was made."""
    if template is not None:
        return [Apply(render.deployment(world.service, template, replicas))]
    entry = live[revision or ""]
    manifest = render.restored(world.service, entry, replicas)
    if manifest is not None:
        return [Apply(manifest)]
    if asked_of(entry) == replicas:
        return []
    return [Scale(entry["metadata"]["name"], replicas)]


def _delete(entry: Manifest) -> Delete:
    return Delete(DEPLOYMENT, entry["metadata"]["name"], entry["metadata"]["uid"])


def _concluded(serving: str | None, wanted: str | None, actions: list[Action]) -> Rollout:
    applied = {}
    for action in actions:
        match action:
            case Apply(manifest) if manifest["kind"] == DEPLOYMENT.kind:
                applied[manifest["metadata"]["name"]] = manifest["spec"]["replicas"]
            case Scale(name, replicas):
                applied[name] = replicas
    return Rollout(serving, wanted, tuple(actions), applied)
