"""Scores of former pairs, a bounded number of them; off unless asked for.

The key holds the engine's digest and all that the engine would see, so an entry is never wrong,
only no longer wanted: what was not asked for longest makes room. Somebody who measures answers
closely can tell from a hit that a pair was asked for before, so callers must agree to share one.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

from prometheus_client import Counter

_KEY_BYTES = 16


class ScoreCache:
    """At most `entries` scores; with 0 it holds nothing and counts nothing."""

    def __init__(self, entries: int, engine_digest: str, lookups: Counter) -> None:
        self._entries = entries
        self._engine = bytes.fromhex(engine_digest)
        self._hits = lookups.labels("hit")
        self._misses = lookups.labels("miss")
        self._scores: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, pair: bytes) -> float | None:
        """The score of what the engine would see, if it is still known."""
        if not self._entries:
            return None
        key = self._key(pair)
        score = self._scores.get(key)
        if score is None:
            self._misses.inc()
            return None
        self._scores.move_to_end(key)
        self._hits.inc()
        return score

    def put(self, scores: Iterable[tuple[bytes, float]]) -> None:
        """Remember; the oldest go."""
        if not self._entries:
            return
        for pair, score in scores:
            key = self._key(pair)
            self._scores[key] = score
            self._scores.move_to_end(key)
        while len(self._scores) > self._entries:
            self._scores.popitem(last=False)

    def _key(self, pair: bytes) -> bytes:
        """Other weights, other keys."""
        return hashlib.blake2b(pair, digest_size=_KEY_BYTES, key=self._engine).digest()
