"""The pods of a service as the decision sees them, and the world after the decision."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reranker_operator.api.autoscaling import AutoscalingSpec, AutoscalingStatus
from reranker_operator.api.rollout import ColdStart, RolloutProgress
from reranker_operator.core.autoscale.decide import decide
from reranker_operator.core.autoscale.measure import PodView, Seen, see
from reranker_operator.core.autoscale.record import memory_of, status_of
from reranker_operator.core.causes.pods import condition_of, has_ended, is_ready, moment
from reranker_operator.core.cold_start import believable, is_first
from reranker_operator.core.load import PodLoad
from reranker_operator.core.replicas import begin_with
from reranker_operator.core.revisions import (
    in_traffic,
    live_deployments,
    pods_of,
    revision_of,
    running_of,
    serving_revision,
)
from reranker_operator.core.world import Manifest, ServiceWorld, is_leaving

#: Seconds until the number is looked at again when nobody says that it would be another one. Each
#: round of reading the pods asks that, see `Outlook.holds`.
LOOK_SECONDS = 60.0


def decided(world: ServiceWorld) -> ServiceWorld:
    """The world in which the number of pods is the one that is right now."""
    service, found = world.service, outlook(world)
    if found is None:
        return world
    decided_now = found.decide(world.loads, world.now.timestamp())
    status = service.status.model_copy(update={"autoscaling": decided_now})
    return replace(world, service=service.model_copy(update={"status": status}))


@dataclass(frozen=True)
class Outlook:
    """All but the loads that the decision is made from: little, so that it can be kept."""

    rules: AutoscalingSpec
    before: AutoscalingStatus | None
    begin: int
    given: int
    views: tuple[PodView, ...]
    rolling: bool
    revision: str | None
    #: Seconds of the last start that was measured.
    start: float | None = None

    def seen(self, loads: Sequence[PodLoad], now: float) -> Seen:
        """With these loads, `now` in seconds since the epoch."""
        return see(
            self.views,
            loads,
            now,
            start_timeout=self.rules.start_timeout_seconds,
            rolling=self.rolling,
            revision=self.revision,
            start=self.start,
        )

    def decide(self, loads: Sequence[PodLoad], now: float) -> AutoscalingStatus:
        """The number of pods that is right then, and why; `before` itself if nothing is new."""
        memory = memory_of(self.before)
        rest = {"begin": self.begin, "given": self.given}
        try:
            decision = decide(self.rules, self.seen(loads, now), memory, **rest)
        except (ArithmeticError, ValueError):
            # Pods choose what they say: numbers that can't be reckoned with are as good as none.
            decision = decide(self.rules, self.seen((), now), memory, **rest)
        return status_of(decision, self.before)

    def holds(self, loads: Sequence[PodLoad], now: float) -> bool:
        """Whether nobody need look at the service: it would be decided as it was."""
        return self.before is not None and self.decide(loads, now) is self.before


def outlook(world: ServiceWorld) -> Outlook | None:
    """None where the operator does not decide the number of pods."""
    service, spec, now = world.service, world.service.spec.autoscaling, world.now.timestamp()
    if spec is None:
        return None
    under_way = world.service.status.rollout
    revision, start = serving_revision(world), believable(service.status.cold_start)
    rolling = (
        under_way is not None
        and under_way.revision != revision
        and revision is not None
        and (_stands(under_way) or now - under_way.since.timestamp() <= spec.start_timeout_seconds)
    )
    return Outlook(
        rules=spec,
        before=service.status.autoscaling,
        begin=begin_with(service),
        given=running_of(world),
        views=tuple(_views(world, revision)),
        rolling=rolling,
        revision=revision,
        start=start.seconds if start else None,
    )


def next_look(world: ServiceWorld) -> float | None:
    """Seconds until the number is worth another look."""
    return None if world.service.spec.autoscaling is None else LOOK_SECONDS


def _stands(under_way: RolloutProgress) -> bool:
    """It has its pods, or waits for somebody. One that lacks pods, and gets no further, must not
    keep the pods of the other for ever.
    """
    return under_way.awaits_promotion or under_way.held or under_way.complete_since is not None


def _views(world: ServiceWorld, serving: str | None) -> Iterator[PodView]:
    """Pods of the traffic, be it by a route; before there is any, all that are to serve."""
    live, under_way = live_deployments(world), world.service.status.rollout
    reached = in_traffic(world, serving) or list(live.values())
    if under_way is not None and under_way.by == "route":
        led = live.get(under_way.revision)
        reached += [led] if led is not None and led not in reached else []
    for deployment in reached:
        for pod in pods_of(world, revision_of(deployment)):
            if not is_leaving(pod) and not has_ended(pod):
                yield _view(pod, world.now.timestamp(), world.service.status.cold_start)


def _view(pod: Manifest, now: float, known: ColdStart | None) -> PodView:
    ready, placed = condition_of(pod, "Ready"), condition_of(pod, "PodScheduled")
    created = _time(pod["metadata"].get("creationTimestamp"), now)
    homeless = placed.get("status") == "False" and placed.get("reason") == "Unschedulable"
    return PodView(
        name=str(pod["metadata"]["name"]),
        ready=is_ready(pod),
        created=created,
        since=_time(ready.get("lastTransitionTime"), created),
        no_node_since=_time(placed.get("lastTransitionTime"), created) if homeless else None,
        first=is_first(pod, believable(known)),
    )


def _time(text: object, otherwise: float) -> float:
    found = moment(text)
    return otherwise if found is None else found.timestamp()
