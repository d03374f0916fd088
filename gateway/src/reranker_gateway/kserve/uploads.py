"""How many messages may arrive at a time, and how long that may take.

gRPC gives a message only as a whole, so its bytes cannot be counted as they come; what is bounded
is how many are coming, each within the listener's limit of size. Whoever waits makes those that
have had their fair time end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reranker_gateway.errors import BodyTimeoutError

_FAIR_SECONDS = 0.5
T = TypeVar("T")


class Uploads:
    """Places for messages that arrive."""

    def __init__(self, places: int, longest: float, fair: float = _FAIR_SECONDS) -> None:
        """`longest`: seconds of one message; `fair`: the same while others wait."""
        self._free = asyncio.Semaphore(places)
        self._longest = longest
        self._fair = min(fair, longest)
        self._waiting = 0
        self._reading: dict[asyncio.Timeout, float] = {}

    async def receive(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives, called once there is a place for it. Raises BodyTimeoutError."""
        await self._enter()
        now = asyncio.get_running_loop().time()
        patience = asyncio.timeout_at(now + (self._fair if self._waiting else self._longest))
        try:
            async with patience:
                self._reading[patience] = now
                return await read()
        except TimeoutError:
            raise BodyTimeoutError(
                f"the message did not arrive in time: {self._longest:g} s, {self._fair:g} s while "
                "others wait"
            ) from None
        finally:
            self._reading.pop(patience, None)
            self._free.release()

    async def _enter(self) -> None:
        self._waiting += 1
        try:
            if self._free.locked():
                self._hasten()
            await self._free.acquire()
        finally:
            self._waiting -= 1

    def _hasten(self) -> None:
        for patience, began in self._reading.items():
            if not patience.expired():
                patience.reschedule(began + self._fair)
