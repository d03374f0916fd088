"""So many calls at a time, and no caller may keep the others out.

Who comes when there is no room takes the place of somebody who has more places than it would have
itself, with it. So one caller alone may have all of them, and beside one who has them there is
still as much for the next. Callers are told apart by their address, without the port.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class FullError(Exception):
    """There is no place, or no longer: others have fewer of them than this caller."""


class Crowd:
    """The calls of one kind, each a task of its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        # By caller, the oldest first.
        self._tasks: dict[str, dict[asyncio.Task[object], None]] = {}

    @property
    def size(self) -> int:
        """Calls that have a place."""
        return sum(map(len, self._tasks.values()))

    @contextmanager
    def place(self, peer: str) -> Iterator[None]:
        """For what the present task does, which ends when it must make room. Raises FullError."""
        task, caller = asyncio.current_task(), peer.rpartition(":")[0]
        assert task is not None  # noqa: S101 - the library runs each call in one
        if self.size >= self._most:
            self._make_room(caller)
        self._tasks.setdefault(caller, {})[task] = None
        try:
            yield
        except asyncio.CancelledError:
            made_room = task not in self._tasks.get(caller, ())
            if made_room and not task.uncancel():
                raise FullError from None
            raise
        finally:
            self._forget(caller, task)

    def _make_room(self, caller: str) -> None:
        greediest = max(self._tasks, key=lambda other: len(self._tasks[other]))
        if len(self._tasks[greediest]) <= len(self._tasks.get(caller, ())) + 1:
            raise FullError
        oldest = next(iter(self._tasks[greediest]))
        self._forget(greediest, oldest)
        oldest.cancel()

    def _forget(self, caller: str, task: "asyncio.Task[object]") -> None:
        """Nothing for one who has made room already."""
        tasks = self._tasks.get(caller, {})
        if task in tasks:
            del tasks[task]
            if not tasks:
                del self._tasks[caller]
