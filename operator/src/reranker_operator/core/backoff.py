"""When to try again, computed from what status says, so that a restart changes nothing."""

import datetime

from reranker_contracts import StageReason
from reranker_contracts.stages import OF_THE_MODEL, OF_THE_TARGET
from reranker_operator.api.v1alpha1 import Attempts

_FIRST = 10.0
_LONGEST = 600.0
_LAST_DOUBLING = 16

#: Failures that the same inputs will meet again; only a changed spec helps.
PERMANENT = frozenset(
    reason.value
    for reason in (
        StageReason.SOURCE_UNSUPPORTED,
        *OF_THE_MODEL,
        # A compiler's words may be those of a machine in trouble.
        *(OF_THE_TARGET - {StageReason.COMPILE_FAILED}),
    )
)


def doubled(first: float, times: int, longest: float) -> float:
    """`first` doubled so many times, but at most `longest`; all in seconds."""
    # Bounded before the power: a float overflows after a thousand failures.
    return min(longest, first * 2.0 ** min(times, _LAST_DOUBLING))


def delay_after(failures: int) -> float:
    """Seconds to wait after this many failures: 10, 20, 40 … up to 600."""
    return doubled(_FIRST, max(0, failures - 1), _LONGEST)


def seconds_until_retry(attempts: Attempts, now: datetime.datetime) -> float | None:
    """0 or less: now. None: never, the failure is permanent."""
    if attempts.failures == 0 or attempts.last_failure_time is None:
        return 0.0
    if attempts.reason in PERMANENT:
        return None
    if attempts.last_failure_time > now:
        # By a clock that went ahead: nobody knows how long ago that was.
        return 0.0
    elapsed = (now - attempts.last_failure_time).total_seconds()
    return delay_after(attempts.failures) - elapsed


def pause_left(attempts: Attempts, now: datetime.datetime) -> float:
    """Seconds, 0 or less for now; of what is tried again whatever the reason."""
    return seconds_until_retry(attempts.model_copy(update={"reason": None}), now) or 0.0


def failed(attempts: Attempts, reason: str, message: str, now: datetime.datetime) -> Attempts:
    """One more failure, seen at `now`."""
    return attempts.model_copy(
        update={
            "failures": attempts.failures + 1,
            "last_failure_time": now,
            "reason": reason,
            "message": message[:1024],
        }
    )
