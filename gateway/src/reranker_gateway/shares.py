"""How much of a bound one caller may have: the less is free, the less each may hold.

The rule is that of shared buffers in switches (dynamic thresholds): somebody may hold up to a fixed
multiple of what is free. Whoever is alone can fill the bound; beside somebody who has filled it
there is always a little left for one who has nothing; and many greedy ones end up with equal parts.
"""

import math
from collections import Counter

#: What somebody may hold for each unit that is free.
_MULTIPLE = 8


class Shares:
    """A bound for each caller; all of them together may have an eighth more."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.total = 0
        self._held: Counter[str] = Counter()

    def of(self, caller: str) -> int:
        """What the caller holds."""
        return self._held[caller]

    def take(self, caller: str, count: int) -> None:
        """The caller holds `count` more."""
        self._held[caller] += count
        self.total += count

    def give_back(self, caller: str, count: int) -> None:
        """The caller holds `count` less."""
        self._held[caller] -= count
        self.total -= count
        if not self._held[caller]:
            del self._held[caller]

    def deficit(self, caller: str, more: int) -> int:
        """How much must become free before the caller may hold `more`; at most 0 when it may."""
        return self.deficit_beside(self._held[caller], self.total, more)

    def deficit_beside(self, own: int, total: int, more: int) -> int:
        """The same of a caller that holds `own` of `total`, as others count it."""
        capacity = self.bound * (1 + 1 / _MULTIPLE)
        missing = own + more - _MULTIPLE * (capacity - total - more)
        # What becomes free is the caller's own in proportion.
        return math.ceil(missing / (_MULTIPLE + (own / total if total else 1)))
