"""A queue of keys, after the workqueue of client-go.

A key is queued once however often it is added. A key that is being worked on and is added again is
marked dirty and comes back when it is done. Failures put a key back after an exponential delay with
jitter; where several delays exist, the earliest deadline wins. Only where the API server has named
a time (Retry-After) a key is held back until then, whatever comes.

What is looked at only for safety's sake, as in a resync, waits in the background: a change that
somebody made does not stand behind a thousand services of which all is known.
"""

import asyncio
import heapq
import math
import random
from collections.abc import Callable
from typing import NamedTuple

from reranker_operator.core.backoff import doubled

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 300.0
#: One in so many goes to the background, however much is due.
_BACKGROUND_SHARE = 8


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
        self._background: dict[Key, float] = {}
        self._taken = 0
        self._working: dict[Key, float] = {}
        self._dirty: set[Key] = set()
        self._deadlines: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}
        self._held: dict[Key, float] = {}
        self._unseen: set[Key] = set()
        self._moved = -math.inf
        self._wake = asyncio.Event()
        self._closed = False
        self.adds = 0
        self.retries = 0

    def add(self, key: Key, *, background: bool = False) -> None:
        """Work on this key soon, or in the background when there is time."""
        if self._closed:
            return
        if key in self._held:
            self.add_after(key, 0.0)
        elif key in self._working:
            self._dirty.add(key)
        elif key not in self._ready:
            self._ripen(key, background=background)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on this key in `seconds`, or earlier if it is due earlier already."""
        if self._closed or key in self._ready:
            return
        deadline = max(self._clock() + max(0.0, seconds), self._held.get(key, 0.0))
        if key in self._deadlines and self._deadlines[key] <= deadline:
            return
        self._deadlines[key] = deadline
        heapq.heappush(self._heap, (deadline, key))
        self._wake.set()

    def retry(self, key: Key, *, hold: float = 0.0, longest: float = _LONGEST_DELAY) -> float:
        """Put a failed key back after its backoff, but not within `hold`; the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        delay = doubled(_FIRST_DELAY, failures, longest)
        delay *= 0.5 + 0.5 * self._jitter()
        if hold:
            delay = max(hold, delay)
            self._held[key] = self._clock() + hold
            self._deadlines.pop(key, None)
            self._dirty.discard(key)
        self.add_after(key, delay)
        return float(delay)

    def forget(self, key: Key) -> None:
        """The key succeeded: its next failure starts from the shortest delay."""
        self._failures.pop(key, None)
        self._held.pop(key, None)

    async def get(self) -> Key | None:
        """The next key; None when the queue was closed."""
        while not self._closed:
            wait = self._promote()
            if self._ready or self._background:
                key = self._take()
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
        self._unseen = {*self._ready, *self._background, *self._working}

    @property
    def worked_off(self) -> bool:
        """Each key that was here at the last `mark` was worked on since, with whatever success."""
        return not self._unseen

    @property
    def waiting(self) -> int:
        """Keys that are due."""
        return len(self._ready) + len(self._background)

    @property
    def working(self) -> int:
        """Keys that workers have now."""
        return len(self._working)

    @property
    def delayed(self) -> int:
        """Keys that are due later."""
        return len(self._deadlines)

    def oldest_age(self) -> float:
        """Seconds that the longest waiting key has been due; 0 when none is."""
        return max(self._age(self._ready), self._age(self._background))

    def longest_work(self) -> float:
        """Seconds that a worker has been on the same key; 0 when none works."""
        return self._age(self._working)

    def stalled(self) -> float:
        """Seconds in which keys waited and no worker took or finished one.

        The age of a key alone proves nothing: in a long queue that moves, keys wait, too.
        """
        return min(self.oldest_age(), self._clock() - self._moved)

    def __len__(self) -> int:
        return self.waiting + len(self._working)

    def _ripen(self, key: Key, *, background: bool = False) -> None:
        """The key is due now."""
        if background and key in self._background:
            return
        since = self._background.pop(key, None)
        if since is None:
            self.adds += 1
        lane = self._background if background else self._ready
        lane[key] = self._clock() if since is None else since
        self._deadlines.pop(key, None)
        self._wake.set()

    def _take(self) -> Key:
        self._taken += 1
        turn = self._taken % _BACKGROUND_SHARE == 0
        lane = self._background if self._background and (turn or not self._ready) else self._ready
        key = next(iter(lane))
        del lane[key]
        return key

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
                self._held.pop(key, None)
                self.add(key)
        return None
