"""Keeps what pods said of their load in the last minute, and wakes services when that matters.

    reconcile ──want: how often, which pods──▶ Loads ──read──▶ pods
        ▲                                        │
        └──────── key, when much has changed ◀───┘

Only pods of services that want it are read: those whose reconcile says so, at its pace, and those
that an outside autoscaler asks about, when it asks. A pod that does not answer is asked less often,
and has no new samples, so that whoever decides sees it as unknown. All services share the places;
none has more than a part of them, so that pods which hang hold up their own service first. Slow
ones have rounds and places of their own, so that the others don't wait for them.
"""

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reranker_operator import names
from reranker_operator.adapters.scrape import Pods, ScrapeError
from reranker_operator.api.meta import RERANKER_SERVICE
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.causes.pods import moment
from reranker_operator.core.load import Pace, PodLoad, Role, needs_loads
from reranker_operator.core.recheck import Calm, recheck
from reranker_operator.core.signals import Signals, much_the_same, signals
from reranker_operator.core.world import ServiceWorld
from reranker_operator.runtime.history import History
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.queue import Key, Lane

logger = logging.getLogger(__name__)

#: Of one service at the same time: pods, and among them those that are slow.
_ABREAST, _SLOW_ABREAST = 16, 8
#: A pod is slow whose last answer took so many seconds. It is left alone for so many times as long,
#: but not until nobody knows of it any more.
_SLOW_SECONDS, _REST, _LONGEST_REST = 0.25, 2.0, 4.0
#: Seconds between tries of a pod that does not answer; doubled up to the second.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
#: Seconds after the time by which a pod must have ended that it may still be there.
_GRACE = 10.0
#: Seconds for which the pods of a service stay that was only asked about from outside.
_ASKED_SECONDS = 120.0
#: Services that are remembered for those who ask.
_MOST_ASKED = 2000
#: Seconds for which an answer is good enough for the next one who asks.
GOOD_SECONDS = 1.5


_ROLES: Mapping[str, Role] = {"serving": "serving", "activator": "activator"}


class Target(NamedTuple):
    """A pod that can be read."""

    pod: str
    uid: str
    address: str
    role: Role
    revision: str | None


def targets(pods: Iterable[Mapping[str, Any]], now: float) -> Iterator[Target]:
    """Pods of a service that have an address and a program that runs.

    Of a lost node those stay that were told to end: nobody says that they have.
    """
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status") or {}
        labels = meta.get("labels") or {}
        role: Role | None = _ROLES.get(labels.get(names.APP_COMPONENT, ""))
        running = any(
            "running" in (entry.get("state") or {})
            for entry in status.get("containerStatuses") or ()
        )
        end = moment(meta.get("deletionTimestamp"))
        if end is not None and now - end.timestamp() > _GRACE:
            continue
        if role is not None and running and (address := status.get("podIP")):
            yield Target(meta["name"], meta["uid"], address, role, labels.get(names.REVISION_LABEL))


@dataclass(slots=True)
class _Pod:
    target: Target
    history: History = field(default_factory=History)
    failures: int = 0
    slow: bool = False
    #: On the loop's clock.
    next_try: float = 0.0

    def load(self) -> PodLoad:
        target = self.target
        return PodLoad(
            target.pod, target.role, target.revision, self.history.samples, self.failures
        )


@dataclass(slots=True)
class _Service:
    pods: dict[str, _Pod] = field(default_factory=dict)
    #: Between two rounds; None: only when somebody asks.
    seconds: float | None = None
    calm: Calm | None = None
    #: On the loop's clock: the next round, the end of the last one, the last time somebody asked.
    due: float = 0.0
    read: float = float("-inf")
    asked: float = float("-inf")
    round: "asyncio.Task[None] | None" = None
    #: The round of the slow pods, which may last longer.
    slow_round: "asyncio.Task[None] | None" = None
    #: What the last reconcile saw.
    seen: Signals | None = None

    def cancel(self) -> None:
        """Read no more."""
        for task in (self.round, self.slow_round):
            if task is not None:
                task.cancel()


