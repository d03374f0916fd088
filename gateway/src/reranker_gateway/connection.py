"""One client's connection: what it may make the server wait for, and how it is refused.

uvicorn times the pause between two requests and nothing else. Here every state in which the next
move is the client's has a time limit, and when there are too many connections, the one that has
been in such a state for longest makes room. So clients that say nothing keep nobody out, and a
probe is always answered. The body of a request that is being read is timed where it is read
(`api.body`), because only there it can be told apart from one that nobody wants.

    FIRST ─▶ HEAD ─▶ BODY ─▶ (at work) ─▶ NEXT ─▶ HEAD …
                       └▶ answered early ─▶ LEFTOVER ─▶ NEXT
"""

import asyncio
import itertools
import logging
import re
import select
import time
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, ClassVar, Protocol

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from reranker_gateway.api.errors import error_response
from reranker_gateway.logs import log_event
from reranker_gateway.untaken import Untaken

KEEP_ALIVE_SECONDS = 75
#: A chunk costs as much work as a kilobyte: bodies in crumbs would stop the event loop.
_FREE_CHUNKS = 1024
_BYTES_PER_CHUNK = 64
#: Read at once, and so what a client can have us hold beside its request.
_READ_BYTES = 1 << 16
#: Of a header over several lines (RFC 9112, 5.2).
_FOLD = re.compile(rb"\n[ \t]")
#: Between looks whether a client is still there, of whom nothing is read.
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of each listener."""

    connections: int
    #: For a whole head, and for the rest of a body that nobody reads.
    idle_seconds: float
    #: For the client to take an answer.
    answer_seconds: float
    #: Of all answers that clients have not taken.
    answer_bytes: int
    #: After this long the answer tells the client to connect anew.
    age_seconds: float


class Owed(Enum):
    """What the client is to do next."""

    FIRST = auto()
    HEAD = auto()
    BODY = auto()
    LEFTOVER = auto()
    NEXT = auto()
    TAKE_ANSWER = auto()


class Waiting(Protocol):
    """A connection that can be told to make room."""

    def end(self) -> None:
        """Close; what is under way learns that the client has gone."""


class Silent:
    """Connections of one listener whose clients are to do something, longest ones first."""

    def __init__(self) -> None:
        # Dictionaries, for their order.
        self._uploads: dict[Waiting, None] = {}
        self._others: dict[Waiting, None] = {}

    def put(self, connection: Waiting, owed: Owed | None) -> None:
        """It has owed this from now on."""
        self._uploads.pop(connection, None)
        self._others.pop(connection, None)
        if owed is Owed.BODY:
            self._uploads[connection] = None
        elif owed is not None:
            self._others[connection] = None

    def longest(self, places: int) -> Waiting | None:
        """Uploads come last, as they may be honest ones, unless they have most of the `places`."""
        if len(self._uploads) > places // 2:
            return next(iter(self._uploads))
        return next(itertools.chain(self._others, self._uploads), None)


class ClientProtocol(H11Protocol):
    """uvicorn's protocol within `limits`."""

    limits: ClassVar[ConnectionLimits]
    silent: ClassVar[Silent]
    untaken: ClassVar[Untaken]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Connection(h11.SERVER)
        self._within, self.app = self.app, self._run
        #: What TLS writes to.
        self.beneath: asyncio.Transport | None = None
        self._gone = False
        self._looking: asyncio.TimerHandle | None = None
        self._refused = False
        self._owed: Owed | None = None
        self._made = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room when there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]  # it is a socket's
        self._made = self.loop.time()
        # Any byte that the client does not take counts, not only those over 64 KiB. Not 0: with
        # that a TLS connection counts as full when it is empty.
        self.transport.set_write_buffer_limits(high=1, low=0)
        self.transport.max_size = _READ_BYTES  # type: ignore[attr-defined]  # asyncio's, undeclared
        make_room(self)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """See what the client owes now; after a refusal nothing that comes is looked at."""
        if not self._refused:
            super().data_received(data)
        self._watch()

    def handle_events(self) -> None:
        """Requests begin here, also those that were sent ahead."""
        super().handle_events()
        self._send_on()
        if self._looking is None and self.flow.read_paused:
            self._looking = self.loop.call_later(_LOOK_SECONDS, self._look)

    def on_response_complete(self) -> None:
        """See what the client owes now."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client does not take its answer."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client has taken its answer."""
        super().resume_writing()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        super().connection_lost(exc)
        self._gone = True
        # Else each would be the other's.
        self.app = self._within
        self.untaken.forget(self)
        self._owe(None)
        # What was cleared keeps its place, in which the next one of its size has no room, until the
        # transport goes with the garbage.
        raw: Any = self.beneath or self.transport
        raw._buffer = type(raw._buffer)()

    def end(self) -> None:
        """Close; what is under way learns that the client has gone."""
        if self.flow.write_paused:
            # To close would be to wait for the client once more.
            self.transport.abort()
        else:
            self.transport.close()
        self._owe(None)

    def lying(self) -> int:
        """Bytes of answers that the client has not taken."""
        if self._gone:
            return 0
        beneath = 0 if self.beneath is None else self.beneath.get_write_buffer_size()
        return self.transport.get_write_buffer_size() + beneath

    def give_up(self) -> None:
        """Its answers lie here, and there are too many."""
        self._gone = True
        self.transport.abort()
        self._owe(None)
        log_event(_log, "answer cut", error="the client did not take it, and others needed room")

    def end_if_idle(self) -> None:
        """Close when the last request was answered and no further one has arrived."""
        if self._owed is Owed.NEXT and not _has_arrived(self.transport):
            self.end()

    def shutdown(self) -> None:
        """The server ends; a refused client has nothing more to get."""
        if self._refused:
            self.end()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP, or too much of it."""
        self._refuse(
            HTTPStatus.BAD_REQUEST,
            f"{msg} Heads may have 16 KiB; rank with POST /v1/ranking over HTTP/1.1",
            kind="invalid_request_error",
        )

    def _send_on(self) -> None:
        """A kept connection stays with its pod, whatever pods there are by now.

        Without an end new pods would get no requests, and a new revision nothing to be judged by.
        """
        is_old = self.loop.time() - self._made > self.limits.age_seconds
        cycle = self.cycle
        # To close with a body half read would reset the connection, and the client lose the answer.
        if is_old and cycle is not None and not cycle.more_body and not cycle.response_started:
            cycle.default_headers = [*self.server_state.default_headers, CLOSE_HEADER]

    def _look(self) -> None:
        """What is sent ahead is not read, and so neither is the end that follows it."""
        self._looking = None
        if not self.flow.read_paused or self.transport.is_closing():
            return
        if _has_arrived(self.transport, select.POLLRDHUP):
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(_LOOK_SECONDS, self._look)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, whose answers are counted."""

        async def counted(message: Message) -> None:
            with self.untaken.sending(self, len(message.get("body", b""))):
                await send(message)

        await self._within(scope, receive, counted)

    def _now_owed(self) -> Owed | None:
        if self.flow.write_paused:
            return Owed.TAKE_ANSWER
        if self.transport.is_closing():
            return None
        if self._refused:
            return Owed.LEFTOVER
        theirs = self.conn.their_state
        if theirs is h11.SEND_BODY:
            return Owed.LEFTOVER if self.cycle.response_complete else Owed.BODY
        return self._owed_head() if theirs is h11.IDLE else None

    def _owed_head(self) -> Owed:
        if self.conn.trailing_data[0]:
            return Owed.HEAD
        return Owed.FIRST if self.cycle is None else Owed.NEXT

    def _watch(self) -> None:
        """Start the clock of a new state; a state that goes on keeps its own."""
        owed = self._now_owed()
        if owed is not self._owed:
            self._owe(owed)

    def _owe(self, owed: Owed | None) -> None:
        self._owed = owed
        self.silent.put(self, owed)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if owed is Owed.NEXT:
            self._alarm = self.loop.call_later(KEEP_ALIVE_SECONDS, self._expired)
        elif owed is Owed.TAKE_ANSWER:
            self._alarm = self.loop.call_later(self.limits.answer_seconds, self._expired)
        elif owed is not None and owed is not Owed.BODY:
            self._alarm = self.loop.call_later(self.limits.idle_seconds, self._expired)

    def _expired(self) -> None:
        if self._owed is Owed.HEAD:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the request's head did not arrive within {self.limits.idle_seconds:g} s",
                kind="timeout",
            )
        else:
            self.end()

    def _refuse(self, code: HTTPStatus, message: str, *, kind: str) -> None:
        """Answer in place of the application, if that is still possible, and close."""
        under_way = self.cycle is not None and not self.cycle.response_complete
        if under_way:
            # The application must not answer as well; it learns that the client is gone.
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            answer = error_response(code, message, kind=kind, headers={"Connection": "close"})
            head = h11.Response(
                status_code=code, headers=answer.raw_headers, reason=code.phrase.encode()
            )
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self._refused = True
        if self.transport.can_write_eof():
            # To close while something unread lies here would reset the connection, and the client
            # would lose the answer: it is the client that closes, or the alarm.
            self.transport.write_eof()
        else:
            # TLS knows no half-closed connection; its end is a message that follows the answer.
            self.transport.close()
        self.flow.resume_reading()
        self._watch()


