"""Which pods are read, how often, what is kept of it, and who is woken."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import generate_latest

from reranker_operator.adapters.scrape import ScrapeError
from reranker_operator.core.load import PodLoad, Role, Sample
from reranker_operator.runtime.collectors import LoadCollector
from reranker_operator.runtime.history import History
from reranker_operator.runtime.loads import Loads, targets
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.queue import Key, Lane

Json = dict[str, Any]
RANK = Key("RerankerService", "shop", "rank")


class FakePods:
    """Pods by address: a sample, a failure, an answer that never comes, or one after some time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers: dict[str, Any] = {}
        self.read_at: dict[str, list[float]] = {}
        self.working = self.most = 0
        self.hangs = asyncio.Event()

    async def read(self, address: str, role: Role) -> Sample:
        self.read_at.setdefault(address, []).append(self.now)
        self.working += 1
        self.most = max(self.most, self.working)
        try:
            answer = self.answers.get(address, {})
            if answer is None:
                await self.hangs.wait()
                raise ScrapeError("timeout")
            await asyncio.sleep(0)
            if isinstance(answer, float):
                end = self.now + answer
                while self.now < end:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                return Sample(at=self.now)
            if isinstance(answer, Exception):
                raise answer
            return Sample(at=self.now, **answer)
        finally:
            self.working -= 1


