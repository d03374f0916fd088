"""A queue of keys, after the workqueue of client-go.

A key is queued once however often it is added. A key that is being worked on and is added again is
marked dirty and comes back when it is done. Failures put a key back after an exponential delay with
jitter; where several delays exist, the earliest deadline wins.
"""

import asyncio
import heapq
import math
import random
from collections.abc import Callable
from typing import NamedTuple

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 300.0
#: Past the longest delay anyway; a float overflows after a thousand failures.
_LAST_DOUBLING = 16


class Key(NamedTuple):
    """One object to reconcile."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class WorkQueue:
    """Hands out keys to workers; all methods run on the event loop's thread."""

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._jitter = jitter
        self._ready: dict[Key, float] = {}
        self._working: dict[Key, float] = {}
        self._dirty: set[Key] = set()
        self._deadlines: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}
        self._unseen: set[Key] = set()
        self._moved = -math.inf
        self._wake = asyncio.Event()
        self._closed = False
        self.adds = 0
        self.retries = 0

    def add(self, key: Key) -> None:
        """Work on this key soon."""
        if self._closed:
            return
        if key in self._working:
            self._dirty.add(key)
            return
        if key not in self._ready:
            self._ready[key] = self._clock()
            self.adds += 1
            self._deadlines.pop(key, None)
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on this key in `seconds`, or earlier if it is due earlier already."""
        if self._closed or key in self._ready:
            return
        deadline = self._clock() + max(0.0, seconds)
        if key in self._deadlines and self._deadlines[key] <= deadline:
            return
        self._deadlines[key] = deadline
        heapq.heappush(self._heap, (deadline, key))
        self._wake.set()

    def retry(self, key: Key, at_least: float = 0.0) -> float:
        """Put a failed key back after its backoff or `at_least`; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(failures, _LAST_DOUBLING))
        delay = max(at_least, delay * (0.5 + 0.5 * self._jitter()))
        self.add_after(key, delay)
        return float(delay)

    def forget(self, key: Key) -> None:
        """The key succeeded: its next failure starts from the shortest delay."""
        self._failures.pop(key, None)

    async def get(self) -> Key | None:
        """The next key; None when the queue was closed."""
        while not self._closed:
            wait = self._promote()
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._working[key] = self._moved = self._clock()
                return key
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                continue
        return None

    def done(self, key: Key) -> None:
        """The worker has finished with this key, in whatever way."""
        self._working.pop(key, None)
        self._unseen.discard(key)
        self._moved = self._clock()
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    def close(self) -> None:
        """No more keys; waiting workers get None."""
        self._closed = True
        self._wake.set()

    def mark(self) -> None:
        """What is here now is to be worked off; see `worked_off`."""
        self._unseen = {*self._ready, *self._working}

    @property
    def worked_off(self) -> bool:
        """Each key that was here at the last `mark` was worked on since, with whatever success."""
        return not self._unseen

    @property
    def waiting(self) -> int:
        """Keys that are due."""
        return len(self._ready)

    @property
    def working(self) -> int:
        """Keys that workers have now."""
        return len(self._working)

    @property
    def delayed(self) -> int:
        """Keys that are due later."""
        return len(self._deadlines)

    def oldest_age(self) -> float:
        """Seconds that the longest waiting ready key has waited; 0 when none waits."""
        return self._age(self._ready)

    def longest_work(self) -> float:
        """Seconds that a worker has been on the same key; 0 when none works."""
        return self._age(self._working)

    def stalled(self) -> float:
        """Seconds in which keys waited and no worker took or finished one.

        The age of a key alone proves nothing: in a long queue that moves, keys wait, too.
        """
        return min(self.oldest_age(), self._clock() - self._moved)

    def __len__(self) -> int:
        return len(self._ready) + len(self._working)

    def _age(self, keys: dict[Key, float]) -> float:
        now = self._clock() if keys else 0.0
        return max((now - since for since in keys.values()), default=0.0)

    def _promote(self) -> float | None:
        """Move due keys to ready; seconds until the next one, or None."""
        now = self._clock()
        while self._heap:
            deadline, key = self._heap[0]
            if self._deadlines.get(key) != deadline:
                heapq.heappop(self._heap)
            elif deadline > now:
                return deadline - now
            else:
                heapq.heappop(self._heap)
                del self._deadlines[key]
                self.add(key)
        return None
