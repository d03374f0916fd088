"""The end of the process without a failed request.

    serving ──SIGTERM──▶ leaving ──nobody new──▶ closed ──last answer, or timeout──▶ exit 0

Leaving: the endpoints move away; requests that still arrive are served, with `Connection: close` so
that clients open their next connection elsewhere. This takes at least the delay, and longer while
somebody comes anew: Kubernetes leads to pods that end as long as no other is ready, so the only pod
of a service answers until its successor does. Closed: new requests get 503 with Retry-After, those
in progress are finished.
"""

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import Final

#: After nobody came anew for so long, the endpoints have moved away.
_QUIET_SECONDS: Final = 2.0
#: From the last word to those who stay, to the first refusal.
_CROSSING_SECONDS: Final = 0.5
#: The rest of the time is for requests in progress.
_LONGEST_LEAVING: Final = 0.75


class Phase(StrEnum):
    """Where in its life the process is."""

    SERVING = "serving"
    LEAVING = "leaving"
    CLOSED = "closed"


class Drain:
    """Counts requests in progress and walks through the phases."""

    def __init__(self, *, delay_seconds: float, timeout_seconds: float) -> None:
        self._delay = delay_seconds
        self._timeout = timeout_seconds
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._active = 0
        self._end = float("inf")
        #: Until then nobody is sent away yet: of those who stay, it is known who they are.
        self._settled = float("inf")
        self._staying: set[str] = set()
        self._newest = float("-inf")
        self.phase = Phase.SERVING
        #: Set when the delay is over: whoever has been silent may be sent away.
        self.delayed = asyncio.Event()
        #: Set from CLOSED on, and when the process will be killed: nobody should stay.
        self.parting = asyncio.Event()

    @property
    def active(self) -> int:
        """Requests in progress."""
        return self._active

    @property
    def remaining(self) -> float:
        """Seconds until those in progress are cut off; infinite before the drain."""
        return max(0.0, self._end - asyncio.get_running_loop().time())

    def enter(self) -> None:
        """A request begins."""
        self._active += 1
        self._idle.clear()

    def note(self, peer: str | None = None) -> None:
        """Somebody came who may ask; `peer` names a connection that no answer can end."""
        if self.phase is not Phase.LEAVING:
            return
        now = asyncio.get_running_loop().time()
        if peer is None:
            self._newest = now
        elif now < self._settled:
            self._staying.add(peer)
        elif peer not in self._staying:
            self._newest = now

    def leave(self) -> None:
        """A request has ended."""
        self._active -= 1
        if self._active == 0:
            self._idle.set()

    def hurry(self) -> None:
        """Do not wait any longer: the second signal."""
        self._hurry.set()

    def part(self) -> None:
        """The process will be killed: send away all who stay, and serve while it goes on."""
        self.delayed.set()
        self.parting.set()

    async def run(self) -> bool:
        """Go from serving to empty. False when the time was over before the last answer."""
        self.phase = Phase.LEAVING
        begun = asyncio.get_running_loop().time()
        self._end = begun + self._timeout
        self._settled = begun + min(self._delay, self._timeout)
        await self._wait(self._hurry, self._settled - begun)
        self.delayed.set()
        await self._until_quiet(begun + _LONGEST_LEAVING * self._timeout)
        self.parting.set()
        if self._delay:
            # What was sent before its sender was told to go has still to arrive.
            await self._wait(self._hurry, min(_CROSSING_SECONDS, self.remaining))
        self.phase = Phase.CLOSED
        await self._until_idle()
        return self._active == 0

    async def _until_idle(self) -> None:
        """Until the last answer, the end of the time, or the second signal."""
        waits = [asyncio.create_task(event.wait()) for event in (self._idle, self._hurry)]
        try:
            await asyncio.wait(waits, timeout=self.remaining, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _until_quiet(self, latest: float) -> None:
        """Until nobody comes anew, but not beyond `latest`, and not at all without a delay."""
        loop = asyncio.get_running_loop()
        while self._delay and not self._hurry.is_set():
            pause = min(self._newest + _QUIET_SECONDS, latest) - loop.time()
            if pause <= 0:
                return
            await self._wait(self._hurry, pause)

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await event.wait()
