"""How many tokens per second the engine works off, measured while it has work."""

from reranker_gateway.clock import Clock

#: Busy seconds after which a measurement counts half.
_HALF_LIFE = 20.0


class Throughput:
    """A decaying mean over busy time, so that an idle hour neither lowers nor ages it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mark = 0.0
        self._tokens = 0.0
        self._seconds = 0.0
        self._busy = 0.0
        self._busy_since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """Seconds in which the engine had work, up to now."""
        since = self._busy_since
        return self._busy if since is None else self._busy + self._clock() - since

    @property
    def tokens_per_second(self) -> float:
        """Tokens (padding not counted) per busy second; 0 before the first measurement."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    def backlog_seconds(self, tokens: int) -> float:
        """Time to work off `tokens`; 0 while nothing was measured."""
        rate = self.tokens_per_second
        return tokens / rate if rate > 0 else 0.0

    def seed(self, tokens: int, seconds: float) -> None:
        """Forget everything but this measurement, from the warm-up."""
        self._tokens = float(tokens)
        self._seconds = max(seconds, 1e-6)

    def begin(self) -> None:
        """The engine goes from idle to busy."""
        self.end()
        self._mark = self._busy_since = self._clock()

    def end(self) -> None:
        """The engine goes from busy to idle."""
        self._busy, self._busy_since = self.busy_seconds, None

    def finish(self, tokens: int) -> None:
        """A batch of `tokens` is done; the time since the last event was spent on it."""
        now = self._clock()
        seconds = max(now - self._mark, 1e-6)
        self._mark = now
        keep = 0.5 ** (seconds / _HALF_LIFE)
        self._tokens = self._tokens * keep + tokens
        self._seconds = self._seconds * keep + seconds
