"""How many messages may arrive at a time, and how long that may take.

gRPC gives a message only as a whole, so its bytes cannot be counted as they come; what is bounded
is how many are coming, each within the listener's limit of size. Whoever waits makes those that
have had their fair time end, and the next place is for the caller who has the fewest.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reranker_gateway.errors import BodyTimeoutError

_FAIR_SECONDS = 0.5
T = TypeVar("T")


class Uploads:
    """Places for messages that arrive."""

    def __init__(self, places: int, longest: float, fair: float = _FAIR_SECONDS) -> None:
        """`longest`: seconds of one message; `fair`: the same while others wait."""
        self._free = places
        self._longest = longest
        self._fair = min(fair, longest)
        self._held: Counter[str] = Counter()
        # Of those with as many places, whoever had none for longest is ahead.
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._reading: dict[asyncio.Timeout, float] = {}

    async def receive(self, caller: str, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives, called once there is a place for it. Raises BodyTimeoutError."""
        await self._enter(caller)
        now = asyncio.get_running_loop().time()
        patience = asyncio.timeout_at(now + (self._fair if self._lines else self._longest))
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
            self._leave(caller)

    async def _enter(self, caller: str) -> None:
        if self._free:
            self._take(caller)
            return
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(caller, deque()).append(turn)
        self._hasten()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(caller, turn)
            else:  # it was given a place already
                self._leave(caller)
            raise

    def _take(self, caller: str) -> None:
        self._free -= 1
        self._held[caller] += 1

    def _leave(self, caller: str) -> None:
        self._free += 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        while self._free and self._lines:
            self._call_next()

    def _call_next(self) -> None:
        caller = min(self._lines, key=lambda waiting: self._held[waiting])
        line = self._lines.pop(caller)
        turn = line.popleft()
        if line:
            self._lines[caller] = line
        if not turn.cancelled():
            self._take(caller)
            turn.set_result(None)

    def _forget(self, caller: str, turn: "asyncio.Future[None]") -> None:
        line = self._lines.get(caller)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[caller]

    def _hasten(self) -> None:
        for patience, began in self._reading.items():
            if not patience.expired():
                patience.reschedule(began + self._fair)
