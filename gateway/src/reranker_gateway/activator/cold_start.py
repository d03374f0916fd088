"""How long it will take until a pod answers, by how long it took before."""

from reranker_gateway.clock import Clock

#: What took less was no start of a pod: one was there, and this process did not know.
_SHORTEST = 0.5
#: Longest advice to a caller, in seconds.
_LONGEST_RETRY = 600


class ColdStart:
    """The start that is under way, and what is expected of it."""

    def __init__(self, expected: float | None, clock: Clock) -> None:
        """`expected`: seconds, as measured elsewhere; None when nothing is known."""
        self._clock = clock
        self._expected = expected
        self._began: float | None = None
        #: Seconds of the last one.
        self.last: float | None = None

    @property
    def under_way(self) -> bool:
        """Somebody has asked, and no pod has answered yet."""
        return self._began is not None

    def begin(self) -> None:
        """Somebody asks and no pod answers; nothing when that is known already."""
        if self._began is None:
            self._began = self._clock()

    def end(self) -> None:
        """A pod answers."""
        if self._began is None:
            return
        seconds, self._began = self._clock() - self._began, None
        if seconds >= _SHORTEST:
            self.last = seconds
            self._expected = seconds if self._expected is None else (self._expected + seconds) / 2

    def abandon(self) -> None:
        """Nobody asks any more: how long it took will not be known."""
        self._began = None

    def remaining(self) -> float | None:
        """Seconds until a pod should answer; None when nothing is known.

        A start that is late is taken to be late by as much again.
        """
        if self._expected is None:
            return None
        spent = self._clock() - self._began if self._began is not None else 0.0
        return abs(self._expected - spent)

    def retry_after(self) -> int:
        """Whole seconds after which it is worth asking again."""
        remaining = self.remaining() or 0.0
        return min(max(round(remaining + 0.5), 1), _LONGEST_RETRY)
