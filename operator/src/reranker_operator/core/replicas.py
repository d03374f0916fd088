"""How many pods: whose wish `spec.replicas` is, and who else pulls at the Deployments.

The schema gives `replicas` a default, since the scale subresource answers nobody, HPAs included,
while the field is absent. So the default in the spec may be nobody's wish: who takes `replicas` out
of a manifest that is applied server-side, to leave it to an HPA, has the API server put it there.
The fields' managers tell this moment, in which somebody owned the number and now nobody does; the
number before is written back then. Other numbers without an owner are wishes: of a custom resource
whose number nobody owns, the scale subresource does not record who sets it.

With `spec.autoscaling` the operator decides, and `spec.replicas` is only watched: who goes on
setting it has not noticed. When `autoscaling` is taken out, its last number is one that was let go
of, unless the manifest has one.
"""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from reranker_operator.api.autoscaling import IgnoredScale
from reranker_operator.api.rollout import Contest, ScaleStatus
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.past import past
from reranker_operator.core.plan import ScaleService
from reranker_operator.core.world import Manifest, ServiceWorld

_CONTEST_LASTS = datetime.timedelta(minutes=10)
#: A person who scales a Deployment once sees it put back; twice is a fight.
_FIGHT = 2
#: `status.scale.owner` while the operator decides.
AUTOSCALING = "autoscaling"
_HPA, _KEDA, _KUBECTL = "HorizontalPodAutoscaler", "KEDA", "kubectl"
_SCALERS = {"kube-controller-manager": _HPA, "keda": _KEDA, "keda-operator": _KEDA}


