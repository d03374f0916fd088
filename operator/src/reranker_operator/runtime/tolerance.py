"""Bounds for the repair of drift: never an endless fight with somebody who insists.

Kept in memory only: after a restart everything is tried once more.
"""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from reranker_contracts.base import canonical_json
from reranker_operator.adapters.cluster import Json
from reranker_operator.core.drift import Intrusion
from reranker_operator.names import short_hash

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
#: Removals of the same addition within the time below; after them it may stay that long.
_MOST_REMOVALS = 3
_SECONDS = 3600.0
_MOST_REMEMBERED = 10000
_OF_NO_CONCERN = frozenset({"resourceVersion", "generation", "managedFields"})


class Memory(OrderedDict[K, V], Generic[K, V]):
    """The newest entries."""

    def keep(self, key: K, value: V) -> None:
        """Remember this, and forget the oldest if there are too many."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > _MOST_REMEMBERED:
            self.popitem(last=False)


class Tolerance:
    """Counts how often each addition to an object was removed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._removals: Memory[tuple[str, tuple[str, ...]], deque[float]] = Memory()

    def refuses(self, uid: str, intrusion: Intrusion) -> bool:
        """Whether to remove this now; True counts as a removal."""
        now, key = self._clock(), (uid, intrusion.path)
        removals = self._removals.get(key, deque())
        while removals and removals[0] <= now - _SECONDS:
            removals.popleft()
        if len(removals) >= _MOST_REMOVALS:
            return False
        removals.append(now)
        self._removals.keep(key, removals)
        if len(removals) == _MOST_REMOVALS:
            text = "%s comes back however often it is removed; from now on it stays for an hour"
            logger.warning(text, intrusion)
        return True


class Settled:
    """States of objects of which the API server has said that an apply changes nothing.

    Some values it rewrites in ways that we can't tell from a change.
    """

    def __init__(self) -> None:
        self._known: Memory[str, str] = Memory()

    def note(self, live: Json, digest: str) -> None:
        """An apply with this hash left the object as it was."""
        self._known.keep(live["metadata"]["uid"], _state(live, digest))

    def is_so(self, live: Json, digest: str) -> bool:
        """Whether it would do so again."""
        known = self._known.get(live["metadata"]["uid"])
        return known is not None and known == _state(live, digest)


def _state(live: Json, digest: str) -> str:
    """Hash of all that an apply can change, and of what would be applied."""
    meta = {key: value for key, value in live["metadata"].items() if key not in _OF_NO_CONCERN}
    rest = {key: live[key] for key in live if key not in ("metadata", "status")}
    return short_hash(f"{canonical_json([meta, rest])}/{digest}", 16)
