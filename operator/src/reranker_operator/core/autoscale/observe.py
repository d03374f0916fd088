"""The pods of a service as the decision sees them, and the world after the decision."""

from collections.abc import Iterator
from dataclasses import replace

from reranker_operator.core.autoscale.decide import decide
from reranker_operator.core.autoscale.measure import PodView, Seen, see
from reranker_operator.core.autoscale.record import memory_of, status_of
from reranker_operator.core.causes.pods import condition_of, moment
from reranker_operator.core.replicas import begin_with
from reranker_operator.core.revisions import (
    in_traffic,
    live_deployments,
    pods_of,
    revision_of,
    serving_revision,
)
from reranker_operator.core.world import Manifest, ServiceWorld, is_leaving

_ENDED = frozenset({"Succeeded", "Failed"})
#: Seconds until the number is looked at again when nobody says that the load has changed.
LOOK_SECONDS = 5.0


def decided(world: ServiceWorld) -> ServiceWorld:
    """The world in which the number of pods is the one that is right now."""
    service = world.service
    if service.spec.autoscaling is None:
        return world
    before = service.status.autoscaling
    decision = decide(
        service.spec.autoscaling, seen_in(world), memory_of(before), begin=begin_with(service)
    )
    status = service.status.model_copy(update={"autoscaling": status_of(decision, before)})
    return replace(world, service=service.model_copy(update={"status": status}))


def seen_in(world: ServiceWorld) -> Seen:
    """What the decision is made from; the service has `spec.autoscaling`."""
    spec, now = world.service.spec.autoscaling, world.now.timestamp()
    assert spec is not None
    under_way = world.service.status.rollout
    revision = serving_revision(world)
    rolling = (
        under_way is not None
        and under_way.revision != revision
        and revision is not None
        # One that gets no further for that long must not keep the pods of the other for ever.
        and now - under_way.since.timestamp() <= spec.start_timeout_seconds
    )
    return see(
        list(_views(world, revision)),
        world.loads,
        now,
        start_timeout=spec.start_timeout_seconds,
        rolling=rolling,
        revision=revision,
    )


def next_look(world: ServiceWorld) -> float | None:
    """Seconds until the number is worth another look."""
    return None if world.service.spec.autoscaling is None else LOOK_SECONDS


def is_ready(pod: Manifest) -> bool:
    """It answers its readiness probe, as far as its kubelet has said."""
    said = condition_of(pod, "Ready").get("status")
    return pod.get("status", {}).get("phase") == "Running" and said in (None, "True")


def _views(world: ServiceWorld, serving: str | None) -> Iterator[PodView]:
    """Pods of the traffic; before there is any, all that are to serve."""
    reached = in_traffic(world, serving) or list(live_deployments(world).values())
    for deployment in reached:
        for pod in pods_of(world, revision_of(deployment)):
            if not is_leaving(pod) and pod.get("status", {}).get("phase") not in _ENDED:
                yield _view(pod, world.now.timestamp())


def _view(pod: Manifest, now: float) -> PodView:
    ready, placed = condition_of(pod, "Ready"), condition_of(pod, "PodScheduled")
    created = _time(pod["metadata"].get("creationTimestamp"), now)
    homeless = placed.get("status") == "False" and placed.get("reason") == "Unschedulable"
    return PodView(
        name=str(pod["metadata"]["name"]),
        ready=is_ready(pod),
        created=created,
        since=_time(ready.get("lastTransitionTime"), created),
        no_node_since=_time(placed.get("lastTransitionTime"), created) if homeless else None,
    )


def _time(text: object, otherwise: float) -> float:
    found = moment(text)
    return otherwise if found is None else found.timestamp()
