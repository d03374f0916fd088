"""What becomes of a revision on its way: it waits, goes on, is proven, or is given up."""

import datetime
import math
from dataclasses import dataclass
from typing import NamedTuple

from reranker_operator import names
from reranker_operator.api.rollout import FailedRevision, GateStatus, Measured, RolloutProgress
from reranker_operator.core.causes.finding import Finding
from reranker_operator.core.obstacles import obstacle
from reranker_operator.core.revisions import asked_of, engine_of, pods_of, ready_of
from reranker_operator.core.rollouts import gates, reading, trouble
from reranker_operator.core.rollouts.orders import aborted, promoted, retry_of
from reranker_operator.core.rollouts.reading import Reading
from reranker_operator.core.rollouts.routed import in_force
from reranker_operator.core.rollouts.stages import share_of_pods
from reranker_operator.core.rollouts.view import View

#: Metrics are looked at as often while a revision is judged by them.
_LOOK_SECONDS = 5.0
_TELL = datetime.timedelta(seconds=20)
#: The same while only somebody's word is waited for, maybe for days.
_TELL_RARELY = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class Step:
    """`under_way` is None once it is `proven`, or given up."""

    under_way: RolloutProgress | None
    why: str
    proven: bool = False
    failed: FailedRevision | None = None
    remaining: float | None = None
    decides_after: float | None = None


class _Verdict(NamedTuple):
    gate: str
    message: str


def advance(view: View, why: str, *, given: int, held_by_floor: bool) -> Step:
    """The next of its status, from the one that was read and from what is seen.

    `given` is the number of pods that the target gets now. `held_by_floor`: it gets no further for
    as long as the floor holds, and that is not its fault.
    """
    now, settings = view.world.now, view.world.service.spec.rollout
    found = None if view.complete else obstacle(view.world, view.target)
    here = _observe(view, found, why, given)
    remaining = None
    if not view.complete and not held_by_floor and not view.dormant:
        limit = datetime.timedelta(seconds=settings.progress_deadline_seconds)
        remaining = (here.since + limit - now).total_seconds()
    verdict = _verdict(view, here, found, remaining)
    may = settings.auto_rollback or (verdict is not None and verdict.gate == "abort")
    if verdict is not None and may and not view.straight:
        return Step(None, why, failed=_failure(view, verdict, why), decides_after=0.0)
    failing = here.failing_since is not None and not _promoted(view)
    over = _time_is_over(view, here)
    waits = view.stage.until_promoted and over and not _promoted(view)
    asleep = view.dormant and not _promoted(view)
    if view.complete and over and not failing and not waits and not asleep:
        if view.number == len(view.stages) - 1:
            return Step(None, why, proven=True)
        return Step(_next(view, here), why, decides_after=0.0)
    if waits:
        here = here.model_copy(update={"awaits_promotion": True})
    return Step(
        _calm(view.stand, here), why, remaining=remaining, decides_after=_next_look(view, here)
    )


def _observe(view: View, found: Finding | None, why: str, given: int) -> RolloutProgress:
    """The target as it is seen now, with the times that go on."""
    now, before, stage = view.world.now, view.stand, view.stage
    # What it is given now, not only what it was seen to have.
    asked, ready = max(asked_of(view.entry), given), ready_of(view.entry)
    same = before is not None and _is_same(view, before)
    if before is not None and (view.dormant or (same and _is_settled(view, before, asked))):
        asked = before.asked
    metrics = reading.read(view)
    dumb = metrics.unread + metrics.unread_comparing
    judged = () if view.straight else _gates(view, before, metrics)
    failing = any(gate.state == "Failed" for gate in judged)
    hopeless = trouble.is_hopeless(found)
    here = RolloutProgress(
        revision=view.target,
        since=now,
        asked=asked,
        ready=max(ready, before.ready if before and same else 0),
        why=why,
        strategy=view.strategy,
        step=view.number,
        phase=stage.phase,
        weight=_weight(view),
        by=("route" if view.routed else "replicas") if view.strategy == "canary" else None,
        complete_since=now if view.complete else None,
        trouble=found.reason if found is not None and hopeless else None,
        trouble_since=now if hopeless else None,
        failing_since=now if failing else None,
        unread_since=now if judged and dumb and view.complete else None,
        gates=judged,
        gates_time=now if judged else None,
        before=_before(view),
        compared_before=metrics.tally.before,
        compared=metrics.tally.counted,
    )
    if before is None or before.held:
        return here
    kept = {
        name: getattr(before, name)
        for name in ("complete_since", "trouble_since", "failing_since", "unread_since")
        if getattr(here, name) is not None and getattr(before, name) is not None
        and (same or name not in ("complete_since", "unread_since"))
    }  # fmt: skip
    if same and not failing and _is_unseen(here.model_copy(update=kept), now):
        # That it fails no more is not known.
        kept["failing_since"] = before.failing_since
    lost = before.complete_since is not None and not view.complete
    further = here.asked > before.asked or here.ready > before.ready
    if same and not further and not lost:
        kept["asked"] = before.asked
        # No time is counted while it can't be seen, and that is not written each time.
        if not view.unseen or now - before.since < _TELL:
            kept["since"] = before.since
    return here.model_copy(update=kept)


