"""Reading a body within bounds, and noticing that the caller has gone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from reranker_gateway.admission import HeldBytes
from reranker_gateway.errors import BodyTimeoutError, BodyTooLargeError, GatewayError

_READ_TIMEOUT = 60.0
T = TypeVar("T")


class ClientGoneError(GatewayError):
    """The caller closed the connection; nobody reads this answer, the code is for the log."""

    status = 499
    type = "client_closed_request"


async def read_body(request: Request, limit: int, held: HeldBytes) -> bytes:
    """The whole body, at most `limit` bytes, counted into `held` as it arrives.

    Raises BodyTooLargeError, BodyTimeoutError, OverloadedError, ClientGoneError.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks = []
    size = 0
    try:
        async with asyncio.timeout(_READ_TIMEOUT):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                held.add(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise BodyTimeoutError(f"the body did not arrive within {_READ_TIMEOUT:.0f} s") from None
    except ClientDisconnect:
        raise ClientGoneError("the client closed the connection") from None
    return b"".join(chunks)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Result of `work`, which is cancelled when the caller disconnects (ClientGoneError)."""
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError("the client closed the connection")
        return task.result()
    finally:
        task.cancel()
        watcher.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {limit} bytes; send fewer passages")
