"""Answers whose clients don't read them: how much lies in the activator, and for how long."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from support.activator_pod import Pod
from support.waiting import until

from reranker_gateway.activator.answers import PIECE_BYTES, Answer, Room
from reranker_gateway.activator.app import Activator, create_app
from reranker_gateway.activator.grpc_front import _keep
from reranker_gateway.activator.hold import NotTakenError
from reranker_gateway.errors import OverloadedError

_MIB = 1 << 20


class Counted(httpx.AsyncByteStream):
    """An answer's body, which tells how much of it was read."""

    def __init__(self, size: int, *, breaks: bool = False) -> None:
        self.left = self.size = size
        self.closed = False
        self._breaks = breaks

    @property
    def read(self) -> int:
        return self.size - self.left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.left:
            piece = min(self.left, PIECE_BYTES)
            self.left -= piece
            yield b"x" * piece
        if self._breaks:
            raise httpx.ReadError("gone")

    async def aclose(self) -> None:
        self.closed = True


class Client:
    """Takes nothing until it is `reading`."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.said: list[dict[str, Any]] = []
        self._asked = False

    async def receive(self) -> Any:
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(self, message: Any) -> None:
        self.said.append(message)
        if message["type"] == "http.response.body":
            await self.reading.wait()

    @property
    def taken(self) -> int:
        return sum(len(message.get("body", b"")) for message in self.said)

    @property
    def whole(self) -> bool:
        last = self.said[-1]
        return last["type"] == "http.response.body" and not last.get("more_body")


def answer_of(body: Counted, room: Room, patience: float = 60) -> Answer:
    return Answer(httpx.Response(200, stream=body), room, patience)


async def test_all_answers_together_are_kept_within_one_bound() -> None:
    room, bodies = Room(4 * _MIB), [Counted(6 * _MIB) for _ in range(50)]
    answers = [answer_of(body, room) for body in bodies]
    for answer in answers:
        await answer.keep()
        assert room.held <= 4 * _MIB
    # The others are not read ahead of their clients at all.
    assert sum(body.read for body in bodies) == room.held == 4 * _MIB

    client = Client()
    sending = asyncio.create_task(answers[-1]({"type": "http"}, client.receive, client.send))
    await asyncio.sleep(0.01)
    assert bodies[-1].read == PIECE_BYTES
    client.reading.set()
    await sending
    assert (client.taken, client.whole) == (6 * _MIB, True)

    for answer in answers:
        await answer.close()
    assert room.held == 0
    assert all(body.closed for body in bodies)


async def test_what_the_client_takes_makes_room() -> None:
    room, body = Room(4 * _MIB), Counted(_MIB // 2)
    answer, client = answer_of(body, room), Client()
    await answer.keep()
    assert (room.held, body.closed) == (_MIB // 2, True)
    client.reading.set()
    await answer({"type": "http"}, client.receive, client.send)
    assert (room.held, client.taken) == (0, _MIB // 2)


async def test_an_answer_that_breaks_gives_its_room_back() -> None:
    room = Room(4 * _MIB)
    with pytest.raises(NotTakenError):
        await answer_of(Counted(_MIB // 2, breaks=True), room).keep()
    assert room.held == 0


async def test_a_long_answer_over_grpc_counts_until_its_call_ends() -> None:
    room, end = Room(_MIB), asyncio.Event()

    async def call(size: int) -> None:
        _keep(room, size)
        await end.wait()

    calls = [asyncio.create_task(call(size)) for size in (_MIB, PIECE_BYTES, PIECE_BYTES + 1)]
    await asyncio.sleep(0)
    assert room.held == _MIB
    with pytest.raises(OverloadedError):
        await calls[2]
    end.set()
    await asyncio.gather(*calls[:2])
    assert room.held == 0


SIZE = 3 * _MIB


def long(status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, SIZE) + b"x" * SIZE


def ask(activator: Activator, client: Client, method: str = "POST") -> "asyncio.Task[None]":
    path = "/v1/ranking" if method == "POST" else "/openapi.json"
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": []}
    scope |= {"raw_path": path.encode(), "query_string": b""}
    app = create_app(activator)
    return asyncio.create_task(app(scope, client.receive, client.send))  # type: ignore[arg-type]


async def test_whom_there_is_no_room_for_gets_the_whole_answer_all_the_same(
    pod: Pod, activator_of: Callable[..., Activator]
) -> None:
    activator = activator_of(_MIB)
    pod.answers.extend([long()] * 10)
    clients = [Client() for _ in range(10)]
    asked = [ask(activator, client) for client in clients]
    await until(lambda: all(client.taken for client in clients), within=10)
    assert activator.room.held <= _MIB
    for client in clients:
        client.reading.set()
    await asyncio.gather(*asked)
    assert [(client.taken, client.whole) for client in clients] == [(SIZE, True)] * 10
    assert (activator.room.held, activator.admission.held_bytes) == (0, 0)


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_an_answer_that_is_not_taken_has_a_place(
    pod: Pod, activator_of: Callable[..., Activator], method: str
) -> None:
    activator = activator_of(_MIB, max_held=1)
    # The second one does not come as far as the pod.
    pod.answers.extend([long()] * 2)
    first, second = Client(), Client()
    waiting = ask(activator, first, method)
    await until(lambda: first.taken > 0, within=10)
    second.reading.set()
    await ask(activator, second, method)
    assert second.said[0]["status"] == 429
    first.reading.set()
    await waiting
    third = Client()
    third.reading.set()
    await ask(activator, third, method)
    assert third.said[0]["status"] == 200


async def test_a_client_that_does_not_read_is_not_waited_for_for_ever(
    pod: Pod, activator_of: Callable[..., Activator]
) -> None:
    activator, client = activator_of(8 * _MIB, read_timeout_seconds=0.3), Client()
    pod.answers.append(long())
    async with asyncio.timeout(10):
        await ask(activator, client)
    # Without an end: the server breaks the connection.
    assert not client.whole
    assert (activator.room.held, activator.admission.held_bytes) == (0, 0)


async def test_an_answer_that_another_one_follows_gives_its_room_back(
    pod: Pod, activator_of: Callable[..., Activator]
) -> None:
    activator, client = activator_of(8 * _MIB), Client()
    pod.answers.extend([long(b"429 Too Many Requests"), long()])
    asked = ask(activator, client)
    await until(lambda: client.taken > 0, within=10)
    assert client.said[0]["status"] == 200
    assert activator.room.held < _MIB + PIECE_BYTES
    client.reading.set()
    await asked
    assert activator.room.held == 0