def _is_settled(view: View, before: RolloutProgress, asked: int) -> bool:
    """Other pods come beside those that it was complete with, and still is."""
    was = before.complete_since is not None and before.asked > 0
    return was and view.complete and ready_of(view.entry) < asked


def _calm(before: RolloutProgress | None, here: RolloutProgress) -> RolloutProgress:
    """Numbers alone are not written each time that they are looked at."""
    if before is None or before.gates_time is None or here.gates_time is None:
        return here
    every = _TELL_RARELY if before.awaits_promotion and here.awaits_promotion else _TELL
    old = here.gates_time - before.gates_time >= every
    states = [[(gate.name, gate.state) for gate in side.gates] for side in (before, here)]
    if states[0] != states[1] or (old and before.gates != here.gates):
        return here
    if before.compared_before != here.compared_before:
        # Pods that come, go or begin anew: what is read next is understood by this.
        return here
    kept = {name: getattr(before, name) for name in ("gates", "gates_time", "compared")}
    return here.model_copy(update=kept)


def _before(view: View) -> Measured | None:
    """What the former revision did when the new one was begun, to compare with later."""
    if view.stand is not None and view.stand.before is not None:
        return view.stand.before
    if view.straight or view.arrived:
        return None
    loads, limits = view.world.loads, view.world.service.spec.rollout.gates
    lately = gates.lately(loads, view.base)
    enough = lately.requests >= limits.min_requests and lately.tokens >= limits.min_tokens
    found = lately if enough else gates.in_all(loads, view.base)
    return found if found.requests else None


def _is_unseen(here: RolloutProgress, now: datetime.datetime) -> bool:
    """For as long as its pods may yet be read."""
    return here.unread_since is not None and now - here.unread_since < gates.READING


def _gates(view: View, before: RolloutProgress | None, metrics: Reading) -> tuple[GateStatus, ...]:
    world, count = view.world, view.needed
    engine = engine_of(view.entry)
    report = next(
        (entry.status.parity for entry in world.engines if entry.metadata.name == engine), None
    )
    compared = before.before if before else None
    new, former = _sides(view, compared)
    judged = gates.judge(
        world.service.spec.rollout.gates,
        new,
        former,
        unread=metrics.unread,
        alone=_alone(view, before),
        left=_left(view, compared),
    )
    return (
        gates.readiness(min(ready_of(view.entry), count), count),
        gates.parity(report),
        *judged,
        *reading.agreement(view, metrics),
    )


def _alone(view: View, before: RolloutProgress | None) -> Measured | str | None:
    """See gates.judge: a preview that scores are compared with is asked but a share."""
    asked = view.world.service.spec.rollout
    if view.strategy != "blueGreen" or asked.gates.shadow is None:
        return None
    if asked.bake_seconds < gates.WINDOW_SECONDS:
        return (
            f"not judged: it is from {gates.WINDOW_SECONDS:g} s with the traffic on, and "
            f"spec.rollout.bakeSeconds is {asked.bake_seconds}"
        )
    since = before.complete_since if before is not None and _is_same(view, before) else None
    moved = since.timestamp() if since is not None and view.complete and view.arrived else math.inf
    if view.world.now.timestamp() - moved < gates.WINDOW_SECONDS:
        return f"judged when it has had the traffic for {gates.WINDOW_SECONDS:g} s"
    return gates.lately(view.world.loads, view.target, moved)


def _is_same(view: View, before: RolloutProgress) -> bool:
    """It was in this stage already."""
    return (before.strategy, before.step) == (view.strategy, view.number)