def owners_of_replicas(managed: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The entries of `managedFields` that own `spec.replicas`."""
    return [entry for entry in managed if "f:replicas" in _spec_fields(entry)]


def only_replicas(managed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`managedFields` without all that is not about `spec.replicas`, which is most of it."""
    kept = ("manager", "operation", "subresource")
    return [
        {key: entry[key] for key in kept if key in entry}
        | {"fieldsV1": {"f:spec": {"f:replicas": {}}}}
        for entry in owners_of_replicas(managed)
    ]


def wanted_replicas(service: RerankerService) -> int:
    """The number of pods to aim at."""
    if service.spec.autoscaling is not None:
        decided = service.status.autoscaling
        return begin_with(service) if decided is None else decided.desired
    left = left_alone(service)
    return service.spec.replicas if left is None else left


def may_sleep(service: RerankerService) -> bool:
    """Without work it has no pods, and an activator in their place."""
    if service.spec.autoscaling is not None:
        return service.spec.autoscaling.min == 0
    return service.spec.hold_at_zero and not _is_switched_off(service)


def _is_switched_off(service: RerankerService) -> bool:
    """The 0 is known to be a person's or a manifest's, which no request should undo."""
    owning = owners_of_replicas(service.metadata.managed_fields or ())
    by_hand = [entry.get("subresource") != "scale" or _who(entry) == _KUBECTL for entry in owning]
    return service.spec.replicas == 0 and any(by_hand)


def begin_with(service: RerankerService) -> int:
    """The number with which the operator begins to decide: the one until then."""
    bounds, before = service.spec.autoscaling, service.status.scale
    number = service.spec.replicas if before is None else before.replicas
    return number if bounds is None else min(max(number, bounds.min), bounds.max)


def left_alone(service: RerankerService) -> int | None:
    """The number that its owner has just let go of, if the default stands in its place now."""
    before, managed = service.status.scale, service.metadata.managed_fields
    # None: the object came without managers, which says nothing about any field.
    if before is None or managed is None or owners_of_replicas(managed):
        return None
    if before.owner == AUTOSCALING:
        # Nobody would wake a service that is left with no pods.
        if before.replicas == 0:
            return None
    elif before.set_by is None:
        return None
    default = type(service.spec).model_fields["replicas"].default
    return before.replicas if service.spec.replicas == default != before.replicas else None


def hand_over(service: RerankerService) -> tuple[ScaleService, ...]:
    """Put the number back, so that whoever sets it next, an HPA for one, begins from it."""
    left = None if service.spec.autoscaling else left_alone(service)
    return () if left is None else (ScaleService(service.metadata.name, left),)


def scale_status(world: ServiceWorld, applied: Mapping[str, int]) -> ScaleStatus:
    """What is recorded; `applied` is the number of pods that each Deployment is given now."""
    service, before = world.service, world.service.status.scale
    owning = owners_of_replicas(service.metadata.managed_fields or ())
    set_by = ", ".join(sorted({str(entry.get("manager")) for entry in owning})) or None
    owner = ", ".join(sorted({_who(entry) for entry in owning})) or None
    if service.spec.autoscaling is not None:
        owner = AUTOSCALING
    elif before and left_alone(service) is not None:
        # Until the number is back: this moment must not be forgotten.
        set_by, owner = before.set_by, before.owner
    return ScaleStatus(
        replicas=wanted_replicas(service),
        set_by=set_by,
        owner=owner,
        ignored=_ignored(world, owning) if service.spec.autoscaling is not None else None,
        contest=_contest(world, applied),
    )


def rival(scale: ScaleStatus) -> IgnoredScale | None:
    """Somebody who goes on setting `spec.replicas` beside the operator."""
    other = scale.ignored
    if other is None or not other.times:
        return None
    return other if is_autoscaler(other) or other.times >= _FIGHT else None


def is_autoscaler(other: IgnoredScale) -> bool:
    """An HPA or KEDA sets it, maybe beside others."""
    return not set(_SCALERS.values()).isdisjoint((other.by or "").split(", "))


def _ignored(world: ServiceWorld, owning: list[Mapping[str, Any]]) -> IgnoredScale:
    number = world.service.spec.replicas
    before = world.service.status.scale.ignored if world.service.status.scale else None
    if before is None:
        return IgnoredScale(replicas=number)
    before = before.model_copy(update={"time": past(before.time, world.now)})
    over = before.time is not None and world.now - before.time >= _CONTEST_LASTS
    if before.replicas == number:
        return IgnoredScale(replicas=number) if over else before
    by = ", ".join(sorted({_who(entry) for entry in owning})) or None
    times = 1 if over else before.times + 1
    return IgnoredScale(replicas=number, by=by, times=times, time=world.now)


def _who(entry: Mapping[str, Any]) -> str:
    manager = str(entry.get("manager"))
    if entry.get("subresource") != "scale":
        return manager
    return _SCALERS.get(manager, _KUBECTL if manager.startswith("kubectl") else manager)


def fight(scale: ScaleStatus) -> Contest | None:
    """Somebody else goes on scaling a Deployment of ours."""
    return scale.contest if scale.contest and scale.contest.times >= _FIGHT else None


def is_noted(service: RerankerService, scale: ScaleStatus) -> bool:
    """A contest is seen only until the number is put back."""
    before = service.status.scale
    return scale.contest is not None and scale.contest != (before and before.contest)


def _contest(world: ServiceWorld, applied: Mapping[str, int]) -> Contest | None:
    before = world.service.status.scale.contest if world.service.status.scale else None
    if before is not None:
        before = before.model_copy(update={"time": past(before.time, world.now)})
        before = None if world.now - before.time >= _CONTEST_LASTS else before
    for entry in world.deployments:
        name, found = entry["metadata"]["name"], entry["spec"].get("replicas", 1)
        scaler = _scaler(entry)
        if scaler is None or found == applied.get(name, found):
            continue
        times = before.times if before and before.by == scaler else 0
        return Contest(by=scaler, deployment=name, replicas=found, times=times + 1, time=world.now)
    return before


def _scaler(deployment: Manifest) -> str | None:
    """Who wrote a Deployment's number through its scale subresource: an HPA, KEDA, a person."""
    for entry in owners_of_replicas(deployment["metadata"].get("managedFields") or ()):
        if entry.get("subresource") == "scale":
            return str(entry.get("manager"))
    return None


def _spec_fields(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    fields = entry.get("fieldsV1") or {}
    found = fields.get("f:spec") if isinstance(fields, Mapping) else None
    return found if isinstance(found, Mapping) else {}
