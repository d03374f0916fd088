"""Whose pairs lead the next batch: waiting requests take turns, each with the same share of work.

A request that has its turn leads batches until about a token budget went to its own pairs, then
goes to the end of the line. So what a request waits for depends on how many others wait, not on how
large they are; and a small one is done in one turn, instead of in slices as thin as a large one's.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

#: A turn ends when this share of a token budget went to the leader's pairs: less than all of it,
#: because a full batch of long pairs is seldom full to the last token.
_OWN_SHARE = 0.75
#: Or when its batches hold this many budgets together with the pairs that fill them up: pairs of
#: very different length cannot share a batch, and a request of such would lead many of them.
_BUDGETS = 3
#: Padded tokens of one turn, in token budgets, at most: the last batch comes on top.
LONGEST_TURN = _BUDGETS + 1


class Turns(Generic[T]):
    """The line of those who wait."""

    def __init__(self, token_budget: int) -> None:
        self._budget = token_budget
        self._line: deque[T] = deque()
        self._own = self._all = 0

    @property
    def leader(self) -> T:
        """Whose turn it is; there must be somebody in the line."""
        return self._line[0]

    def join(self, one: T) -> None:
        """Come in at the end of the line."""
        self._line.append(one)

    def leave(self, one: T) -> None:
        """Go, wherever in the line; without effect when gone already."""
        if one not in self._line:
            return
        if one is self.leader:
            self._own = self._all = 0
        self._line.remove(one)

    def spend(self, own: int, total: int) -> None:
        """The leader led a batch of `total` padded tokens, `own` of them its own."""
        self._own += own
        self._all += total
        if self._own >= _OWN_SHARE * self._budget or self._all >= _BUDGETS * self._budget:
            self._line.rotate(-1)
            self._own = self._all = 0
