"""Who waits for the first pod, for how long, and in which order it goes on."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from reranker_gateway.activator import hold as module
from reranker_gateway.activator.cold_start import ColdStart
from reranker_gateway.activator.hold import Hold, NotTakenError, SleepingError
from reranker_gateway.errors import OverloadedError
from reranker_gateway.request_context import RequestContext, request_context

Eventually = Callable[[Callable[[], bool]], Any]


class Time:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Pods:
    """What answers behind the address."""

    def __init__(self) -> None:
        self.ready = False
        self.taken: list[int] = []
        self.refusals: list[NotTakenError[int]] = []

    async def ask(self) -> bool:
        return self.ready

    def take(self, number: int) -> Callable[[], Any]:
        async def attempt() -> int:
            if self.refusals:
                raise self.refusals.pop(0)
            self.taken.append(number)
            return number

        return attempt


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pods() -> Pods:
    return Pods()


def hold_of(pods: Pods, time: Time, expected: float | None = None, seconds: float = 60) -> Hold:
    cold_start = ColdStart(expected, time)
    return Hold(ask=pods.ask, cold_start=cold_start, seconds=seconds, clock=time)


async def ask_a_pod_that_goes(hold: Hold, pods: Pods) -> asyncio.Task[int]:
    """It was ready when the hold looked last; the request meets nobody."""
    pods.ready = True
    assert await hold.look()
    pods.ready = False
    pods.refusals = [NotTakenError(None)]
    return asyncio.create_task(hold.deliver(pods.take(1), None))


async def test_they_go_on_in_the_order_in_which_they_came(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    hold = hold_of(pods, time)
    waiting = []
    for number in range(200):
        waiting.append(asyncio.create_task(hold.deliver(pods.take(number), None)))
        await eventually(lambda number=number: hold.waiting == number + 1)  # type: ignore[misc]
    assert hold.held == 200
    time.now += 7
    pods.ready = True
    assert await asyncio.gather(*waiting) == list(range(200))
    assert pods.taken == list(range(200))
    assert (hold.held, hold.cold_start.last) == (0, 7)


async def test_whoever_sent_little_does_not_wait_behind_one_who_sent_much(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    hold = hold_of(pods, time)
    waiting = []
    for number in range(200):
        with request_context(RequestContext(caller="modest" if number == 199 else "greedy")):
            waiting.append(asyncio.create_task(hold.deliver(pods.take(number), None)))
        await eventually(lambda number=number: hold.waiting == number + 1)  # type: ignore[misc]
    pods.ready = True
    await asyncio.gather(*waiting)
    # Behind those that have a place, and the one whose turn it was.
    assert pods.taken.index(199) <= 65


async def test_who_has_no_time_is_told_at_once_and_still_counts(pods: Pods, time: Time) -> None:
    hold = hold_of(pods, time, expected=30)
    with pytest.raises(SleepingError, match="one should in 30 s") as refused:
        hold.check(5)
    assert refused.value.retry_after == 30
    assert (hold.waiting, hold.held) == (0, 1)
    time.now += 26
    # It is on its way since the first one asked.
    hold.check(5)
    with pytest.raises(SleepingError):
        hold.check(2)
    time.now += 24
    # Twenty seconds late: it may be late by as much again.
    with pytest.raises(SleepingError) as late:
        hold.check(10)
    assert late.value.retry_after == 20
    hold.close()


async def test_what_is_longer_than_anything_is_held_is_refused_without_a_deadline(
    pods: Pods, time: Time
) -> None:
    hold = hold_of(pods, time, expected=5000)
    with pytest.raises(SleepingError) as refused:
        hold.check(None)
    assert refused.value.retry_after == 600
    hold.close()


async def test_a_pod_that_is_full_is_asked_again_in_turn(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    hold = hold_of(pods, time)
    full = OverloadedError("full", 1)
    first = asyncio.create_task(hold.deliver(pods.take(1), None))
    await eventually(lambda: hold.waiting == 1)
    pods.refusals = [NotTakenError(full, full=True)] * 2
    pods.ready = True
    assert await first == 1
    # Who did not wait hears of it.
    pods.refusals = [NotTakenError(full, full=True)]
    with pytest.raises(OverloadedError):
        await hold.deliver(pods.take(2), None)


async def test_a_pod_that_went_away_is_waited_for(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    hold = hold_of(pods, time)
    asked = await ask_a_pod_that_goes(hold, pods)
    await eventually(lambda: hold.waiting == 1)
    pods.ready = True
    assert await asked == 1


async def test_nobody_waits_for_ever(pods: Pods, time: Time) -> None:
    hold = hold_of(pods, time, seconds=0.05)
    with pytest.raises(SleepingError):
        await hold.deliver(pods.take(1), None)
    assert (hold.waiting, hold.held) == (0, 1)
    time.now += 6
    assert hold.held == 0
    hold.close()


async def test_who_goes_gives_the_place_back(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    hold = hold_of(pods, time)
    asked = asyncio.create_task(hold.deliver(pods.take(1), None))
    await eventually(lambda: hold.waiting == 1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert hold.waiting == 0
    hold.close()


def test_a_start_is_foretold_by_those_before(time: Time) -> None:
    start = ColdStart(None, time)
    assert (start.remaining(), start.retry_after()) == (None, 1)
    for seconds in (8, 4):
        start.begin()
        time.now += seconds
        start.end()
    assert (start.last, start.remaining()) == (4, 6)
    start.begin()
    time.now += 0.1
    start.end()
    # A pod was there all the time.
    assert (start.last, start.remaining()) == (4, 6)
    start.begin()
    start.abandon()
    time.now += 100
    start.end()
    assert start.last == 4


async def test_a_pod_that_is_not_ready_says_nothing_of_the_others(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    """The address leads to any of them."""
    hold = hold_of(pods, time, expected=5000)
    asked = await ask_a_pod_that_goes(hold, pods)
    await eventually(lambda: hold.waiting == 1)
    hold.check(1)
    time.now += 1
    pods.ready = True
    assert await asked == 1
    # That was no start.
    assert (hold.cold_start.last, hold.cold_start.remaining()) == (None, 5000)


async def test_when_nobody_is_there_any_more_it_is_told_as_ever(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    hold = hold_of(pods, time, expected=5000)
    asked = await ask_a_pod_that_goes(hold, pods)
    await eventually(lambda: not hold.ready)
    time.now += 3
    with pytest.raises(SleepingError, match="it is being started"):
        await asked
    hold.close()


async def test_who_was_held_is_not_sent_away(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    hold = hold_of(pods, time, expected=30)
    asked = asyncio.create_task(hold.deliver(pods.take(1), 40))
    await eventually(lambda: hold.waiting == 1)
    time.now += 35
    pods.refusals = [NotTakenError(None)]
    pods.ready = True
    await eventually(lambda: not pods.refusals)
    pods.ready = False
    time.now += 3
    await eventually(lambda: hold.waiting == 1 or asked.done())
    pods.ready = True
    assert await asked == 1


async def test_who_was_refused_goes_before_those_who_came_later(
    pods: Pods, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a slow machine pauses that begin one after the other end in several turns of the loop.
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.0)
    hold = hold_of(pods, time)
    waiting = [asyncio.create_task(hold.deliver(pods.take(at), None)) for at in range(128)]
    pods.refusals = [NotTakenError(None) for _ in range(64)]
    pods.ready = True
    await asyncio.gather(*waiting)
    assert sorted(pods.taken[:64]) == list(range(64))


async def test_nobody_waits_for_ever_for_a_place(
    pods: Pods, time: Time, eventually: Eventually
) -> None:
    """As when pods have vanished without a word."""
    hold = hold_of(pods, time)
    pods.ready = True
    sent = []

    async def silence() -> int:
        sent.append(True)
        await asyncio.Event().wait()
        return 0

    silent = [asyncio.create_task(hold.deliver(silence, None)) for _ in range(64)]
    await eventually(lambda: len(sent) == 64)
    async with asyncio.timeout(5):
        with pytest.raises(SleepingError):
            await hold.deliver(pods.take(1), 0.05)
    for task in silent:
        task.cancel()
    await asyncio.wait(silent)
    assert await hold.deliver(pods.take(2), None) == 2
