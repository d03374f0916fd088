"""The work queue, on a clock that only the test moves."""

import asyncio
from collections import Counter

import pytest

from reranker_operator.errors import Conflict, OperatorError, Unavailable
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.queue import Key, Lane, WorkQueue
from reranker_operator.runtime.worker import Workers

A, B, C = (Key("RerankerService", "shop", name) for name in "abc")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return WorkQueue(clock=clock, jitter=lambda: 1.0)


async def _ready(queue: WorkQueue) -> list[Key]:
    """All keys that are due now, taken and finished."""
    ends, taken = {Key("end", "", lane.name) for lane in (Lane.FIRST, Lane.NEXT)}, list[Key]()
    for end in sorted(ends):
        queue.add(end, Lane[end.name])
    while not ends <= set(taken):
        key = await queue.get()
        assert key is not None
        queue.done(key)
        taken.append(key)
    return [key for key in taken if key not in ends]


async def test_a_key_is_queued_once_and_keys_come_in_order(queue: WorkQueue) -> None:
    for key in (A, B, A, C, B):
        queue.add(key)
    assert len(queue) == 3
    assert await _ready(queue) == [A, B, C]


async def test_a_key_added_while_it_is_worked_on_comes_back_once(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.add(A)
    assert await _ready(queue) == []
    queue.done(A)
    assert await _ready(queue) == [A]
    assert await _ready(queue) == []


async def test_the_earliest_deadline_wins(queue: WorkQueue, clock: Clock) -> None:
    for seconds in (30, 10, 20):
        queue.add_after(A, seconds)
    clock.now += 9
    assert await _ready(queue) == []
    clock.now += 1
    queue.add_after(B, -5)
    assert sorted(await _ready(queue) + await _ready(queue)) == [A, B]
    clock.now += 100
    assert await _ready(queue) + await _ready(queue) == []


async def test_an_event_replaces_a_deadline(queue: WorkQueue, clock: Clock) -> None:
    queue.add_after(A, 10)
    queue.add(A)
    assert await _ready(queue) == [A]
    clock.now += 10
    assert await _ready(queue) + await _ready(queue) == []


async def test_a_deadline_that_passes_while_the_key_is_worked_on(
    queue: WorkQueue, clock: Clock
) -> None:
    queue.add(A)
    await queue.get()
    queue.add_after(A, 5)
    clock.now += 5
    assert await _ready(queue) + await _ready(queue) == []
    queue.done(A)
    assert await _ready(queue) == [A]


def test_failures_double_the_delay_until_success(clock: Clock) -> None:
    queue = WorkQueue(clock=clock, jitter=lambda: 1.0)
    assert [queue.retry(A) for _ in range(10)][:4] == [1, 2, 4, 8]
    assert queue.retry(A) == 300
    assert queue.retry(B) == 1
    queue.forget(A)
    assert queue.retry(A) == 1
    assert WorkQueue(clock=clock, jitter=lambda: 0.0).retry(A) == 0.5


def test_a_thousand_failures_are_only_a_long_delay(queue: WorkQueue) -> None:
    assert {queue.retry(A) for _ in range(1100)} >= {300.0}


async def test_a_named_time_is_waited_for_whatever_follows(queue: WorkQueue, clock: Clock) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A, Lane.NEXT)
    assert queue.retry(A, hold=40) == 40
    queue.done(A)
    queue.add(A, Lane.BACKGROUND)
    queue.add_after(A, 1)
    clock.now += 39
    assert await _ready(queue) + await _ready(queue) == []
    clock.now += 1
    assert await _ready(queue) + await _ready(queue) == [A]
    queue.add(A, Lane.NEXT)
    assert await _ready(queue) == [A], "once"


@pytest.mark.parametrize("hold", [86400.0, float("inf")])
async def test_a_named_time_is_believed_for_a_minute_at_most(
    queue: WorkQueue, clock: Clock, hold: float
) -> None:
    assert queue.retry(A, hold=hold) == 60
    clock.now += 60
    assert await _ready(queue) + await _ready(queue) == [A]


