"""Closed and open load on one server, and what came of it.

Closed: each client sends its next request when the last one was answered. Open: requests begin at
random moments (Poisson) whatever became of the former ones; latency counts from the moment that was
drawn, so that a server that is late is not excused by a client that waits for it.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=120)


@dataclass
class Outcome:
    """Of one run; seconds of answered and of refused requests."""

    wall: float = 0.0
    #: Pairs of answered requests.
    pairs: int = 0
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    #: How often, by status or error, of what was neither.
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def pairs_per_second(self) -> float:
        """Answered."""
        return self.pairs / self.wall


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above; nan of nothing."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else math.nan


@dataclass(frozen=True)
class Target:
    """Where requests go, and what they are."""

    url: str
    bodies: Sequence[bytes]
    #: Passages of each body.
    pairs: Sequence[int]
    #: After so many bodies the work is the same again, in other words; None: after all of them.
    lap: int | None = None


async def closed(target: Target, clients: int, seconds: float) -> Outcome:
    """`clients` at a time, for at least `seconds`, and until each lap of bodies is whole.

    So two servers, or two runs of one, have done the same work, however fast they are.
    """
    outcome, sent, lap = Outcome(), 0, target.lap or len(target.bodies)
    async with _session() as session:
        await _ask(session, target, -1, time.perf_counter(), Outcome())
        started = time.perf_counter()

        async def client() -> None:
            nonlocal sent
            # A failure makes the run worthless, and would be repeated as fast as can be.
            while not outcome.failed and (
                not sent or sent % lap or time.perf_counter() < started + seconds
            ):
                number, sent = sent, sent + 1
                await _ask(session, target, number, time.perf_counter(), outcome)

        await asyncio.gather(*(client() for _ in range(clients)))
        outcome.wall = time.perf_counter() - started
    return outcome


async def poisson(target: Target, rate: float, count: int, seed: int = 1) -> Outcome:
    """`count` requests begin, `rate` per second; all are waited for, none is held back.

    At another rate the same pauses are longer or shorter, and everything else is the same.
    """
    outcome, chance = Outcome(), random.Random(seed)  # noqa: S311
    running = []
    async with _session() as session:
        await _ask(session, target, -1, time.perf_counter(), Outcome())
        started = due = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            running.append(asyncio.create_task(_ask(session, target, number, due, outcome)))
            due += chance.expovariate(rate)
        await asyncio.gather(*running)
        outcome.wall = time.perf_counter() - started
    return outcome


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=_TIMEOUT, trust_env=False
    )


async def _ask(
    session: aiohttp.ClientSession, target: Target, number: int, began: float, outcome: Outcome
) -> None:
    at = number % len(target.bodies)
    headers = {"Content-Type": "application/json"}
    try:
        async with session.post(target.url, data=target.bodies[at], headers=headers) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.failed[type(error).__name__] += 1
        return
    seconds = time.perf_counter() - began
    if answer.status == 200:
        outcome.answered.append(seconds)
        outcome.pairs += target.pairs[at]
    elif answer.status == 429:
        outcome.refused.append(seconds)
    else:
        outcome.failed[str(answer.status)] += 1