def _verdict(
    view: View, here: RolloutProgress, found: Finding | None, remaining: float | None
) -> _Verdict | None:
    """What it has failed, if it has."""
    now, service = view.world.now, view.world.service
    if aborted(service, view.target):
        return _Verdict("abort", f"ended by annotation {names.ABORT}")
    gate = next((gate for gate in here.gates if gate.state == "Failed"), None)
    if gate and here.failing_since and now - here.failing_since >= gates.PERSISTS:
        return _Verdict(gate.name, gate.message)
    counted = f"{here.ready} of {view.needed} pods were ready"
    if found and here.trouble_since and now - here.trouble_since >= trouble.PATIENCE:
        return _Verdict("ready", f"{counted}: {found.message}")
    slow = None if view.complete else trouble.slow(view.world, view.target, view.base)
    if slow is not None and now - slow[0] >= slow[1]:
        seconds = slow[1].total_seconds()
        text = f"{counted}, and one has loaded its engine for more than {seconds:.0f} s"
        return _Verdict("ready", f"{text}: {found.message}" if found else text)
    if remaining is not None and remaining <= 0:
        return _Verdict("ready", _overdue(view, counted, found))
    return None


def _overdue(view: View, counted: str, found: Finding | None) -> str:
    seconds = view.world.service.spec.rollout.progress_deadline_seconds
    if view.unshared is not None:
        return f"{counted}, but got no share of the requests within {seconds} s: {view.unshared}"
    text = f"{counted}, and no other became so within {seconds} s"
    return f"{text}: {found.message}" if found else text


def _failure(view: View, verdict: _Verdict, why: str) -> FailedRevision:
    return FailedRevision(
        revision=view.target,
        time=view.world.now,
        gate=verdict.gate,
        message=verdict.message[:1024],
        why=why,
        retry=retry_of(view.world.service),
    )


def _time_is_over(view: View, here: RolloutProgress) -> bool:
    if not view.complete or here.complete_since is None:
        return False
    now, end = view.world.now, here.complete_since + datetime.timedelta(seconds=view.stage.seconds)
    if view.stage.seconds and here.unread_since is not None:
        # Time alone proves nothing where nobody looked, but pods that stay dumb hold up nothing.
        end = max(end, here.unread_since) + gates.READING
    return (now >= end and _left(view, here.before) is None) or _promoted(view)


def _sides(view: View, compared: Measured | None) -> tuple[gates.Sides, gates.Sides]:
    """What the target did, and the former revision: lately, and in a longer time."""
    loads = view.world.loads
    new = gates.lately(loads, view.target), gates.in_all(loads, view.target)
    return new, (gates.lately(loads, view.base), compared or Measured())


def _left(view: View, compared: Measured | None) -> str | None:
    """What it was asked for and has not done: nobody is proven by that."""
    world = view.world
    if not view.stage.seconds or view.straight:
        return None
    waiting = gates.waiting(world.loads, view.target, world.now.timestamp())
    limits = world.service.spec.rollout.gates
    new, former = _sides(view, compared)
    if view.stage.phase == "Preview" and limits.shadow is not None:
        # A mere share of the requests fills no batches: its speed is not judged.
        former = Measured(), Measured()
    return gates.unfinished(limits, new, former, waiting)


def _promoted(view: View) -> bool:
    """Somebody said that it need not wait: to its end, or up to a stage."""
    return promoted(view.world.service, view.target, view.number)


def _next(view: View, here: RolloutProgress) -> RolloutProgress:
    """The first moment of the next stage."""
    number = view.number + 1
    stage = view.stages[number]
    return here.model_copy(
        update={
            "step": number, "phase": stage.phase, "since": view.world.now, "complete_since": None,
            "unread_since": None, "awaits_promotion": False, "trouble": None, "trouble_since": None,
        }
    )  # fmt: skip


def _weight(view: View) -> int | None:
    if view.strategy != "canary":
        return None
    if view.arrived:
        return 100
    if view.routed:
        return in_force(view.world)
    return share_of_pods(ready_of(view.live.get(view.base or "")), ready_of(view.entry))


def _next_look(view: View, here: RolloutProgress) -> float | None:
    """Seconds until a time is over, or the metrics may say something new."""
    now = view.world.now
    ends: list[datetime.datetime] = []
    if here.complete_since is not None and not here.awaits_promotion:
        ends.append(here.complete_since + datetime.timedelta(seconds=view.stage.seconds))
    if here.trouble_since is not None:
        ends.append(here.trouble_since + trouble.PATIENCE)
    slow = None if view.complete else trouble.slow(view.world, view.target, view.base)
    if slow is not None:
        ends.append(slow[0] + slow[1])
    waits = [wait for end in ends if (wait := (end - now).total_seconds()) > 0]
    measured = any(load.revision == view.target for load in view.world.loads)
    if measured and not view.straight and pods_of(view.world, view.target):
        waits.append(_LOOK_SECONDS)
    return min(waits, default=None)