@pytest.mark.parametrize("during_the_work", [True, False])
async def test_a_change_that_somebody_made_does_not_wait_for_a_named_time(
    queue: WorkQueue, clock: Clock, during_the_work: bool
) -> None:
    queue.add(A)
    assert await queue.get() == A
    if during_the_work:
        queue.add(A)
    queue.retry(A, hold=40)
    queue.done(A)
    if not during_the_work:
        queue.add(A)
    assert await _ready(queue) == [A]
    queue.add_after(A, 1)
    clock.now += 1
    assert await _ready(queue) + await _ready(queue) == [A], "nothing holds it any more"


async def test_the_background_waits_but_not_for_ever(queue: WorkQueue) -> None:
    quiet = [Key("RerankerService", "shop", f"quiet-{number}") for number in range(3)]
    for key in quiet:
        queue.add(key, Lane.BACKGROUND)
    queue.mark()
    busy = [Key("RerankerService", "shop", f"busy-{number}") for number in range(20)]
    for key in [*busy, quiet[2], quiet[2]]:
        queue.add(key)
    queue.add(busy[0], Lane.BACKGROUND)
    assert (queue.waiting, len(queue)) == (23, 23)
    taken = []
    for _ in range(23):
        key = await queue.get()
        assert key is not None
        queue.done(key)
        taken.append(key)
    assert sorted(taken) == sorted([*busy, *quiet])
    assert [taken.index(key) for key in quiet] == [7, 15, 22]
    assert queue.worked_off


async def test_what_somebody_changed_comes_before_what_follows_but_not_always(
    queue: WorkQueue, clock: Clock
) -> None:
    pods, changes = ([Key(kind, "shop", f"{n}") for n in range(4)] for kind in ("P", "C"))
    for key in pods:
        queue.add_after(key, 1)
    clock.now += 1
    for key in changes:
        queue.add(key)
    taken = []
    for _ in range(8):
        key = await queue.get()
        assert key is not None
        queue.done(key)
        taken.append(key.kind)
    assert "".join(taken) == "CCPCCPPP"
    queue.add_after(pods[0], 0)
    assert await queue.get() == pods[0]
    queue.add(pods[0], Lane.NEXT)
    queue.add(pods[0])
    queue.done(pods[0])
    queue.add(changes[0])
    assert [await queue.get(), await queue.get()] == [pods[0], changes[0]]


async def test_closing_wakes_waiting_workers(queue: WorkQueue) -> None:
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close()
    assert await asyncio.gather(*waiting) == [None] * 3
    queue.add(A)
    queue.add_after(A, 0)
    assert len(queue) == 0
    assert await queue.get() is None


def test_the_age_of_the_longest_waiting_key(queue: WorkQueue, clock: Clock) -> None:
    assert queue.oldest_age() == 0
    queue.add(A)
    clock.now += 7
    queue.add(B)
    assert queue.oldest_age() == 7


@pytest.mark.parametrize(
    ("error", "due"),
    [
        (Conflict("changed"), 1),
        (Unavailable("busy"), 1),
        (Unavailable("busy", retry_after=40), 40),
        (RuntimeError("a defect"), 1),
        (None, 25),
    ],
    ids=["conflict", "unavailable", "retry-after", "defect", "requeue"],
)
async def test_a_worker_survives_and_comes_back_in_time(
    queue: WorkQueue, clock: Clock, error: OperatorError | None, due: float
) -> None:
    last = asyncio.Event()

    async def reconcile(key: Key) -> float | None:
        if key is B:
            last.set()
            return None
        if error is not None:
            raise error
        return 25

    queue.add(A)
    queue.add(B)
    workers = asyncio.create_task(Workers(queue, reconcile, Metrics(), count=1).run())
    await last.wait()
    workers.cancel()
    await asyncio.gather(workers, return_exceptions=True)
    clock.now += due - 0.1
    assert await _ready(queue) + await _ready(queue) == []
    clock.now += 0.1
    assert await _ready(queue) + await _ready(queue) == [A]