class Loads:
    """The loads of all services that want or are asked for them; runs on the event loop."""

    def __init__(
        self,
        pods: Pods,
        add: Callable[[Key, Lane], None],
        metrics: Metrics,
        *,
        paces: Mapping[Pace, float],
        at_once: int,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._pods = pods
        self._add = add
        self._metrics = metrics
        self._paces = paces
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._wall = wall
        self._jitter = jitter
        self._at_once = at_once
        self._places = asyncio.Semaphore(at_once)
        self._slow_places = asyncio.Semaphore(max(1, at_once // 2))
        #: Rounds under way, of both kinds.
        self._rounds = 0
        self._services: dict[Key, _Service] = {}
        self._heap: list[tuple[float, Key]] = []
        self._wake = asyncio.Event()

    # For those who decide.

    def of(
        self, service: RerankerService, pods: Iterable[Mapping[str, Any]]
    ) -> tuple[PodLoad, ...]:
        """What is known of its pods; from now on they are read as often as its spec needs."""
        pace = needs_loads(service)
        return self.want(_key(service), self._paces[pace] if pace else None, pods)

    def planned(self, world: ServiceWorld) -> None:
        """What is planned now is by this world: the service is woken when it would be another."""
        service = self._services.get(_key(world.service))
        if service is not None:
            service.calm = recheck(world)

    def want(
        self,
        key: Key,
        seconds: float | None,
        pods: Iterable[Mapping[str, Any]] = (),
        calm: Calm | None = None,
    ) -> tuple[PodLoad, ...]:
        """Read these pods every so many seconds from now on, or (None) no more; what is known.

        The service is looked at again when `calm` says no to what came of a round; without it, when
        that differs much from what is returned now.
        """
        service = self._services.get(key)
        if seconds is None:
            if service is not None:
                service.seconds = None
                self._drop_unasked(key, service)
            return ()
        if service is None:
            service = self._services[key] = _Service()
        _keep(service, pods, self._wall())
        if service.seconds is None or seconds < service.seconds:
            # Not all at the same moment after a start.
            self._schedule(key, service, seconds * self._jitter())
        service.seconds, service.calm = seconds, calm
        loads = _loads(service)
        service.seen = signals(loads, self._wall())
        return loads

    def forget(self, key: Key) -> None:
        """The service is gone."""
        service = self._services.pop(key, None)
        if service is not None:
            service.cancel()

    async def ask(self, key: Key, pods: Iterable[Mapping[str, Any]]) -> tuple[PodLoad, ...]:
        """The loads of these pods, read now unless they have just been."""
        now = self._clock()
        service = self._services.get(key)
        if service is None:
            self._make_room()
            service = self._services[key] = _Service()
        service.asked = now
        _keep(service, pods, self._wall())
        unread = any(not pod.history.samples and not pod.failures for pod in service.pods.values())
        if unread or now - service.read > GOOD_SECONDS:
            # Whoever asks with us, or forgets the service, must not end the others' question.
            await asyncio.wait({self._begin(key, service)})
            if service.slow_round is not None:
                await asyncio.wait({service.slow_round})
        return _loads(service)

    # What is known, for the metrics.

    def known(self) -> Iterator[tuple[Key, Signals]]:
        """Of the services that want to be read."""
        now = self._wall()
        for key, service in sorted(self._services.items(), key=lambda entry: entry[0]):
            if service.seconds is not None:
                yield key, signals(_loads(service), now)

    @property
    def size(self) -> int:
        """Pods in the book."""
        return sum(len(service.pods) for service in self._services.values())

    # Reading.

    async def run(self) -> None:
        """Rounds as they fall due; forever, cancelled at the end."""
        try:
            while True:
                wait = self._start_due()
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), wait)
                except TimeoutError:
                    continue
        finally:
            for service in self._services.values():
                service.cancel()

    def _start_due(self) -> float | None:
        """Begin what is due; seconds until the next is, or None."""
        now = self._clock()
        while self._heap:
            due, key = self._heap[0]
            if due > now:
                return due - now
            heapq.heappop(self._heap)
            service = self._services.get(key)
            if service is not None and service.seconds is not None and service.due == due:
                self._begin(key, service)
        return None

    def _schedule(self, key: Key, service: _Service, delay: float) -> None:
        service.due = self._clock() + delay
        heapq.heappush(self._heap, (service.due, key))
        self._wake.set()

    def _begin(self, key: Key, service: _Service) -> "asyncio.Task[None]":
        """A round of this service, or the one that is under way."""
        if service.round is None:
            service.round = asyncio.create_task(self._round(key, service))
        return service.round

    async def _round(self, key: Key, service: _Service) -> None:
        began = self._clock()
        calm = False
        try:
            due = [pod for pod in service.pods.values() if pod.next_try <= began]
            slow = [pod for pod in due if pod.slow]
            if slow and service.slow_round is None:
                service.slow_round = asyncio.create_task(self._slow_round(key, service, slow))
            await self._read_all([pod for pod in due if not pod.slow], _ABREAST, nullcontext())
            calm = self._is_calm(service)
        except Exception:
            # A defect of ours with one service must not stop the others.
            logger.exception("loads of %s", key)
        finally:
            service.round, service.read = None, self._clock()
        if self._services.get(key) is not service or service.seconds is None:
            return
        # Where a round takes longer than its time, the next one begins at once.
        self._schedule(key, service, max(0.0, began + service.seconds - service.read))
        if not calm:
            self._add(key, Lane.NEXT)

    async def _slow_round(self, key: Key, service: _Service, pods: list[_Pod]) -> None:
        calm = False
        try:
            await self._read_all(pods, _SLOW_ABREAST, self._slow_places)
            calm = self._is_calm(service)
        except Exception:
            logger.exception("loads of %s", key)
        finally:
            service.slow_round = None
        if self._services.get(key) is service and service.seconds is not None and not calm:
            self._add(key, Lane.NEXT)

    async def _read_all(
        self, pods: list[_Pod], abreast: int, places: AbstractAsyncContextManager[None]
    ) -> None:
        waiting, crew = iter(pods), min(abreast, len(pods))

        async def read_some() -> None:
            nonlocal crew
            for pod in waiting:
                async with places, self._places:
                    await self._read(pod)
                # Nobody knows yet how slow new pods are: a few need not wait for many of others.
                if crew > max(1, self._at_once // self._rounds):
                    crew -= 1
                    return

        self._rounds += 1
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(crew):
                    group.create_task(read_some())
        finally:
            self._rounds -= 1

    async def _read(self, pod: _Pod) -> None:
        started = self._clock()
        try:
            sample = await self._pods.read(pod.target.address, pod.target.role)
        except ScrapeError as error:
            self._metrics.scraped(error.reason, self._took(pod, started))
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(pod.failures, 10))
            pod.failures += 1
            pod.next_try = self._clock() + pause
            return
        took = self._took(pod, started)
        self._metrics.scraped("ok", took)
        rest = min(_REST * took, _LONGEST_REST) if pod.slow else 0.0
        pod.failures, pod.next_try = 0, self._clock() + rest
        pod.history.add(sample)

    def _took(self, pod: _Pod, started: float) -> float:
        """Seconds of an answer, or of waiting for it, by which the pod is slow from now on."""
        seconds = self._clock() - started
        pod.slow = seconds >= _SLOW_SECONDS
        return seconds

    def _is_calm(self, service: _Service) -> bool:
        loads, now = _loads(service), self._wall()
        if service.calm is not None:
            return service.calm(loads, now)
        return service.seen is not None and much_the_same(service.seen, signals(loads, now))

    # Services that were only asked about.

    def _make_room(self) -> None:
        """Forget those that nobody has asked about for a while; the longest, if there are many."""
        now = self._clock()
        asked = [key for key, service in self._services.items() if service.seconds is None]
        asked.sort(key=lambda key: self._services[key].asked)
        for key in asked:
            old = now - self._services[key].asked > _ASKED_SECONDS
            if not old and len(asked) < _MOST_ASKED:
                return
            asked = asked[1:]
            self.forget(key)

    def _drop_unasked(self, key: Key, service: _Service) -> None:
        if self._clock() - service.asked > _ASKED_SECONDS:
            self.forget(key)


def _key(service: RerankerService) -> Key:
    return Key(RERANKER_SERVICE.kind, service.metadata.namespace, service.metadata.name)


def _keep(service: _Service, pods: Iterable[Mapping[str, Any]], now: float) -> None:
    """Exactly these pods, with what is known of them."""
    kept: dict[str, _Pod] = {}
    for target in targets(pods, now):
        pod = service.pods.get(target.uid) or _Pod(target)
        pod.target = target
        kept[target.uid] = pod
    service.pods = kept


def _loads(service: _Service) -> tuple[PodLoad, ...]:
    return tuple(pod.load() for pod in service.pods.values())
