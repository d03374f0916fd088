"""Reading a body within bounds, and noticing that the caller has gone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from reranker_gateway.admission import Entry
from reranker_gateway.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    GatewayError,
    UnsupportedMediaTypeError,
)
from reranker_gateway.settings import Settings

T = TypeVar("T")


class ClientGoneError(GatewayError):
    """The caller closed the connection; nobody reads this answer, the code is for the log."""

    status = 499
    type = "client_closed_request"


def check_media_type(request: Request) -> None:
    """Raises UnsupportedMediaTypeError for a body that says itself that it is not plain JSON."""
    declared = request.headers.get("content-type", "application/json")
    kind = declared.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaTypeError(
            f"Content-Type: {declared[:100]!r} is not understood; send application/json"
        )
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        raise UnsupportedMediaTypeError(
            f"Content-Encoding: {coding[:100]!r} is not understood; send the body as it is"
        )


async def read_body(request: Request, settings: Settings, entry: Entry) -> bytes:
    """The whole body within the settings' bounds, counted into `entry` as it arrives.

    Raises BodyTooLargeError, BodyTimeoutError, OverloadedError, ClientGoneError.
    """
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks = []
    now = asyncio.get_running_loop().time
    end = now() + settings.read_timeout_seconds
    try:
        async with asyncio.timeout_at(min(end, now() + settings.read_idle_seconds)) as patience:
            entry.on_giving_way(lambda: _end_now(patience))
            async for chunk in request.stream():
                if entry.held + len(chunk) > limit:
                    raise _too_large(limit)
                entry.add(len(chunk))
                chunks.append(chunk)
                patience.reschedule(min(end, now() + settings.read_idle_seconds))
    except TimeoutError:
        entry.check()
        raise BodyTimeoutError(
            f"the body did not arrive in time: {settings.read_idle_seconds:g} s without a byte or "
            f"{settings.read_timeout_seconds:g} s in all"
        ) from None
    except ClientDisconnect:
        raise ClientGoneError("the client closed the connection") from None
    entry.arrived()
    return b"".join(chunks)


def _end_now(patience: asyncio.Timeout) -> None:
    # One that has expired ends anyway, and may not be rescheduled.
    if not patience.expired():
        patience.reschedule(asyncio.get_running_loop().time())


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Result of `work`, which is cancelled when the caller disconnects (ClientGoneError)."""
    gone = ClientGoneError("the client closed the connection")
    return await unless(_disconnected(request), gone, work)


async def unless(
    event: Coroutine[Any, Any, object], error: GatewayError, work: Coroutine[Any, Any, T]
) -> T:
    """Result of `work`; when `event` comes first, it is cancelled and `error` raised."""
    over = False

    def cut_off(_watcher: "asyncio.Task[object]") -> None:
        if not over:
            _end_now(patience)

    watcher = asyncio.create_task(event)
    try:
        async with asyncio.timeout(None) as patience:
            watcher.add_done_callback(cut_off)
            return await work
    except TimeoutError:
        if patience.expired():
            raise error from None
        raise
    finally:
        over = True
        watcher.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {limit} bytes; send fewer passages")
