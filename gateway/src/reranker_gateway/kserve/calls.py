"""How many calls may be in progress, and how long an answer may lie where nobody takes it.

The library counts a call until its stream has ended, which is the client's to decide: one that
grants its answers no window holds a place for good. Here a call is over when its answer was taken
or its time is; what is left of it goes with its connection, whose age is bounded (`server`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from reranker_gateway.errors import OverloadedError
from reranker_gateway.kserve.refusals import Refusal
from reranker_gateway.shares import Shares

Context = Any  # grpc.aio.ServicerContext, which has no types
Method = Callable[[Any, Context], Awaitable[Any]]


class Calls:
    """The calls of some methods, shared out between callers."""

    def __init__(self, most: int, patience: float) -> None:
        """`patience`: seconds for the client to take an answer."""
        self._shares = Shares(most)
        self._patience = patience

    def enter(self, caller: str) -> None:
        """Count the call that this task answers, until it has ended. Raises OverloadedError."""
        shares = self._shares
        if shares.deficit(caller, 1) > 0:
            raise OverloadedError(
                f"{shares.total} calls are in progress, {shares.of(caller)} of this caller, of at "
                f"most {shares.bound}; retry later or add replicas",
                retry_after=1,
            )
        shares.take(caller, 1)
        _current_task().add_done_callback(lambda _: shares.give_back(caller, 1))

    def bounded(self, method: Method) -> Method:
        """`method`, whose answer or Refusal is given up where the client does not take it."""

        async def call(messages: Any, context: Context) -> Any:
            try:
                answer = await method(messages, context)
            finally:
                # The same task sends it, and waits until the client takes it.
                task = _current_task()
                alarm = asyncio.get_running_loop().call_later(self._patience, task.cancel)
                task.add_done_callback(lambda _: alarm.cancel())
            if isinstance(answer, Refusal):
                await answer.abort(context)
            return answer

        return call


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - the library runs each call in one
    return task
