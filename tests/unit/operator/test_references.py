"""What is known of Secrets and ConfigMaps: by questions, events and lists, in any order."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker_operator.adapters.metadata import Change, Metadata
from reranker_operator.api.meta import Resource
from reranker_operator.core.world import Reference
from reranker_operator.errors import Expired, NotFound, OperatorError, Unavailable
from reranker_operator.runtime.queue import Key
from reranker_operator.runtime.references import References

KEY = Key("RerankerService", "shop", "rank")
CA = Reference("ConfigMap", "ca")
TOKEN = Reference("Secret", "token")


def _meta(version: int, uid: str = "u", name: str = "ca") -> Metadata:
    return Metadata("shop", name, uid, version)


class Enough(Exception):  # noqa: N818
    """Ends a watch that would go on for ever."""


class Api:
    """Answers as the test says; `asked` tells what for."""

    def __init__(self) -> None:
        self.objects: dict[str, Metadata] = {}
        self.asked: list[str] = []
        self.during_get = lambda: None
        self.script: list[OperatorError | list[Change]] = []
        self.watched_from: list[int] = []
        self.lists = 0

    async def get(self, resource: Resource, namespace: str, name: str) -> Metadata:
        self.asked.append(f"{resource.kind}/{name}")
        found = self.objects.get(name)
        self.during_get()
        if found is None:
            raise NotFound(name)
        return found

    async def list(self, resource: Resource, namespace: str | None) -> tuple[list[Metadata], int]:
        self.lists += 1
        return list(self.objects.values()), 100 * self.lists

    async def watch(
        self, resource: Resource, namespace: str | None, version: int
    ) -> AsyncIterator[Change]:
        self.watched_from.append(version)
        if not self.script:
            raise Enough
        step = self.script.pop(0)
        if isinstance(step, OperatorError):
            raise step
        for change in step:
            yield change


class World:
    def __init__(self, kinds: tuple[str, ...] = ("ConfigMap", "Secret")) -> None:
        self.api, self.woken, self.pauses, self.time = Api(), list[Key](), list[float](), 0.0
        self.references = References(
            self.api,
            self.woken.append,
            kinds=kinds,
            jitter=lambda: 0.5,
            sleep=self._sleep,
            clock=lambda: self.time,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def version(self, reference: Reference = CA) -> str | None:
        return (await self.references.versions(KEY, [reference]))[reference]


@pytest.fixture
def world() -> World:
    return World()


async def test_the_first_question_asks_and_events_tell_from_then_on(world: World) -> None:
    world.api.objects["ca"] = _meta(5)
    assert await world.version() == "u/5"
    world.references.observe("ConfigMap", Change("MODIFIED", _meta(7)))
    assert await world.version() == "u/7"
    world.references.observe("ConfigMap", Change("MODIFIED", _meta(6)))
    assert await world.version() == "u/7", "what is older comes late"
    assert world.woken == [KEY]
    assert world.api.asked == ["ConfigMap/ca"]


async def test_what_is_not_there_is_asked_for_each_time(world: World) -> None:
    assert await world.version() is None
    world.api.objects["ca"] = _meta(9)
    assert await world.version() == "u/9", "before the watch has told"
    world.references.observe("ConfigMap", Change("DELETED", _meta(11)))
    assert world.woken == [KEY]
    del world.api.objects["ca"]
    assert await world.version() is None


async def test_an_event_is_faster_than_the_answer(world: World) -> None:
    world.api.objects["ca"] = _meta(5)
    world.api.during_get = lambda: world.references.observe(
        "ConfigMap", Change("MODIFIED", _meta(6))
    )
    assert await world.version() == "u/6"


async def test_a_deletion_is_faster_than_the_answer(world: World) -> None:
    world.api.objects["ca"] = _meta(5)
    world.api.during_get = lambda: world.references.observe(
        "ConfigMap", Change("DELETED", _meta(6))
    )
    assert await world.version() is None


async def test_kinds_that_are_not_watched_are_never_asked_for() -> None:
    world = World(("ConfigMap",))
    world.api.objects["ca"] = _meta(5)
    assert await world.references.versions(KEY, [CA, TOKEN]) == {CA: "u/5"}
    assert world.api.asked == ["ConfigMap/ca"]


async def test_a_list_tells_of_what_a_gap_hid(world: World) -> None:
    world.api.objects["ca"] = _meta(5)
    await world.version()
    world.references.listed("ConfigMap", None, [_meta(5), _meta(6, name="other")], 8)
    assert world.woken == []
    world.references.listed("ConfigMap", None, [], 9)
    assert world.woken == [KEY]
    world.references.listed("ConfigMap", "elsewhere", [], 10)
    world.references.listed("Secret", None, [], 10)
    world.references.listed("ConfigMap", None, [], 10)
    assert world.woken == [KEY]


async def test_a_service_that_names_it_no_more_is_not_woken(world: World) -> None:
    world.api.objects["ca"] = _meta(5)
    await world.version()
    await world.references.versions(KEY, [TOKEN])
    world.references.observe("ConfigMap", Change("MODIFIED", _meta(7)))
    assert world.woken == []
    world.references.forget(KEY)
    world.references.observe("Secret", Change("ADDED", _meta(8, name="token")))
    assert world.woken == []


async def test_a_watch_goes_on_where_it_was_and_lists_anew_when_it_can_not() -> None:
    world = World(("ConfigMap",))
    world.api.objects["ca"] = _meta(5)
    await world.version()

    def later(change: Change) -> Change:
        world.time += 300
        return change

    class Slow(list[Change]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return map(later, super().__iter__())

    world.api.script = [
        Slow([Change("MODIFIED", _meta(120)), Change("BOOKMARK", _meta(150, "", ""))]),
        Expired("410"),
        Unavailable("503"),
        [],
    ]
    with pytest.raises(ExceptionGroup):
        await world.references.run()
    assert world.api.watched_from == [100, 150, 200, 300, 400]
    assert world.woken[0] == KEY
    # The first after a watch that held long; then ever longer, also after one that ended at once.
    assert world.pauses == [1.0, 2.0, 4.0]


async def test_nothing_is_listed_before_somebody_names_something() -> None:
    world = World(("ConfigMap",))
    task = asyncio.create_task(world.references.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.api.lists == 0
    await world.references.versions(KEY, [CA])
    with pytest.raises(ExceptionGroup):
        await task
    assert world.api.lists == 1


EVENTS = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=12)


@settings(deadline=None)
@given(EVENTS, st.integers(0, 3))
def test_the_newest_wins_in_whatever_order(events: list[tuple[int, bool]], asked: int) -> None:
    async def story() -> None:
        world, by_version = World(), dict(events)
        await world.references.versions(KEY, [CA])
        for number, version in enumerate(v for v, _ in events):
            kind = "MODIFIED" if by_version[version] else "DELETED"
            world.references.observe("ConfigMap", Change(kind, _meta(version)))
            if number == asked:
                await world.references.versions(KEY, [CA])
        newest = max(by_version)
        if by_version[newest]:
            world.api.objects["ca"] = _meta(newest)
        expected = f"u/{newest}" if by_version[newest] else None
        assert await world.version() == expected

    asyncio.run(story())
