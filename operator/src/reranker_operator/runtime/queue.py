"""A queue of keys, after the workqueue of client-go.

A key is queued once however often it is added. A key that is being worked on and is added again is
marked dirty and comes back when it is done. Failures put a key back after an exponential delay with
jitter; where several delays exist, the earliest deadline wins. Only where the API server has named
a time (Retry-After) a key is held back until then, for a minute at most, whatever comes but a
change that somebody made.

There are three lanes. A change that somebody made comes first: the builds and pods that it starts
take longest, and it does not stand behind what a thousand pods tell of themselves. What follows
from changes, and failures whose time has come, are next. What is looked at only for safety's sake,
as in a resync, waits in the background. Each lane gets a share, however much is due before it.

Keys of a namespace that may have no more workers at the moment are set aside when their turn comes,
and come back as others of the same namespace are done.
"""

import asyncio
import heapq
import math
import random
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import chain, islice
from typing import NamedTuple

from reranker_operator.core.backoff import doubled

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 300.0
#: Seconds for which the word of the API server, or of a proxy before it, is taken.
_LONGEST_HOLD = 60.0
#: Keys that come back when one of their namespace is done. More than one, so that a namespace which
#: had to be content with little gets more when there is more.
_COME_BACK = 2


class Lane(IntEnum):
    """Where a key waits; of so many keys at least one is of this lane."""

    FIRST = 1
    NEXT = 3
    BACKGROUND = 8


class Key(NamedTuple):
    """One object to reconcile."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


#: Whether a namespace may have no more workers at the moment.
Full = Callable[[str], bool]
_Lanes = dict[Lane, dict[Key, float]]


def _nobody(_: str) -> bool:
    return False


def _lanes() -> _Lanes:
    return {lane: {} for lane in Lane}


class WorkQueue:
    """Hands out keys to workers; all methods run on the event loop's thread."""

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._jitter = jitter
        self._lanes = _lanes()
        #: By namespace; each has or had a key at work, whose end brings them back.
        self._aside: dict[str, _Lanes] = {}
        self._taken = 0
        self._working: dict[Key, float] = {}
        self._dirty: dict[Key, Lane] = {}
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

    def add(self, key: Key, lane: Lane = Lane.FIRST) -> None:
        """Work on this key as soon as its lane allows."""
        if self._closed:
            return
        if key in self._held and lane != Lane.FIRST:
            self.add_after(key, 0.0)
        elif key in self._working:
            self._dirty[key] = min(lane, self._dirty.get(key, lane))
        else:
            self._ripen(key, lane)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on this key in `seconds`, or earlier if it is due earlier already."""
        if self._closed or self._is_due(key):
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
            hold = min(hold, _LONGEST_HOLD)
            delay = max(hold, delay)
            self._held[key] = self._clock() + hold
            self._deadlines.pop(key, None)
            if self._dirty.get(key) != Lane.FIRST:
                self._dirty.pop(key, None)
        self.add_after(key, delay)
        return float(delay)

    def forget(self, key: Key) -> None:
        """The key succeeded: its next failure starts from the shortest delay."""
        self._failures.pop(key, None)
        self._held.pop(key, None)

    async def get(self, full: Full = _nobody) -> Key | None:
        """The next key; None when the queue was closed.

        A namespace may be full only while some key of it is worked on.
        """
        while not self._closed:
            wait = self._promote()
            if (key := self._take(full)) is not None:
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
        if (lane := self._dirty.pop(key, None)) is not None:
            self.add(key, lane)
        self._bring_back(key.namespace)

    def close(self) -> None:
        """No more keys; waiting workers get None."""
        self._closed = True
        self._wake.set()

    def mark(self) -> None:
        """What is here now is to be worked off; see `worked_off`."""
        self._unseen = {*chain.from_iterable(self._waiting()), *self._working}

    @property
    def worked_off(self) -> bool:
        """Each key that was here at the last `mark` was worked on since, with whatever success."""
        return not self._unseen

    @property
    def waiting(self) -> int:
        """Keys that are due."""
        return sum(map(len, self._waiting()))

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
        return max(map(self._age, self._waiting()))

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

    def _waiting(self) -> Iterator[dict[Key, float]]:
        for lanes in (self._lanes, *self._aside.values()):
            yield from lanes.values()

    def _of(self, key: Key) -> _Lanes:
        """The lanes that this key waits in, or is to wait in."""
        aside = self._aside.get(key.namespace)
        if aside is not None and any(key in keys for keys in aside.values()):
            return aside
        return self._lanes

    def _is_due(self, key: Key) -> bool:
        """Not only in the background: there it would wait longer than it may."""
        lanes = self._of(key)
        return any(key in keys for lane, keys in lanes.items() if lane != Lane.BACKGROUND)

    def _ripen(self, key: Key, lane: Lane) -> None:
        """The key is due now; one that is due already may only get ahead."""
        lanes = self._of(key)
        before = next((entry for entry, keys in lanes.items() if key in keys), None)
        if before is not None and before <= lane:
            return
        if before is None:
            self.adds += 1
        since = self._clock() if before is None else lanes[before].pop(key)
        lanes[lane][key] = since
        self._deadlines.pop(key, None)
        self._held.pop(key, None)
        self._wake.set()

    def _take(self, full: Full = _nobody) -> Key | None:
        for lane in self._order():
            keys = self._lanes[lane]
            while keys:
                key = next(iter(keys))
                since = keys.pop(key)
                if not full(key.namespace):
                    self._taken += 1
                    return key
                self._aside.setdefault(key.namespace, _lanes())[lane][key] = since
        return None

    def _bring_back(self, namespace: str) -> None:
        """Some of what was set aside, the most urgent first."""
        aside = self._aside.get(namespace)
        if aside is None:
            return
        pairs = ((lane, key) for lane, keys in aside.items() for key in keys)
        for lane, key in [*islice(pairs, _COME_BACK)]:
            self._lanes[lane][key] = aside[lane].pop(key)
        if not any(aside.values()):
            del self._aside[namespace]
        self._wake.set()

    def _order(self) -> Iterator[Lane]:
        """Those whose turn it is, then by rank."""
        for lane in reversed(Lane):
            if (self._taken + 1) % lane == 0 and lane != Lane.FIRST:
                yield lane
        yield from Lane

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
                self.add(key, Lane.NEXT)
        return None
