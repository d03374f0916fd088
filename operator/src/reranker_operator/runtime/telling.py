"""How often the same thing is told by an Event: three times in a row, then every five minutes.

A pod that flaps would have one written for each turn. What counts is the same reason of the same
condition of one object, not all Events of the object as in client-go: whatever is new about it is
told at once, however much the rest flaps. Nothing is lost, for the condition itself says it all.
Kept in memory only: after a restart it may be told once more.
"""

from collections.abc import Callable

from reranker_operator.api.conditions import Condition
from reranker_operator.runtime.tolerance import Memory

_BURST = 3.0
_SECONDS = 300.0


class Telling:
    """A bucket of tokens for each thing that can be told of an object."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: Tokens that were left, and when.
        self._buckets: Memory[tuple[str, str, str], tuple[float, float]] = Memory()

    def allows(self, uid: str, entry: Condition) -> bool:
        """Whether to tell it now; True counts as told."""
        key, now = (uid, entry.type, entry.reason), self._clock()
        left, since = self._buckets.get(key, (_BURST, now))
        # A clock that is put back takes nothing away.
        left = min(_BURST, left + max(0.0, now - since) / _SECONDS)
        allowed = left >= 1
        self._buckets.keep(key, (left - 1 if allowed else left, now))
        return allowed
