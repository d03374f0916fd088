"""Between the decision and `status.autoscaling`, which is all that lasts.

The status is read by the next decision, so a restart between two changes nothing. It is written
when something is decided or remembered that was not so before, not for numbers that go up and down.
"""

import datetime

from reranker_operator.api.autoscaling import AutoscalingStatus, RecentNeed
from reranker_operator.core.autoscale.decide import Decision
from reranker_operator.core.autoscale.memory import Memory, Need
from reranker_operator.core.autoscale.words import two_digits

#: What arrives is written anew when it is that many times what was written, or less by as much.
_FACTOR = 1.5
#: Seconds between two writings of such numbers.
_PAUSE = datetime.timedelta(seconds=60)


def memory_of(status: AutoscalingStatus | None) -> Memory:
    """What the next decision builds on."""
    if status is None:
        return Memory()
    return Memory(
        desired=status.desired,
        speed=status.tokens_per_second,
        measured_on=status.measured_on,
        start_seconds=status.start_seconds,
        changed=_seconds(status.changed_time),
        period_from=status.period_from,
        period=_seconds(status.period_time),
        recent=tuple(Need(entry.replicas, entry.time.timestamp()) for entry in status.recent),
        idle_since=_seconds(status.idle_since),
        blind_since=_seconds(status.blind_since),
    )


def status_of(decision: Decision, before: AutoscalingStatus | None) -> AutoscalingStatus:
    """What is written down; what stands already, as long as it is as good."""
    seen, memory = decision.seen, decision.memory
    status = AutoscalingStatus(
        desired=decision.desired,
        reason=decision.outcome.value,
        why=decision.why,
        time=_utc(seen.now),
        arriving_tokens_per_second=_short(seen.arriving_mean),
        backlog_tokens=_short(seen.backlog),
        tokens_per_second=memory.speed,
        measured_on=memory.measured_on,
        ready_pods=seen.ready,
        unknown_pods=seen.unknown,
        starting_pods=max(0, decision.desired - seen.ready),
        pending_pods=seen.pending,
        held_requests=int(two_digits(seen.held or 0)),
        queue_seconds=_short(seen.queue_seconds),
        refused_percent=None if seen.refused is None else _short(100 * seen.refused),
        start_seconds=memory.start_seconds,
        changed_time=_moment(memory.changed),
        period_from=memory.period_from,
        period_time=_moment(memory.period),
        recent=tuple(
            RecentNeed(replicas=need.replicas, time=_utc(need.time)) for need in memory.recent
        ),
        idle_since=_moment(memory.idle_since),
        blind_since=_moment(memory.blind_since),
    )
    if before is None:
        return status
    return status if decision.tells and _tells_more(status, before) else before


def _tells_more(status: AutoscalingStatus, before: AutoscalingStatus) -> bool:
    if memory_of(status) != memory_of(before) or _counts(status) != _counts(before):
        return True
    if datetime.timedelta(0) <= status.time - before.time < _PAUSE:
        return False
    return _far(status.arriving_tokens_per_second, before.arriving_tokens_per_second)


def _counts(status: AutoscalingStatus) -> tuple[object, ...]:
    return (
        status.reason,
        status.ready_pods,
        status.unknown_pods,
        status.starting_pods,
        status.pending_pods,
        status.held_requests > 0,
    )


def _far(value: float | None, known: float | None) -> bool:
    low, high = sorted((value or 0.0, known or 0.0))
    return high > low * _FACTOR


def _short(value: float | None) -> float | None:
    return None if value is None else two_digits(value)


def _seconds(moment: datetime.datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _moment(seconds: float | None) -> datetime.datetime | None:
    return None if seconds is None else _utc(seconds)


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
