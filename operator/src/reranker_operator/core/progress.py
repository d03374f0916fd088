"""What is remembered of rollouts: how far the present one is, and which ones came to their end."""

from dataclasses import dataclass
from itertools import accumulate

from reranker_operator.api.rollout import FailedRevision, RevisionRecord, RolloutProgress
from reranker_operator.core.changes import summary
from reranker_operator.core.revisions import carries_out_spec, engine_of, live_deployments
from reranker_operator.core.rollout import Rollout
from reranker_operator.core.rollouts.advance import Step, advance
from reranker_operator.core.rollouts.view import View
from reranker_operator.core.rollouts.wish import given_up
from reranker_operator.core.world import ServiceWorld
from reranker_operator.names import SPEC_HASH, TEMPLATE_ANNOTATION
from reranker_operator.render import serving as render

#: Revisions that were given up, on record.
_MOST_FAILED = 5
#: Characters of packed templates, newest first: the status must fit into what etcd takes.
_MOST_TEMPLATES = 512 << 10


@dataclass(frozen=True)
class Progress:
    """For status; `remaining` seconds until the deadline, None where none is counted."""

    under_way: RolloutProgress | None
    history: tuple[RevisionRecord, ...]
    failed: tuple[FailedRevision, ...] = ()
    remaining: float | None = None
    #: Seconds to the next moment at which something is decided.
    decides_after: float | None = None

    @property
    def overdue(self) -> bool:
        """Nothing got further for longer than the deadline allows."""
        return self.remaining is not None and self.remaining <= 0

    @property
    def wake_after(self) -> float | None:
        """Seconds to a moment that is still to come."""
        waits = (None if self.overdue else self.remaining, self.decides_after)
        return min((wait for wait in waits if wait is not None), default=None)


def follow(world: ServiceWorld, rollout: Rollout, changes: tuple[str, ...]) -> Progress:
    """How far the wanted revision is, and its record once it is there."""
    view, status = rollout.view, world.service.status
    history, failed = _kept(world, status.history), _still_failed(world, rollout)
    if view is None:
        return Progress(None, history, failed)
    if rollout.frozen:
        return Progress(_held(view), history, failed)
    newest = history[0].revision if history else None
    known = rollout.wanted is not None or view.stand is not None
    if not known or (view.target == newest and view.arrived):
        return Progress(None, history, failed)
    why = view.stand.why if view.stand else _why(world, rollout, changes)
    step = advance(view, why, given=rollout.given, held_by_floor=rollout.floor_holds)
    if step.failed is not None:
        failed = (step.failed, *failed)[:_MOST_FAILED]
    if step.proven and view.target != newest:
        history = _kept(world, (_record(view, step), *history))
        failed = tuple(entry for entry in failed if entry.revision != view.target)
    return Progress(step.under_way, history, failed, step.remaining, step.decides_after)


def _held(view: View) -> RolloutProgress | None:
    """It stands still; no time is counted."""
    if view.stand is None:
        return None
    return view.stand.model_copy(
        update={
            "held": True, "complete_since": None, "trouble": None, "trouble_since": None,
            "failing_since": None, "unread_since": None, "awaits_promotion": False,
        }
    )  # fmt: skip


def _still_failed(world: ServiceWorld, rollout: Rollout) -> tuple[FailedRevision, ...]:
    """A failure holds until another revision is asked for, or another try."""
    service, asked = world.service, rollout.wish.asked
    return tuple(
        entry.model_copy(update={"in_force": False})
        if entry.in_force
        and (given_up(service, entry.revision) != entry or asked not in (None, entry.revision))
        else entry
        for entry in service.status.failed
    )


def _record(view: View, step: Step) -> RevisionRecord:
    entry = view.live[view.target]
    return RevisionRecord(
        revision=view.target,
        engine=engine_of(entry) or "",
        time=view.world.now,
        why=step.why,
    )


def _kept(world: ServiceWorld, history: tuple[RevisionRecord, ...]) -> tuple[RevisionRecord, ...]:
    """As many as are wanted; the newest with what is needed to go back to them."""
    asked = world.service.spec.rollout
    uid, records = world.service.metadata.uid, []
    engines = {name for name, owners in world.engine_owners.items() if uid in owners}
    for number, record in enumerate(history[: asked.history + 1]):
        if number > asked.keep_engines or record.engine not in engines:
            records.append(record.model_copy(update={"template": None}))
        else:
            records.append(_with_template(world, record))
    sizes = accumulate(len(record.template or "") for record in records)
    return tuple(
        record if size <= _MOST_TEMPLATES else record.model_copy(update={"template": None})
        for record, size in zip(records, sizes, strict=True)
    )


def _with_template(world: ServiceWorld, record: RevisionRecord) -> RevisionRecord:
    entry = live_deployments(world).get(record.revision)
    if record.template is not None or entry is None or render.template_of(entry) is None:
        return record
    annotations = entry["metadata"]["annotations"]
    return record.model_copy(
        update={
            "template": annotations[TEMPLATE_ANNOTATION],
            "spec_hash": annotations.get(SPEC_HASH),
        }
    )


def _why(world: ServiceWorld, rollout: Rollout, changes: tuple[str, ...]) -> str:
    if rollout.serving is None or not rollout.rolling:
        return "first start" if not world.service.status.history else ""
    if rollout.wish.given_up is not None:
        return f"revision {rollout.wish.given_up.revision} was given up"
    if rollout.wish.undone:
        return "undo"
    whose = "operator, source or reference" if carries_out_spec(world) else "spec"
    return f"{whose}: {summary(changes)}"


def kept_engines(world: ServiceWorld) -> set[str]:
    """Engines of former revisions that can be gone back to."""
    return {
        record.engine for record in _kept(world, world.service.status.history) if record.template
    }