class Stage:
    """A book with a clock of the test's own."""

    def __init__(self, at_once: int = 64) -> None:
        self.pods = FakePods()
        self.woken: list[Key] = []
        self.metrics = Metrics()
        self.book = Loads(
            self.pods,
            self._add,
            self.metrics,
            paces={"steady": 2.0, "asleep": 0.5},
            at_once=at_once,
            clock=lambda: self.pods.now,
            wall=lambda: self.pods.now,
            jitter=lambda: 0.0,
        )

    def _add(self, key: Key, lane: Lane) -> None:
        assert lane is Lane.NEXT
        self.woken.append(key)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.book.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def settle(self) -> None:
        """Everything that can happen at this time happens."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def go_on(self, seconds: float, step: float = 0.5) -> None:
        end = self.pods.now + seconds
        while self.pods.now < end:
            self.pods.now += step
            self.book._wake.set()
            await self.settle()


@pytest.fixture
async def stage() -> Stage:
    return Stage()


def pod(name: str, role: str = "serving", **status: Any) -> Json:
    labels = {"app.kubernetes.io/component": role, "reranker.dev/revision": "r1"}
    running = {"state": {"running": {}}}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels},
        "status": {"podIP": f"10.0.0.{name}", "containerStatuses": [running]} | status,
    }


def test_only_pods_with_an_address_and_a_running_program_are_read() -> None:
    waiting = [{"state": {"waiting": {}}}]
    found = targets(
        [
            pod("1"), pod("2", podIP=None), pod("3", containerStatuses=waiting),
            pod("4", role="build"), pod("5", role="activator"), pod("6", containerStatuses=None),
            {"metadata": {"name": "7", "uid": "7"}},
        ],
        0.0,
    )  # fmt: skip
    assert [(one.pod, one.role, one.revision, one.address) for one in found] == [
        ("1", "serving", "r1", "10.0.0.1"),
        ("5", "activator", "r1", "10.0.0.5"),
    ]


def test_a_pod_that_must_have_ended_is_not_waited_for() -> None:
    """Its node is lost, and nobody says that it has."""
    ending = pod("1", role="activator")
    ending["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    end = 1_800_000_000.0
    assert [len(list(targets([ending], now))) for now in (end - 60, end + 5, end + 20)] == [1, 1, 0]


async def test_pods_are_read_at_their_pace_and_only_where_it_is_wanted(stage: Stage) -> None:
    other = Key("RerankerService", "shop", "other")
    async with stage.running():
        stage.book.want(RANK, 2.0, [pod("1"), pod("2")])
        stage.book.want(other, 0.5, [pod("3", role="activator")])
        await stage.go_on(6)
        assert len(stage.pods.read_at["10.0.0.1"]) == 3
        assert len(stage.pods.read_at["10.0.0.3"]) == 12
        stage.book.want(RANK, None)
        stage.book.forget(other)
        before = dict(stage.pods.read_at)
        await stage.go_on(6)
        assert stage.pods.read_at == before
    assert stage.book.size == 0


async def test_a_faster_pace_begins_at_once(stage: Stage) -> None:
    async with stage.running():
        stage.book.want(RANK, 60.0, [pod("1")])
        await stage.go_on(1)
        stage.book.want(RANK, 0.5, [pod("1")])
        await stage.go_on(2)
    assert len(stage.pods.read_at["10.0.0.1"]) >= 4


async def test_pods_that_vanish_leave_the_book_and_come_back_as_new_ones(stage: Stage) -> None:
    async with stage.running():
        stage.book.want(RANK, 2.0, [pod("1"), pod("2")])
        await stage.go_on(3)
        loads = stage.book.want(RANK, 2.0, [pod("2"), pod("3")])
        assert [(load.pod, len(load.samples)) for load in loads] == [("2", 2), ("3", 0)]
        again = pod("2")
        again["metadata"]["uid"] = "another"
        assert stage.book.want(RANK, 2.0, [again])[0].samples == ()


async def test_a_pod_that_does_not_answer_is_unknown_and_asked_less_often(stage: Stage) -> None:
    stage.pods.answers["10.0.0.1"] = ScrapeError("unreachable")
    async with stage.running():
        stage.book.want(RANK, 2.0, [pod("1"), pod("2")])
        await stage.go_on(30)
        silent, well = stage.book.want(RANK, 2.0, [pod("1"), pod("2")])
        assert (silent.samples, well.is_known(stage.pods.now, 3.0)) == ((), True)
        asked = stage.pods.read_at["10.0.0.1"]
        pauses = [after - before for before, after in itertools.pairwise(asked)]
        assert pauses == sorted(pauses)
        assert 8 <= pauses[-1] <= 12
        stage.pods.answers["10.0.0.1"] = {}
        await stage.go_on(12)
        assert stage.book.want(RANK, 2.0, [pod("1"), pod("2")])[0].samples
    text = generate_latest(stage.metrics.registry).decode()
    assert (
        'reranker_operator_scrapes_total{outcome="unreachable"} 5.0' in text
        or "unreachable" in text
    )


async def test_pods_that_hang_hold_up_their_own_service_and_not_others() -> None:
    stage = Stage(at_once=20)
    crowd = [pod(str(number)) for number in range(100)]
    stage.pods.answers = {f"10.0.0.{number}": None for number in range(100)}
    other = Key("RerankerService", "shop", "other")
    async with stage.running():
        stage.book.want(RANK, 2.0, crowd)
        stage.book.want(other, 2.0, [pod("200")])
        await stage.go_on(4)
        assert stage.pods.most <= 20
        assert len(stage.pods.read_at) == 16 + 1, "a part of the places is the others'"
        assert len(stage.pods.read_at["10.0.0.200"]) == 2
        stage.pods.hangs.set()
        await stage.go_on(1)
        assert len(stage.pods.read_at) == 101


async def test_slow_pods_make_neither_their_own_nor_others_wait() -> None:
    """Eight services of eight pods that answer in a second, just before they would be given up."""
    stage = Stage(at_once=8)
    crowds = {
        Key("RerankerService", f"slow-{service}", "rank"): [
            pod(f"{service}.{number}") for number in range(8)
        ]
        for service in range(8)
    }
    mine = [pod(str(number)) for number in range(20, 25)]
    slow = {entry["status"]["podIP"] for crowd in crowds.values() for entry in crowd}
    stage.pods.answers = dict.fromkeys(slow | {"10.0.0.20"}, 1.0)
    oldest = slowest = 0.0
    async with stage.running():
        for key, crowd in crowds.items():
            stage.book.want(key, 2.0, crowd)
        for step in range(80):
            mine_slow, *quick = stage.book.want(RANK, 2.0, mine)
            await stage.go_on(0.5)
            if step >= 40:
                at = [load.last.at for load in (mine_slow, *quick) if load.last]
                assert len(at) == 5
                slowest = max(slowest, stage.pods.now - at[0])
                oldest = max(oldest, stage.pods.now - min(at[1:]))
        assert stage.pods.most <= 8
    # A look each two seconds, and one that it has just missed.
    assert oldest <= 3
    assert slowest <= 20, "it waits behind other slow ones, which are more than can be read"


async def test_a_pod_that_answers_slowly_is_asked_less_often(stage: Stage) -> None:
    stage.pods.answers["10.0.0.1"] = 1.0
    async with stage.running():
        stage.book.want(RANK, 1.0, [pod("1"), pod("2")])
        await stage.go_on(30)
        slow, quick = stage.book.want(RANK, 1.0, [pod("1"), pod("2")])
        assert len(stage.pods.read_at["10.0.0.2"]) >= 28
        assert 8 <= len(stage.pods.read_at["10.0.0.1"]) <= 11
        assert slow.is_known(stage.pods.now, 10.0), "and yet known"
        stage.pods.answers["10.0.0.1"] = {}
        await stage.go_on(10)
        before = len(stage.pods.read_at["10.0.0.1"])
        await stage.go_on(10)
        assert len(stage.pods.read_at["10.0.0.1"]) - before >= 9
        assert quick.failures == slow.failures == 0


async def test_a_calm_service_is_left_alone_and_another_is_woken(stage: Stage) -> None:
    steady = {"tokens_per_second": 100.0, "backlog_tokens": 40.0}
    stage.pods.answers["10.0.0.1"] = steady
    async with stage.running():
        stage.book.want(RANK, 2.0, [pod("1")])
        await stage.go_on(1)
        assert stage.woken == [RANK], "it was unknown, now it is known"
        stage.book.want(RANK, 2.0, [pod("1")])
        stage.woken.clear()
        await stage.go_on(20)
        assert stage.woken == []
        stage.pods.answers["10.0.0.1"] = steady | {"backlog_tokens": 4000.0}
        await stage.go_on(2)
        assert set(stage.woken) == {RANK}
        stage.woken.clear()
        stage.pods.answers["10.0.0.1"] = ScrapeError("timeout")
        stage.book.want(RANK, 2.0, [pod("1")])
        await stage.go_on(14)
        assert RANK in stage.woken, "what is not known any more may matter"


async def test_who_decides_may_have_a_test_of_his_own(stage: Stage) -> None:
    seen: list[int] = []

    def calm(loads: tuple[Any, ...], _: float) -> bool:
        seen.append(len(loads[0].samples))
        return len(seen) < 3

    async with stage.running():
        stage.book.want(RANK, 2.0, [pod("1")], calm)
        await stage.go_on(6)
    assert seen == [1, 2, 3]
    assert stage.woken == [RANK]


async def test_a_defect_with_one_service_does_not_stop_the_others(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.pods.answers["10.0.0.1"] = RuntimeError("a defect")
    other = Key("RerankerService", "shop", "other")
    async with stage.running():
        stage.book.want(RANK, 2.0, [pod("1")])
        stage.book.want(other, 2.0, [pod("2")])
        await stage.go_on(6)
    assert len(stage.pods.read_at["10.0.0.2"]) == 3
    assert len(stage.pods.read_at["10.0.0.1"]) == 3
    assert "a defect" in caplog.text


async def test_who_asks_gets_what_is_so_now(stage: Stage) -> None:
    (load,) = await stage.book.ask(RANK, [pod("1")])
    assert len(load.samples) == 1
    # Many at the same time are one.
    stage.pods.now += 5
    await asyncio.gather(*(stage.book.ask(RANK, [pod("1")]) for _ in range(10)))
    assert len(stage.pods.read_at["10.0.0.1"]) == 2
    _, second = await stage.book.ask(RANK, [pod("1"), pod("2")])
    assert len(second.samples) == 1, "a new pod is read, however new the others' samples are"
    assert list(stage.book.known()) == [], "nobody wants it all the time"


async def test_who_asks_is_answered_when_the_service_goes(stage: Stage) -> None:
    stage.pods.answers["10.0.0.1"] = None
    question = asyncio.create_task(stage.book.ask(RANK, [pod("1")]))
    await stage.settle()
    stage.book.forget(RANK)
    (load,) = await question
    assert load.samples == ()


async def test_services_that_are_only_asked_about_are_forgotten(stage: Stage) -> None:
    for number in range(2100):
        stage.pods.now += 0.001
        await stage.book.ask(Key("RerankerService", "shop", f"s{number}"), [pod("1")])
    assert stage.book.size == 2000
    stage.pods.now += 300
    await stage.book.ask(RANK, [pod("1")])
    assert stage.book.size == 1


def test_the_history_keeps_the_last_seconds_and_the_ends_of_a_minute() -> None:
    history = History()
    for second in range(0, 1000, 2):
        history.add(Sample(at=float(second), requests=float(second)))
    at = [sample.at for sample in history.samples]
    assert at == sorted(at)
    assert at[-7:] == [986, 988, 990, 992, 994, 996, 998], "all of the last seconds"
    assert 58 <= 998 - at[0] <= 66
    assert len(at) <= 20
    gaps = [after - before for before, after in itertools.pairwise(at)]
    assert max(gaps) <= 8


def test_the_history_is_bounded_and_survives_a_clock_that_is_put_back() -> None:
    history = History()
    for number in range(5000):
        history.add(Sample(at=number / 1000))
    assert len(history.samples) <= 64
    history.add(Sample(at=1.0))
    assert [sample.at for sample in history.samples] == [1.0]


def test_buckets_that_have_not_changed_are_kept_once() -> None:
    history = History()
    for at in (1.0, 2.0, 3.0):
        buckets = (*((bound / 7, 5.0) for bound in range(9)), (9.9, at))
        history.add(Sample(at=at, queue_buckets=buckets))
    first, second, third = history.samples
    assert second.queue_buckets[0] is first.queue_buckets[0] is third.queue_buckets[0]
    assert third.queue_buckets[-1] == (9.9, 3.0)


async def test_series_of_services_are_bounded(stage: Stage) -> None:
    stage.pods.answers["10.0.0.1"] = {"tokens_per_second": 10.0, "backlog_tokens": 40.0}
    stage.pods.answers["10.0.0.2"] = ScrapeError("timeout")
    registry = stage.metrics.registry
    registry.register(LoadCollector(stage.book, most=2))
    async with stage.running():
        for name in "abc":
            key = Key("RerankerService", "shop", name)
            stage.book.want(key, 2.0, [pod("1"), pod("2")])
        await stage.go_on(2)
    text = generate_latest(registry).decode()
    series = 'reranker_operator_service_backlog_seconds{name="%s",namespace="shop"} 4.0'
    assert [series % name in text for name in "abc"] == [True, True, False]
    assert 'reranker_operator_service_unread_pods{name="a",namespace="shop"} 1.0' in text
    assert "reranker_operator_scraped_pods 6.0" in text


def test_a_sample_of_the_future_is_no_news() -> None:
    """The clock was put back, and the pod has not answered since."""
    load = PodLoad("1", "serving", "r1", (Sample(1000.0),))
    assert [load.is_known(now, 10.0) for now in (989.0, 990.0, 1010.0, 1011.0)] == [
        False, True, True, False,
    ]  # fmt: skip
