"""Whose pairs lead the next batch: callers take turns, and within a caller its requests do.

Whoever has the turn leads batches until about a token budget went to their own pairs, then goes to
the end of the line. So what a request waits for depends on how many others wait, not on how large
they are; and a small one is done in one turn, instead of in slices as thin as a large one's. The
same rule one level up gives each caller the same share, however many requests they send.
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

    def __len__(self) -> int:
        return len(self._line)

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
        if one == self.leader:
            self._own = self._all = 0
        self._line.remove(one)

    def spend(self, own: int, total: int) -> None:
        """The leader led a batch of `total` padded tokens, `own` of them its own."""
        self._own += own
        self._all += total
        if self._own >= _OWN_SHARE * self._budget or self._all >= _BUDGETS * self._budget:
            self._line.rotate(-1)
            self._own = self._all = 0


class CallerTurns(Generic[T]):
    """Turns of callers, and each caller's turns of its requests."""

    def __init__(self, token_budget: int) -> None:
        self._budget = token_budget
        self._callers: Turns[str] = Turns(token_budget)
        self._requests: dict[str, Turns[T]] = {}

    @property
    def caller(self) -> str:
        """Whose turn it is; there must be somebody in the line."""
        return self._callers.leader

    @property
    def leader(self) -> T:
        """That caller's request."""
        return self._requests[self.caller].leader

    def join(self, caller: str, one: T) -> None:
        """Come in at the end of the caller's line; a caller who had none at the end of theirs."""
        if caller not in self._requests:
            self._requests[caller] = Turns(self._budget)
            self._callers.join(caller)
        self._requests[caller].join(one)

    def leave(self, caller: str, one: T) -> None:
        """Go, wherever in the line; without effect when gone already."""
        line = self._requests.get(caller)
        if line is None:
            return
        line.leave(one)
        if not line:
            self._callers.leave(caller)
            del self._requests[caller]

    def spend(self, own: int, callers_own: int, total: int) -> None:
        """The leader led a batch: padded tokens of its own, of its caller's requests, and all."""
        self._requests[self.caller].spend(own, total)
        self._callers.spend(callers_own, total)