async def test_one_that_hangs_has_its_place_taken(queue: WorkQueue) -> None:
    hang, worked = asyncio.Event(), asyncio.Event()
    at_once: list[Key] = []

    async def reconcile(key: Key) -> None:
        at_once.append(key)
        if key.name.startswith("hangs"):
            await hang.wait()
        else:
            worked.set()

    for number in range(70):
        queue.add(Key("RerankerService", f"shop-{number}", f"hangs-{number}"))
    workers = Workers(queue, reconcile, Metrics(), count=2, patience=0.0)
    task = asyncio.create_task(workers.run())
    for _ in range(500):
        await asyncio.sleep(0)
    assert len(at_once) == 64, "however many hang, there is a bound"
    queue.add(A)
    hang.set()
    await asyncio.wait_for(worked.wait(), 10)
    queue.close()
    await asyncio.wait_for(task, 10)
    assert len(at_once) == 71


async def test_keys_of_one_namespace_that_hang_leave_places_to_others(queue: WorkQueue) -> None:
    hang = asyncio.Event()
    at_once: Counter[str] = Counter()
    worked: list[Key] = []

    async def reconcile(key: Key) -> None:
        at_once[key.namespace] += 1
        if not key.namespace.startswith("good"):
            await hang.wait()
        at_once[key.namespace] -= 1
        worked.append(key)

    async def settle() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)

    for number in range(200):
        queue.add(Key("RerankerService", "bad", str(number)))
    workers = Workers(queue, reconcile, Metrics(), count=2, patience=0.0)
    task = asyncio.create_task(workers.run())
    await settle()
    assert at_once["bad"] in (22, 23), "a third"
    assert (queue.waiting, len(queue)) == (200 - at_once["bad"], 200)
    for number in range(100):
        queue.add(Key("RerankerService", "worse", str(number)))
        queue.add(Key("RerankerService", f"good-{number}", "x"))
    await settle()
    assert len(worked) == 100, "nobody else waits"
    assert at_once["worse"] in range(10, 22)
    assert at_once.total() < 50
    hang.set()
    while len(worked) < 400:
        await settle()
    queue.close()
    await asyncio.wait_for(task, 10)
    assert sorted(worked) == sorted(set(worked)), "each once"
    assert not queue._aside


async def test_what_is_set_aside_is_told_of_and_may_get_ahead(
    queue: WorkQueue, clock: Clock
) -> None:
    other = Key("RerankerService", "else", "x")
    queue.add(A)
    assert await queue.get() == A
    for key in (B, C, Key("RerankerEngine", "shop", "e")):
        queue.add(key, Lane.BACKGROUND)
    queue.add(other, Lane.BACKGROUND)
    queue.mark()
    clock.now += 7
    assert await queue.get(lambda namespace: namespace == "shop") == other
    queue.done(other)
    assert (queue.waiting, queue.oldest_age(), queue.adds) == (3, 7, 5)
    queue.add(C)
    queue.add(C, Lane.BACKGROUND)
    queue.add_after(C, 5)
    assert (queue.waiting, queue.delayed, queue.adds) == (3, 0, 5)
    queue.done(A)
    taken = [await queue.get(), await queue.get()]
    assert taken == [C, B], "the most urgent first"
    assert not queue.worked_off
    for key in (C, B):
        queue.done(key)
    last = await queue.get()
    assert last is not None
    queue.done(last)
    assert queue.worked_off


async def test_no_more_than_the_bound_at_the_same_time(queue: WorkQueue) -> None:
    running = most = 0

    async def reconcile(key: Key) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if key == C:
            queue.close()

    for key in (A, B, C):
        queue.add(key)
    await Workers(queue, reconcile, Metrics(), count=2).run()
    assert most == 2
