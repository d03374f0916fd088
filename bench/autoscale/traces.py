"""Loads over time: when requests come and how large they are. Deterministic by their seeds."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from simulate import Request

_TOKENS_PER_PASSAGE = 100
_MINUTE = 60


@dataclass(frozen=True)
class Trace:
    """Requests per second, and passages in a request, as functions of the second."""

    name: str
    seconds: int
    rate: Callable[[float], float]
    passages: Callable[[float], tuple[int, int]]
    most: float

    def requests(self, seed: int = 7) -> Iterator[Request]:
        """A Poisson process whose rate follows the trace; sizes are log-uniform."""
        lots, at = random.Random(f"{self.name} {seed}"), 0.0  # noqa: S311 - no secret
        while True:
            at += lots.expovariate(self.most)
            if at >= self.seconds:
                return
            if lots.random() * self.most > self.rate(at):
                continue
            low, high = self.passages(at)
            number = round(math.exp(lots.uniform(math.log(low), math.log(high))))
            yield Request(at, number * _TOKENS_PER_PASSAGE)


def _ordinary(_: float) -> tuple[int, int]:
    """1 to 100 passages; 2,150 tokens on average."""
    return 1, 100


def _stairs(at: float) -> float:
    return (10, 30, 60, 25, 45, 10)[min(5, int(at / (10 * _MINUTE)))]


def _tenfold(at: float) -> float:
    return 60 if 10 * _MINUTE <= at < 35 * _MINUTE else 6


def _day(at: float) -> float:
    """A day in three hours, for a pod's minute is short beside an hour."""
    return 22 - 18 * math.cos(2 * math.pi * at / (180 * _MINUTE))


def _burst_times() -> tuple[tuple[float, float], ...]:
    lots, found, at = random.Random(5), [], 0.0  # noqa: S311 - no secret
    while at < 60 * _MINUTE:
        at += lots.uniform(240, 480)
        found.append((at, at + lots.uniform(45, 120)))
    return tuple(found)


_BURSTS = _burst_times()


def _bursts(at: float) -> float:
    """Every four to eight minutes five times as much, for one or two."""
    return 45 if any(begins <= at < ends for begins, ends in _BURSTS) else 8


def _sawtooth(at: float) -> float:
    """From 5 to 50 in five minutes, and down at once; four times."""
    return 5 + 45 * (at % (5 * _MINUTE)) / (5 * _MINUTE)


def _shifting(at: float) -> tuple[int, int]:
    """The same number of requests: small ones, large ones, all sizes, small ones."""
    return ((1, 20), (100, 512), (1, 512), (1, 20))[min(3, int(at / (12 * _MINUTE)))]


TRACES = (
    Trace("constant", 30 * _MINUTE, lambda _: 40, _ordinary, 40),
    Trace("steps", 60 * _MINUTE, _stairs, _ordinary, 60),
    Trace("tenfold step", 50 * _MINUTE, _tenfold, _ordinary, 60),
    Trace("day", 180 * _MINUTE, _day, _ordinary, 40),
    Trace("bursts", 60 * _MINUTE, _bursts, _ordinary, 45),
    Trace("sawtooth", 20 * _MINUTE, _sawtooth, _ordinary, 50),
    Trace("sizes shift", 48 * _MINUTE, lambda _: 8, _shifting, 8),
    Trace("1 to 512 passages", 40 * _MINUTE, lambda _: 12, lambda _: (1, 512), 12),
)
