"""The end of the process without a failed request.

    serving ──SIGTERM──▶ leaving ──delay──▶ closed ──last answer, or timeout──▶ exit 0

Leaving: the readiness probe says no, so the endpoints move away; requests that still arrive are
served, with `Connection: close` so that clients open their next connection elsewhere. Closed: new
requests get 503 with Retry-After, those in progress are finished.
"""

import asyncio
from contextlib import suppress
from enum import StrEnum


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
        self.phase = Phase.SERVING
        #: Set from CLOSED on.
        self.closed = asyncio.Event()

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

    def leave(self) -> None:
        """A request has ended."""
        self._active -= 1
        if self._active == 0:
            self._idle.set()

    def hurry(self) -> None:
        """Do not wait any longer: the second signal."""
        self._hurry.set()

    async def run(self) -> bool:
        """Go from serving to empty. False when the time was over before the last answer."""
        self.phase = Phase.LEAVING
        self._end = asyncio.get_running_loop().time() + self._timeout
        await self._wait(self._hurry, min(self._delay, self._timeout))
        self.phase = Phase.CLOSED
        self.closed.set()
        await self._wait(self._idle, self.remaining)
        return self._active == 0

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await event.wait()
