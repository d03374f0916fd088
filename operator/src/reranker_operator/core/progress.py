"""What is remembered of rollouts: how far the present one is, and which ones came to their end."""

import datetime
from dataclasses import dataclass

from reranker_operator.api.rollout import RevisionRecord, RolloutProgress
from reranker_operator.core.changes import summary
from reranker_operator.core.revisions import (
    asked_of,
    carries_out_spec,
    engine_of,
    is_available,
    is_shared,
    live_deployments,
    ready_of,
)
from reranker_operator.core.rollout import Rollout
from reranker_operator.core.world import ServiceWorld


@dataclass(frozen=True)
class Progress:
    """For status; `remaining` seconds until the deadline, None where none is counted."""

    under_way: RolloutProgress | None
    history: tuple[RevisionRecord, ...]
    remaining: float | None = None

    @property
    def overdue(self) -> bool:
        """Nothing got further for longer than the deadline allows."""
        return self.remaining is not None and self.remaining <= 0

    @property
    def wake_after(self) -> float | None:
        """Seconds to a deadline that is still to come."""
        return None if self.overdue else self.remaining


def follow(world: ServiceWorld, rollout: Rollout, changes: tuple[str, ...]) -> Progress:
    """How far the wanted revision is, and its record once it is there."""
    status, kept = world.service.status, world.service.spec.rollout.history
    history, revision = status.history, rollout.wanted
    newest = history[0].revision if history else None
    if revision is None or (revision == newest and not rollout.rolling):
        return Progress(None, history[: kept + 1])
    before = status.rollout if status.rollout and status.rollout.revision == revision else None
    why = before.why if before else _why(world, rollout, changes)
    entry = live_deployments(world).get(revision)
    if entry and not rollout.rolling and not is_shared(world) and is_available(entry, world):
        record = RevisionRecord(
            revision=revision, engine=engine_of(entry) or "", time=world.now, why=why
        )
        return Progress(None, (record, *history)[: kept + 1])
    under_way = RolloutProgress(
        revision=revision,
        since=world.now,
        # What it is given now, not only what it was seen to have.
        asked=max(asked_of(entry), rollout.given),
        ready=max(ready_of(entry), before.ready if before else 0),
        why=why,
    )
    if before and under_way.asked <= before.asked and under_way.ready <= before.ready:
        under_way = before
    limit = datetime.timedelta(seconds=world.service.spec.rollout.progress_deadline_seconds)
    return Progress(
        under_way,
        history[: kept + 1],
        (under_way.since + limit - world.now).total_seconds(),
    )


def _why(world: ServiceWorld, rollout: Rollout, changes: tuple[str, ...]) -> str:
    if rollout.serving is None or not rollout.rolling:
        return "first start" if not world.service.status.history else ""
    whose = "operator, source or reference" if carries_out_spec(world) else "spec"
    return f"{whose}: {summary(changes)}"
