"""Answers that lie here because their clients do not take them, within a bound.

An answer is made before it is known whether its client reads it, so it cannot be refused. When all
of them together are too many, those that occupy most are given up: bytes times seconds, so that
whoever takes an answer in good time is hardly ever among them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from reranker_gateway.clock import Clock


class Taker(Protocol):
    """A client's connection."""

    def lying(self) -> int:
        """Bytes that were written and not taken."""

    def give_up(self) -> None:
        """Drop them, and with them the connection."""


@dataclass(slots=True)
class _Lot:
    count: int
    since: float


class Untaken:
    """Bytes of the answers of one listener."""

    def __init__(self, most: int, clock: Clock) -> None:
        """An answer that is larger than `most` is sent all the same, alone."""
        self._most = most
        self._clock = clock
        self._lots: dict[Taker, _Lot] = {}
        self.held = 0

    @contextmanager
    def sending(self, taker: Taker, count: int) -> Iterator[None]:
        """Around the writing of `count` bytes: they count until they are taken."""
        if not taker.lying():
            self.forget(taker)
        before = self._lots.get(taker)
        self._count(taker, count + (before.count if before else 0))
        self._make_room(taker)
        try:
            yield
        finally:
            lying = taker.lying()
            # All of them as long as one is left: the buffer does not shrink before.
            self._count(taker, max(count, lying) if lying else 0)

    def forget(self, taker: Taker) -> None:
        """Nothing of it lies here any more."""
        self._count(taker, 0)

    def _count(self, taker: Taker, count: int) -> None:
        lot = self._lots.setdefault(taker, _Lot(0, self._clock()))
        self.held += count - lot.count
        lot.count = count
        if not count:
            del self._lots[taker]

    def _make_room(self, taker: Taker) -> None:
        if self.held <= self._most:
            return
        others = [other for other in self._lots if other is not taker]
        for other in others:
            # Nobody tells when a client has taken the last byte.
            if not other.lying():
                self.forget(other)
        now = self._clock()
        others = [other for other in others if other in self._lots]
        others.sort(key=lambda other: self._lots[other].count * (now - self._lots[other].since))
        while self.held > self._most and others:
            other = others.pop()
            self.forget(other)
            other.give_up()
