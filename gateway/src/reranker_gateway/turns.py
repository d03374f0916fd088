"""Whose pairs lead the next batch: callers take turns, and a caller's requests go as they are due.

A request is due when its caller has got so many times its own tokens from the engine since it came,
and all large ones after the same time. So a small one overtakes large ones, but only those that
came a short while ago; and of two that are alike the first one is done first. If requests took
turns, all large ones would end late.

A caller that has the turn leads batches until about a token budget went to its own pairs, then goes
to the end of the line: so each has the same share, however many requests they send, and how large.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Hashable
from operator import itemgetter
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

#: A turn ends when this share of a token budget went to the caller's pairs: less than all of it,
#: because a full batch of long pairs is seldom full to the last token.
_OWN_SHARE = 0.75
#: Or when its batches hold this many budgets together with the pairs that fill them up: pairs of
#: very different length cannot share a batch, and a request of such would lead many of them.
_BUDGETS = 3
#: Padded tokens of one turn, in token budgets, at most: the last batch comes on top.
LONGEST_TURN = _BUDGETS + 1
#: A request is due when so many times its own tokens are done. With 0 all would go in the order in
#: which they come.
PATIENCE = 8
#: What is larger than so many budgets counts as if it were not. Both by simulation of requests of
#: 10 to 200 passages, and of single ones among such, at 60 % load: the small ones hardly wait, and
#: the slowest 1 % of all are as fast as in the order in which they come, or faster.
LARGE = 6


class Turns(Generic[T]):
    """The line of the callers who wait."""

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
        """Go, wherever in the line; it must be there."""
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


class DueOrder(Generic[T]):
    """The requests of one caller, the one that is due first ahead."""

    def __init__(self, token_budget: int) -> None:
        self._most = LARGE * token_budget
        # Ascending by when it is due; of equal ones the first to come is ahead.
        self._line: list[tuple[tuple[int, int], T]] = []
        self._places: dict[T, tuple[int, int]] = {}
        self._done = self._number = 0

    def __len__(self) -> int:
        return len(self._line)

    @property
    def leader(self) -> T:
        """Who is due first; there must be somebody."""
        return self._line[0][1]

    def join(self, one: T, tokens: int) -> None:
        """Come in with so many tokens that wait."""
        self._number += 1
        due = self._done + PATIENCE * min(tokens, self._most)
        place = self._places[one] = (due, self._number)
        self._line.insert(self._at(place), (place, one))

    def leave(self, one: T) -> None:
        """Go; without effect when gone already."""
        place = self._places.pop(one, None)
        if place is not None:
            del self._line[self._at(place)]

    def spend(self, tokens: int) -> None:
        """The engine was given so many padded tokens of the caller's."""
        self._done += tokens

    def _at(self, place: tuple[int, int]) -> int:
        return bisect_left(self._line, place, key=itemgetter(0))


class CallerTurns(Generic[T]):
    """Turns of callers, and the order of each caller's requests."""

    def __init__(self, token_budget: int) -> None:
        self._budget = token_budget
        self._callers: Turns[str] = Turns(token_budget)
        self._requests: dict[str, DueOrder[T]] = {}

    @property
    def caller(self) -> str:
        """Whose turn it is; there must be somebody in the line."""
        return self._callers.leader

    @property
    def leader(self) -> T:
        """That caller's request."""
        return self._requests[self.caller].leader

    def join(self, caller: str, one: T, tokens: int) -> None:
        """Come in; a caller who had no request at the end of the line of callers."""
        if caller not in self._requests:
            self._requests[caller] = DueOrder(self._budget)
            self._callers.join(caller)
        self._requests[caller].join(one, tokens)

    def leave(self, caller: str, one: T) -> None:
        """Go, wherever in the line; without effect when gone already."""
        line = self._requests.get(caller)
        if line is None:
            return
        line.leave(one)
        if not line:
            self._callers.leave(caller)
            del self._requests[caller]

    def spend(self, own: int, total: int) -> None:
        """The leader led a batch: padded tokens of its caller's requests, and all."""
        self._requests[self.caller].spend(own)
        self._callers.spend(own, total)
