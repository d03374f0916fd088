"""Requests that wait for the first pod: callers in turn, each's in the order in which they came.

While somebody waits, the pods are asked ten times a second whether they are ready. Once they are,
requests go out in order, a few at a time, so that many of them do not fill the first pod's queue at
once. What a pod refuses is sent again, in its place in the line, while its time lasts; so is what
was sent to a pod that went away: to score again changes nothing.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from reranker_gateway.activator.cold_start import ColdStart
from reranker_gateway.clock import Clock
from reranker_gateway.errors import GatewayError, NotReadyError
from reranker_gateway.gate import CallerGate
from reranker_gateway.request_context import current_request

#: Requests that are sent to the pods and have no answer yet.
_AT_ONCE = 64
_ASK_SECONDS = 0.1
#: While nobody waits, but somebody was sent away to come back later.
_IDLE_ASK_SECONDS = 1.0
#: The address leads to one of the pods by chance, so one that is not ready says little.
_UNSURE_SECONDS = 2.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
#: How long a request that was sent away counts as one that waits: to be seen by who starts pods.
_ECHO_SECONDS = 5.0
#: Without anybody who asks, after this nobody is expected to come back.
_FORGET_SECONDS = 900.0

T = TypeVar("T")


class SleepingError(NotReadyError):
    """No pod serves, and none will in the time that the caller has."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass
class NotTakenError(Exception, Generic[T]):
    """An attempt that another one may follow."""

    #: What the pod said, to be told when no other attempt follows; None when it said nothing.
    answer: T | GatewayError | None
    #: A pod is there, and its queue is full.
    full: bool = False


class Hold:
    """Sends requests to the pods, or has them wait."""

    def __init__(
        self, *, ask: Callable[[], Awaitable[bool]], cold_start: ColdStart, seconds: float,
        clock: Clock,
    ) -> None:  # fmt: skip
        """`ask` tells whether a pod is ready; `seconds` is how long a request may be held."""
        self._ask = ask
        self._clock = clock
        self._seconds = seconds
        self._ready = asyncio.Event()
        self._places = CallerGate(_AT_ONCE)
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._sent_away_at = float("-inf")
        self._lost_at = float("-inf")
        self.cold_start = cold_start
        #: Those who wait for a pod or for a place.
        self.waiting = 0

    @property
    def ready(self) -> bool:
        """A pod answered, when it was last asked or sent something."""
        return self._ready.is_set()

    @property
    def held(self) -> int:
        """Requests that wait for a pod; those just sent away because of it count as one."""
        if self.ready:
            return 0
        return max(self.waiting, int(self._clock() - self._sent_away_at < _ECHO_SECONDS))

    def check(self, patience: float | None) -> None:
        """Raises SleepingError when no pod will answer within `patience` seconds of the caller."""
        if self.ready or self._unsure > 0:
            return
        limit, remaining = self._limit(patience), self.cold_start.remaining()
        if remaining is not None and remaining > limit:
            self._sent_away_at = self._clock()
            # It wakes the service all the same: later ones will be answered.
            self._watch()
            raise SleepingError(
                f"no pod serves, and one should in {math.ceil(remaining)} s, which is longer than "
                f"the {math.floor(limit)} s of this request; it is being started, retry later",
                self.cold_start.retry_after(),
            )

    async def deliver(self, attempt: Callable[[], Awaitable[T]], patience: float | None) -> T:
        """What `attempt` gives once a pod takes it. Raises SleepingError, or what the pod said.

        `attempt` raises NotTakenError.
        """
        end = self._clock() + self._limit(patience)
        # Its place is kept until it has its answer, so that nobody overtakes it.
        waited = await self._get_place(end)
        try:
            return await self._deliver(attempt, end, waited)
        finally:
            self._places.release()

    async def _deliver(self, attempt: Callable[[], Awaitable[T]], end: float, waited: bool) -> T:
        pause = _FIRST_PAUSE
        while True:
            try:
                taken = await attempt()
            except NotTakenError as refusal:
                refused: NotTakenError[T] = refusal
            else:
                self._found()
                return taken
            if self._clock() + pause >= end or (refused.full and not waited):
                return self._give_up(refused)
            if not refused.full:
                self._lost()
            await asyncio.sleep(pause)
            with self._counted():
                waited |= await self._until_ready(end, told=not waited)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def look(self) -> bool:
        """Whether a pod is ready now; asked for those who wake nobody."""
        if not self.ready and await self._ask():
            self._found()
        return self.ready

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    def _limit(self, patience: float | None) -> float:
        return self._seconds if patience is None else min(patience, self._seconds)

    def _give_up(self, refused: NotTakenError[T]) -> T:
        if isinstance(refused.answer, GatewayError):
            raise refused.answer
        if refused.answer is None:
            raise self._too_late()
        return refused.answer

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def _get_place(self, end: float) -> bool:
        """Wait for a place and for a pod; whether the pod took any time. Raises SleepingError."""
        if not self.ready:
            self.check(end - self._clock())
            self._watch()
        with self._counted():
            if not await self._within(end, self._places.acquire(current_request().caller)):
                raise self._too_late()
            try:
                return await self._until_ready(end, told=False)
            except BaseException:
                self._places.release()
                raise

    async def _until_ready(self, end: float, *, told: bool) -> bool:
        """Wait for a pod; whether that took any time. Raises SleepingError at `end`.

        `told`: or as soon as it is certain that it would wait in vain.
        """
        if self.ready:
            return False
        self._watch()
        if told and not await self._within(
            min(end, self._clock() + self._unsure), self._ready.wait()
        ):
            self.check(end - self._clock())
        if not await self._within(end, self._ready.wait()):
            raise self._too_late()
        return True

    async def _within(self, end: float, work: Awaitable[object]) -> bool:
        """Whether `work` was done by `end`."""
        try:
            async with asyncio.timeout(max(0.0, end - self._clock())):
                await work
        except TimeoutError:
            return False
        return True

    @property
    def _unsure(self) -> float:
        """Seconds for which a pod may yet be there, since one was a moment ago."""
        return self._lost_at + _UNSURE_SECONDS - self._clock()

    def _lost(self) -> None:
        """A pod did not answer, or is not ready: another one may be."""
        if self.ready:
            self._lost_at = self._clock()
            self._ready.clear()

    def _too_late(self) -> SleepingError:
        self._sent_away_at = self._clock()
        return SleepingError(
            "no pod answered in the time that a request is held; one is being started, retry later",
            self.cold_start.retry_after(),
        )

    def _watch(self) -> None:
        self._asked_at = self._clock()
        self.cold_start.begin()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_on())

    async def _ask_on(self) -> None:
        while not self.ready:
            if await self._ask():
                self._found()
                return
            if not self.waiting and self._clock() - self._asked_at > _FORGET_SECONDS:
                self.cold_start.abandon()
                return
            lately = self._clock() - self._asked_at < _ECHO_SECONDS
            await asyncio.sleep(_ASK_SECONDS if self.waiting or lately else _IDLE_ASK_SECONDS)

    def _found(self) -> None:
        if self._unsure > 0:
            # It was there all the time.
            self.cold_start.abandon()
        self.cold_start.end()
        # Wakes them in the order in which they began to wait.
        self._ready.set()
