"""How many calls may be in progress, and how long an answer may lie where nobody takes it.

The library counts a call until its stream has ended, which is the client's to decide: one that
grants its answers no window holds a place for good. Here a call is over when its answer was taken
or its time is; what is left of it goes with its connection, whose age is bounded (`server`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Context = Any  # grpc.aio.ServicerContext, which has no types
Method = Callable[[Any, Context], Awaitable[Any]]


class Calls:
    """The calls of one listener."""

    def __init__(self, most: int, patience: float) -> None:
        """`patience`: seconds for the client to take an answer."""
        self._most = most
        self._patience = patience
        self._active = 0

    def bounded(self, method: Method) -> Method:
        """`method`, refused while there are too many calls."""

        async def call(messages: Any, context: Context) -> Any:
            if self._active >= self._most:
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._active} calls are in progress, the most there may be; retry later or "
                    "add replicas",
                    (("retry-after", "1"),),
                )
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - the library runs each call in one
            self._active += 1
            task.add_done_callback(self._ended)
            try:
                return await method(messages, context)
            finally:
                # The same task sends what this returns, and waits until the client takes it.
                alarm = asyncio.get_running_loop().call_later(self._patience, task.cancel)
                task.add_done_callback(lambda _: alarm.cancel())

        return call

    def _ended(self, _task: "asyncio.Task[Any]") -> None:
        self._active -= 1
