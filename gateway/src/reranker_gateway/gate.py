"""A few places to work, given to callers in rotation.

Like a semaphore, but whoever comes often waits behind themselves only: each caller has a line, and
the lines take turns.
"""

import asyncio
from collections import OrderedDict, deque


class CallerGate:
    """`places` may be inside at a time."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, caller: str) -> None:
        """Wait for a place; cancelling gives up the wait."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(caller, turn)
            else:
                # Given just now: somebody else's.
                self.release()
            raise

    def release(self) -> None:
        """Give the place to the first one of the next line."""
        if not self._lines:
            self._free += 1
            return
        caller, line = self._lines.popitem(last=False)
        turn = line.popleft()
        if line:
            self._lines[caller] = line
        if turn.cancelled():
            # Its wait has ended, but not yet been told.
            self.release()
        else:
            turn.set_result(None)

    def _forget(self, caller: str, turn: "asyncio.Future[None]") -> None:
        line = self._lines.get(caller)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[caller]
