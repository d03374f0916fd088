"""How late the event loop is: what blocks it, delays probes, watches and the Lease alike."""

import asyncio
from collections import deque
from collections.abc import Callable

_PERIOD = 1.0
_WINDOW = 60.0


class LoopLag:
    """Asks to be woken every second and notes how late that happens."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._due: float | None = None
        self._lates: deque[tuple[float, float]] = deque()

    async def run(self) -> None:
        """Forever; cancelled at the end."""
        while True:
            self.expect()
            await asyncio.sleep(_PERIOD)
            self.arrived()

    def expect(self) -> None:
        """The next wake-up is due in a second."""
        self._due = self._clock() + _PERIOD

    def arrived(self) -> None:
        """The wake-up that was due is here."""
        now = self._clock()
        self._lates.append((now, self._overdue(now)))
        while self._lates[0][0] < now - _WINDOW:
            self._lates.popleft()

    def now(self) -> float:
        """Seconds that the last wake-up was late, or the next one is."""
        last = self._lates[-1][1] if self._lates else 0.0
        return max(last, self._overdue(self._clock()))

    def worst(self) -> float:
        """The same, the worst of the last minute: scrapes are too rare to meet it."""
        since = self._clock() - _WINDOW
        return max([self.now(), *(late for moment, late in self._lates if moment >= since)])

    def _overdue(self, now: float) -> float:
        return 0.0 if self._due is None else max(0.0, now - self._due)
