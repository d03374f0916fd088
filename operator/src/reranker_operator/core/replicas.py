"""How many pods: whose wish `spec.replicas` is, and who else pulls at the Deployments.

The schema gives `replicas` a default, since the scale subresource answers nobody, HPAs included,
while the field is absent. So the default in the spec may be nobody's wish: who takes `replicas` out
of a manifest that is applied server-side, to leave it to an HPA, has the API server put it there.
The fields' managers tell this moment, in which somebody owned the number and now nobody does; the
number before is written back then. Other numbers without an owner are wishes: of a custom resource
whose number nobody owns, the scale subresource does not record who sets it.
"""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from reranker_operator.api.rollout import Contest, ScaleStatus
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.plan import ScaleService
from reranker_operator.core.world import Manifest, ServiceWorld

_CONTEST_LASTS = datetime.timedelta(minutes=10)
#: A person who scales a Deployment once sees it put back; twice is a fight.
_FIGHT = 2


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
    left = left_alone(service)
    return service.spec.replicas if left is None else left


def left_alone(service: RerankerService) -> int | None:
    """The number that its owner has just let go of, if the default stands in its place now."""
    before, managed = service.status.scale, service.metadata.managed_fields
    # None: the object came without managers, which says nothing about any field.
    if before is None or before.set_by is None or managed is None or owners_of_replicas(managed):
        return None
    default = type(service.spec).model_fields["replicas"].default
    return before.replicas if service.spec.replicas == default != before.replicas else None


def hand_over(service: RerankerService) -> tuple[ScaleService, ...]:
    """Put the number back, so that whoever sets it next, an HPA for one, begins from it."""
    left = left_alone(service)
    return () if left is None else (ScaleService(service.metadata.name, left),)


def scale_status(world: ServiceWorld, applied: Mapping[str, int]) -> ScaleStatus:
    """What is recorded; `applied` is the number of pods that each Deployment is given now."""
    managed = world.service.metadata.managed_fields or ()
    managers = sorted({str(entry.get("manager")) for entry in owners_of_replicas(managed)})
    set_by = ", ".join(managers) or None
    if world.service.status.scale and left_alone(world.service) is not None:
        # Until the number is back: this moment must not be forgotten.
        set_by = world.service.status.scale.set_by
    return ScaleStatus(
        replicas=wanted_replicas(world.service),
        set_by=set_by,
        contest=_contest(world, applied),
    )


def fight(scale: ScaleStatus) -> Contest | None:
    """Somebody else goes on scaling a Deployment of ours."""
    return scale.contest if scale.contest and scale.contest.times >= _FIGHT else None


def is_noted(service: RerankerService, scale: ScaleStatus) -> bool:
    """A contest is seen only until the number is put back."""
    before = service.status.scale
    return scale.contest is not None and scale.contest != (before and before.contest)


def _contest(world: ServiceWorld, applied: Mapping[str, int]) -> Contest | None:
    before = world.service.status.scale.contest if world.service.status.scale else None
    if before is not None and world.now - before.time >= _CONTEST_LASTS:
        before = None
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
