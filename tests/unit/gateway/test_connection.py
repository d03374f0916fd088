"""Connections of clients that mean no good, over real sockets."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from support.certificates import issue
from support.waiting import until
from uvicorn.server import ServerState

from reranker_gateway import connection
from reranker_gateway.connection import ConnectionLimits, Owed, Silent, client_protocol
from reranker_gateway.handshake import Handshake

MIB = 1 << 20
POST = b"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n"


class Listener:
    """An application behind the protocol."""

    def __init__(self, state: ServerState, protocol: Any, port: int) -> None:
        self._state = state
        self.protocol = protocol
        self._port = port

    @property
    def connections(self) -> int:
        return len(self._state.connections)

    def end(self) -> None:
        for one in tuple(self._state.connections):
            cast("Any", one).end()

    async def connect(self, said: bytes, **options: int) -> socket.socket:
        """A client that does not read until it is told to."""
        client = socket.socket()
        for name, value in options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", self._port))
        await loop.sock_sendall(client, said)
        return client


Listen = Callable[..., Any]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    async with AsyncExitStack() as stack:

        async def start(app: Any, tls: ssl.SSLContext | None = None, **changed: Any) -> Listener:
            usual: dict[str, Any] = {
                "connections": 100,
                "idle_seconds": 60,
                "answer_seconds": 60,
                "answer_bytes": 64 * MIB,
                "age_seconds": 60,
            }
            protocol: Any = client_protocol(ConnectionLimits(**usual | changed))
            config = uvicorn.Config(app, http="h11", ws="none", log_config=None, access_log=False)
            config.load()
            state = ServerState()

            def accept() -> asyncio.Protocol:
                inner = protocol(config=config, server_state=state, app_state={})
                return Handshake(inner, tls) if tls else inner

            server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
            stack.callback(server.close)
            listener = Listener(state, protocol, server.sockets[0].getsockname()[1])
            stack.callback(listener.end)
            return listener

        yield start


async def read(client: socket.socket) -> bytes:
    """Until the end. Raises ConnectionResetError."""
    found = b""
    while piece := await asyncio.get_running_loop().sock_recv(client, MIB):
        found += piece
    client.close()
    return found


class Large:
    """Answers with `size` bytes."""

    def __init__(self, size: int = 8 * MIB) -> None:
        self._size = size
        self.answers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % self._size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * self._size})
        self.answers += 1


async def test_answers_that_nobody_takes_are_bounded(listen: Listen) -> None:
    large = Large()
    listener = await listen(large, answer_bytes=20 * MIB)
    asked = POST + b"Connection: close\r\n\r\n"
    silent = [await listener.connect(asked, SO_RCVBUF=4096) for _ in range(6)]
    await until(lambda: large.answers == 6)
    assert listener.protocol.untaken.held == 2 * 8 * MIB
    await until(lambda: listener.connections == 2)
    answer = await read(await listener.connect(asked))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) == 8 * MIB
    for client in silent:
        client.close()
    await until(lambda: listener.connections == 0)
    assert listener.protocol.untaken.held == 0


def resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


async def test_what_was_given_up_leaves_no_memory_behind(listen: Listen) -> None:
    large = Large(15 * MIB)
    listener = await listen(large, answer_bytes=64 * MIB)
    clients, before = [], resident()
    for number in range(1, 41):
        clients.append(await listener.connect(POST + b"\r\n", SO_RCVBUF=4096))
        await until(partial(lambda sent: large.answers == sent, number))
    # Beside the four that lie here there may be room for as many.
    assert resident() - before < 16 * 15 * MIB
    for client in clients:
        client.close()


async def test_answers_over_tls_are_bounded_too(listen: Listen, tmp_path: Path) -> None:
    """TLS hands all of an answer to the connection beneath, and is empty itself."""
    issue(tmp_path, "gateway")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    trusting = ssl.create_default_context(cafile=tmp_path / "tls.crt")
    large = Large()
    listener = await listen(large, context, answer_bytes=20 * MIB)
    clients = []
    for number in range(1, 7):
        plain = await listener.connect(b"", SO_RCVBUF=4096)
        # Beyond the limit nothing is read.
        _, writer = await asyncio.open_connection(
            sock=plain, ssl=trusting, server_hostname="127.0.0.1", limit=1024
        )
        writer.write(POST + b"\r\n")
        await until(partial(lambda sent: large.answers == sent, number))
        clients.append(writer)
    assert 2 * 8 * MIB <= listener.protocol.untaken.held <= 20 * MIB
    await until(lambda: listener.connections == 2)
    for writer in clients:
        writer.transport.abort()
    await until(lambda: listener.connections == 0)
    assert listener.protocol.untaken.held == 0


@pytest.mark.parametrize("ahead", [b"", b"x"])
async def test_a_client_that_goes_is_noticed_whatever_it_sent_ahead(
    listen: Listen, monkeypatch: pytest.MonkeyPatch, ahead: bytes
) -> None:
    monkeypatch.setattr(connection, "_LOOK_SECONDS", 0.01)
    at_work, gone = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        at_work.set()
        await receive()
        gone.set()

    listener = await listen(app)
    client = await listener.connect(POST + b"\r\n")
    await at_work.wait()
    await asyncio.get_running_loop().sock_sendall(client, ahead)
    client.close()
    async with asyncio.timeout(10):
        await gone.wait()


async def test_a_client_that_has_sent_ahead_and_stays_is_answered(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LOOK_SECONDS", 0.01)
    looks = []
    has_arrived = connection._has_arrived

    def look(*asked: Any) -> bool:
        looks.append(asked)
        return has_arrived(*asked)

    monkeypatch.setattr(connection, "_has_arrived", look)
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await done.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    listener = await listen(app)
    client = await listener.connect((POST + b"\r\n") + POST + b"Connection: close\r\n\r\n")
    await until(lambda: len(looks) > 2)
    done.set()
    assert (await read(client)).count(b"HTTP/1.1 204") == 2


class Connection:
    def end(self) -> None: ...


def test_uploads_make_room_when_most_are_uploads() -> None:
    silent, (early, late, other) = Silent(), (Connection() for _ in range(3))
    silent.put(early, Owed.BODY)
    silent.put(late, Owed.BODY)
    silent.put(other, Owed.FIRST)
    assert silent.longest(4) is other
    assert silent.longest(3) is early
    silent.put(early, None)
    assert silent.longest(3) is other


async def test_dripping_uploads_leave_places_to_others(listen: Listen) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    listener = await listen(app, connections=8)
    upload = b"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\n\r\nx"
    clients = [await listener.connect(upload) for _ in range(8)]
    await until(lambda: len(listener.protocol.silent._uploads) == 8)
    # Half of the places are theirs, and four are for those that say nothing yet.
    honest = [await listener.connect(b"") for _ in range(4)]
    await until(lambda: len(listener.protocol.silent._others) == 4)
    for client in honest:
        with pytest.raises(BlockingIOError):
            client.recv(1)
    for client in (*clients, *honest):
        client.close()


CHUNKED = b"0\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"POST / HTTP/1.0\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        b"POST / HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
        b"POST / HTTP/1.1\r\nHost: gateway\r\nX: y\n\tz\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_heads_that_a_proxy_may_read_otherwise_are_400(listen: Listen, said: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    listener = await listen(app)
    assert (await read(await listener.connect(said))).startswith(b"HTTP/1.1 400 ")
    folded_body = b"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 4\r\n"
    allowed = folded_body + b"Connection: close\r\n\r\n\r\n x"
    assert (await read(await listener.connect(allowed))).startswith(b"HTTP/1.1 204 ")
