"""Who works next."""

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reranker_gateway.gate import CallerGate


async def test_callers_take_turns_and_each_callers_work_stays_in_order() -> None:
    gate, done = CallerGate(1), []
    await gate.acquire("busy")

    async def work(caller: str, number: int) -> None:
        await gate.acquire(caller)
        done.append(f"{caller}{number}")
        gate.release()

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work("a", number))
        await asyncio.sleep(0)
        for number in range(2):
            group.create_task(work("b", number))
        await asyncio.sleep(0)
        gate.release()
    assert done == ["a0", "b0", "a1", "b1", "a2", "a3"]


@settings(deadline=None)
@given(
    places=st.integers(1, 3),
    moves=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans())),
)
def test_places_are_neither_lost_nor_made(places: int, moves: list[tuple[str, int, bool]]) -> None:
    """Some work, some go while they wait or just when their turn comes."""

    async def play() -> None:
        gate, inside = CallerGate(places), 0

        async def work(caller: str, steps: int) -> None:
            nonlocal inside
            await gate.acquire(caller)
            inside += 1
            assert inside <= places
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
            finally:
                inside -= 1
                gate.release()

        tasks = []
        for caller, steps, goes in moves:
            tasks.append(asyncio.create_task(work(caller, steps)))
            await asyncio.sleep(0)
            if goes:
                tasks[len(tasks) // 2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # All places are there again, and no more.
        for _ in range(places):
            await asyncio.wait_for(gate.acquire("last"), 5)
        waits = asyncio.create_task(gate.acquire("last"))
        await asyncio.sleep(0)
        assert not waits.done()
        waits.cancel()

    asyncio.run(play())


async def test_a_place_that_was_just_given_goes_on(eventually: Callable[..., Any]) -> None:
    gate = CallerGate(1)
    await gate.acquire("a")
    first = asyncio.create_task(gate.acquire("a"))
    second = asyncio.create_task(gate.acquire("b"))
    await asyncio.sleep(0)
    gate.release()
    first.cancel()
    await eventually(second.done)
    assert first.cancelled()
    assert second.exception() is None