def make_room(protocol: ClientProtocol) -> None:
    """When its listener has too many connections, end the one that has been silent longest."""
    if len(protocol.connections) > protocol.limits.connections:
        longest = protocol.silent.longest(protocol.limits.connections)
        if longest is not None:
            longest.end()


def client_protocol(limits: ConnectionLimits) -> type[ClientProtocol]:
    """The protocol of a listener with `limits`, as uvicorn takes it."""
    bounds = {"silent": Silent(), "untaken": Untaken(limits.answer_bytes, time.monotonic)}
    return type("LimitedProtocol", (ClientProtocol,), {"limits": limits, **bounds})


def _has_arrived(transport: asyncio.BaseTransport, what: int = select.POLLIN) -> bool:
    """Whether `what` is so; by default that there are unread bytes, which closing would lose."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), what)
    return bool(poll.poll(0))


class _Connection(h11.Connection):
    """h11, which leaves to its user what a body may be made of."""

    def __init__(self, our_role: type[h11.SERVER]) -> None:
        super().__init__(our_role)
        self._chunks = 0
        self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Raises RemoteProtocolError also for bodies of unclear length or of crumbs."""
        arrived = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            _check_framing(event, arrived[: len(arrived) - len(self.trailing_data[0])])
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > _FREE_CHUNKS + self._bytes // _BYTES_PER_CHUNK:
                raise h11.RemoteProtocolError("too many small chunks")
        return event


def _check_framing(request: h11.Request, head: bytes) -> None:
    """A proxy before us may read these otherwise, and see other requests than we do.

    Raises RemoteProtocolError.
    """
    names = {name for name, _ in request.headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
    if b"transfer-encoding" in names and request.http_version < b"1.1":
        raise h11.RemoteProtocolError("Transfer-Encoding in HTTP/1.0")
    if _FOLD.search(head):
        raise h11.RemoteProtocolError("a header goes on in the next line")
