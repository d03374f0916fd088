"""What a rollout looks at: who serves, who is to, how far that is."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from reranker_operator.api.rollout import RolloutProgress
from reranker_operator.core.activation import pods_to_run
from reranker_operator.core.past import past
from reranker_operator.core.revisions import (
    asked_of,
    available_of,
    has_all,
    is_shared,
    live_deployments,
    ready_of,
)
from reranker_operator.core.rollouts.orders import promoted
from reranker_operator.core.rollouts.routed import asked_routes, lacks, unseen
from reranker_operator.core.rollouts.stages import STRAIGHT, Stage, stages
from reranker_operator.core.rollouts.wish import Wish, proven
from reranker_operator.core.world import Manifest, ServiceWorld
from reranker_operator.render.pods import Json

_STRAIGHT = "straight"
#: From which time is counted.
_TIMES = (
    "since", "complete_since", "trouble_since", "failing_since", "unread_since", "gates_time",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """`target` is to get the traffic from `base`, which is None where nothing else could serve.

    `stand` is what the status says of the target's way, as it was read. `trusted`: the target was
    proven before.
    """

    world: ServiceWorld
    live: Mapping[str, Manifest]
    serving: str | None
    target: str
    template: Json | None
    base: str | None
    total: int
    stand: RolloutProgress | None
    trusted: bool

    @property
    def shared(self) -> bool:
        """The address leads to all revisions."""
        return is_shared(self.world)

    @property
    def arrived(self) -> bool:
        """The address leads to the target alone."""
        return self.serving == self.target and not self.shared

    @property
    def straight(self) -> bool:
        """Nothing is judged: it was proven before, or there is nothing to compare with."""
        return self.trusted or self.base is None

    @property
    def strategy(self) -> str:
        """Of the way that the target takes."""
        return _STRAIGHT if self.straight else self.world.service.spec.rollout.strategy

    @property
    def hands_over(self) -> bool:
        """Without room for more pods: the revisions share their number."""
        return self.world.service.spec.rollout.strategy == "noSurge"

    @property
    def routed(self) -> bool:
        """A route of the Gateway API can divide the requests."""
        return bool(asked_routes(self.world))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All that the target goes through."""
        if self.straight:
            return STRAIGHT
        # What was begun with pods keeps its way while there are none.
        total = max(self.total, 1) if self.begun else self.total
        return stages(self.world.service.spec.rollout, total, routed=self.routed)

    @property
    def begun(self) -> bool:
        """The target has had pods on its way."""
        return self.stand is not None and self.stand.asked > 0

    @property
    def dormant(self) -> bool:
        """There are no pods to judge it by, and it was begun with some: it stays where it is."""
        return not self.straight and self.total == 0 and self.begun

    @property
    def number(self) -> int:
        """Of the present stage: what the status says, never what the pods of this moment do.

        They change with each stage that is carried out, and it would go back and forth.
        """
        last = len(self.stages) - 1
        if self.arrived:
            return last
        if self.stand is None or self.stand.strategy != self.strategy:
            return 0
        return self._found(min(self.stand.step, last), self.stand.phase)

    def _found(self, step: int, phase: str | None) -> int:
        """The stage that was reached; another number of pods may have put others before it."""
        phases = [stage.phase for stage in self.stages]
        if phase is None or phases[step] == phase:
            return step
        alike = [number for number, found in enumerate(phases) if found == phase]
        return max((number for number in alike if number <= step), default=min([*alike, step]))

    def _has(self, number: int) -> bool:
        entry, count = self.entry, self.stages[number].count(self.total)
        if entry is None:
            return False
        settled = self._settled(number)
        if settled is not None and asked_of(entry) >= settled <= available_of(entry):
            return True
        return asked_of(entry) >= count and has_all(entry)

    def _settled(self, number: int) -> int | None:
        """Pods with which this stage was complete: that more are wanted since speaks not against
        the revision, and it is not judged by them.
        """
        stand = self.stand
        if stand is None or stand.complete_since is None or self.total == 0:
            return None
        if (stand.strategy, stand.step) != (self.strategy, number) or stand.asked == 0:
            return None
        return min(stand.asked, self.stages[number].count(self.total))

    @property
    def needed(self) -> int:
        """Pods that must be ready for the present stage to be complete."""
        settled = self._settled(self.number)
        return self.stage.count(self.total) if settled is None else settled

    @property
    def stage(self) -> Stage:
        """The present one."""
        return self.stages[self.number]

    @property
    def entry(self) -> Manifest | None:
        """The target's Deployment."""
        return self.live.get(self.target)

    @property
    def has_pods(self) -> bool:
        """All pods of the present stage are ready, as observed."""
        return self._has(self.number)

    @property
    def complete(self) -> bool:
        """All pods of the stage are ready, and the requests come to where they should."""
        there = self.has_pods and (self.stage.address != "new" or self.arrived)
        return there and self.unshared is None

    @property
    def unshared(self) -> str | None:
        """Why it does not get its share of the requests, though its pods are ready; None: it does,
        or nobody waits for that.
        """
        by_route = self.stage.phase == "Canary" and self.routed and self.total > 0
        if not by_route or not self.has_pods:
            return None
        if promoted(self.world.service, self.target, self.number):
            return None
        return lacks(self.world, self.stage.weight)

    @property
    def unseen(self) -> bool:
        """It may well get its share, but the operator has no right to look: not its fault."""
        return self.unshared is not None and unseen(self.world) is not None

    @property
    def weight(self) -> int:
        """Percent of the requests that a route should give to the target.

        Never more than its ready pods are meant for: a share without pods would be refused.
        """
        if self.has_pods:
            return self.stage.weight
        before = self.stages[self.number - 1] if self.number else None
        entry = self.entry
        if before is None or entry is None or ready_of(entry) < before.count(self.total):
            return 0
        return before.weight


def look(world: ServiceWorld, wish: Wish, serving: str | None) -> View | None:
    """The view; None where there is nothing to serve."""
    if wish.revision is None:
        return None
    live, status = live_deployments(world), world.service.status
    stand = status.rollout
    if stand is not None:
        stand = _until_now(stand, world.now) if stand.revision == wish.revision else None
    last = proven(world.service)
    return View(
        world,
        live,
        serving,
        wish.revision,
        wish.template,
        _base(live, serving, wish.revision, last),
        pods_to_run(world),
        stand,
        trusted=wish.revision == last or (wish.undone and wish.given_up is None),
    )


def _until_now(stand: RolloutProgress, now: datetime.datetime) -> RolloutProgress:
    """Who wrote it may have had a clock that went ahead: what is still to come began now."""
    return stand.model_copy(update={name: past(getattr(stand, name), now) for name in _TIMES})


def _base(
    live: Mapping[str, Manifest], serving: str | None, target: str, last: str | None
) -> str | None:
    """The revision that keeps the service up until the target does.

    The one that was proven last, even where another one has the traffic that is still judged: that
    one is superseded, and nobody can say whether it was good.
    """
    others = [revision for revision in live if revision != target]
    if last in others and (last == serving or has_all(live[last]) or serving not in others):
        return last
    return serving if serving in others else None
