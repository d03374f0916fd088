"""Answers of pods on their way to the clients, and how much of them lies here meanwhile.

An answer is taken from its pod before its first byte goes on: until then another pod may answer in
its place. What was taken counts, of all answers together, until the client has it. Where there is
no room, nothing more is read ahead of the client: the rest stays in the pod and in the network.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection
from typing import Any, Final, cast

import httpx
from starlette.types import Receive, Scope, Send

from reranker_gateway.activator.hold import NotTakenError
from reranker_gateway.logs import log_event
from reranker_gateway.peers import Headers
from reranker_gateway.request_context import TIMEOUT_HEADER

#: Of one connection only (RFC 9110, 7.6.1), or made anew for the other one.
NOT_HANDED_ON: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te"),
        *(b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"content-length"),
        *(b"x-request-id", TIMEOUT_HEADER),
    }
)
#: The server adds a date of its own.
_NOT_HANDED_BACK: Final = NOT_HANDED_ON - {b"content-length"} | {b"date"}
#: So much of one answer is read ahead at most.
_KEPT_BYTES: Final = 1 << 20
#: The HTTP client gives no more at a time.
PIECE_BYTES: Final = 64 << 10
_log = logging.getLogger(__name__)


class Room:
    """For the bytes of all answers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, count: int) -> bool:
        """Whether there was room for `count` more."""
        if self.held + count > self._most:
            return False
        self.held += count
        return True

    def give_back(self, count: int) -> None:
        """So many lie here no longer."""
        self.held -= count


class Answer:
    """One pod's answer. `close` it, whatever became of it."""

    def __init__(self, found: httpx.Response, room: Room, patience: float) -> None:
        """`patience`: seconds for the client to take it."""
        self._found = found
        self._room = room
        self._patience = patience
        self._kept: deque[bytes] = deque()
        self._held = 0
        self._rest = found.aiter_raw()
        self.status = found.status_code

    async def keep(self) -> None:
        """Take what is not long now, and let the connection go. Raises NotTakenError."""
        try:
            while self._held < _KEPT_BYTES and self._take(PIECE_BYTES):
                piece = await anext(self._rest, None)
                self._give_back(PIECE_BYTES - len(piece or b""))
                if piece is None:
                    await self._found.aclose()
                    return
                self._kept.append(piece)
        except httpx.TransportError:
            await self.close()
            raise NotTakenError(None) from None

    async def close(self) -> None:
        """Nothing of it is needed any more."""
        self._kept.clear()
        self._give_back(self._held)
        await self._found.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        found = [(name.lower(), value) for name, value in self._found.headers.raw]
        headers = without(found, _NOT_HANDED_BACK)
        # The next request is better made to a pod.
        headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": self.status, "headers": headers}
        try:
            async with asyncio.timeout(self._patience) as patience:
                await send(cast("Any", start))
                # In pieces, of which the server has one: what lies with it counts no longer.
                while self._kept:
                    await send(_body(self._kept[0]))
                    self._give_back(len(self._kept.popleft()))
                async for piece in self._rest:
                    await send(_body(piece))
                await send({"type": "http.response.body", "body": b""})
        except httpx.TransportError:
            # Without its end, the server breaks the connection: the client sees that it is cut.
            log_event(_log, "answer cut", error="the pod went away")
        except TimeoutError:
            if not patience.expired():
                raise
            log_event(_log, "answer cut", error="the client did not take it in time")

    def _take(self, count: int) -> bool:
        found = self._room.take(count)
        self._held += count * found
        return found

    def _give_back(self, count: int) -> None:
        self._held -= count
        self._room.give_back(count)


def without(headers: Headers, unwanted: Collection[bytes]) -> Headers:
    """Those that are not of this connection only: not `unwanted`, nor named by `Connection`."""
    named = b",".join(value for name, value in headers if name == b"connection")
    left_out = {name.strip().lower() for name in named.split(b",")} | set(unwanted)
    return [entry for entry in headers if entry[0] not in left_out]


def _body(piece: bytes) -> Any:
    return {"type": "http.response.body", "body": piece, "more_body": True}
