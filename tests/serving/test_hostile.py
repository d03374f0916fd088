"""The gateway's process among clients that mean no good, and before a Triton that has gone mad."""

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

Start = Callable[..., Any]
BODY = b'{"model":"demo","query":{"text":"a"},"passages":[{"text":"b"}]}'
MIB = 1 << 20


def post(*headers: str, path: str = "/v1/ranking") -> bytes:
    """The head of a request."""
    lines = (f"POST {path} HTTP/1.1", "Host: gateway", "Content-Type: application/json", *headers)
    return "\r\n".join((*lines, "", "")).encode()


CHUNKED = "Transfer-Encoding: chunked"


@asynccontextmanager
async def connection(
    gateway: Any, said: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(said)
        yield reader, writer
    finally:
        writer.close()


async def until_closed(gateway: Any, said: bytes) -> bytes:
    """What comes back until the gateway closes the connection."""
    async with connection(gateway, said) as (reader, _):
        return await reader.read()


def check_error(answer: bytes, status: int) -> None:
    """One answer, with NIM's body, and no more."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    found = json.loads(body)
    assert (found["object"], found["code"]) == ("error", status)
    assert found["message"]
    assert found["type"]
    assert isinstance(found["detail"], dict)


@pytest.fixture
async def ready(start_gateway: Start, triton: Any) -> Start:
    """Starts gateways that are ready."""
    await triton.start()

    async def start(**settings: object) -> Any:
        gateway = await start_gateway(**settings)
        await gateway.until_ready()
        return gateway

    return start


async def test_what_is_not_http_is_400_and_the_end(ready: Start) -> None:
    gateway = await ready()
    for said in (
        b"\x16\x03\x01 a TLS client\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",  # no Host
        post("X: " + "y" * 100_000),
        post("Content-Length: -1"),
        post("Content-Length: " + "9" * 30),
        post("Content-Length: 5", "Content-Length: 6"),
        post("Content-Length: 5", CHUNKED) + b"0\r\n\r\n",
        post("Transfer-Encoding: gzip"),
        post(CHUNKED) + b"zz\r\n",
        post(CHUNKED, "Expect: 100-continue") + b"zz\r\n",
        post(CHUNKED) + b"5;" + b"x" * 100_000,
        post(CHUNKED) + b"1\r\n \r\n" * 2000,
        post(CHUNKED, path="/elsewhere") + b"zz\r\n",
    ):
        check_error(await until_closed(gateway, said), 400)
    async with connection(gateway, post(CHUNKED, path="/elsewhere")) as (reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 ")
        writer.write(b"zz\r\n")
        assert b"HTTP/1.1" not in await reader.read()
    gateway.process.send_signal(signal.SIGTERM)
    _, log = await gateway.process.communicate()
    assert all(json.loads(line)["level"] == "info" for line in log.decode().splitlines())


@pytest.mark.parametrize("slow", ["READ_IDLE_SECONDS", "READ_TIMEOUT_SECONDS"])
async def test_a_slow_upload_is_408_and_the_end(ready: Start, slow: str) -> None:
    gateway = await ready(**{slow: 0.2})
    for said in (post("Content-Length: 1000") + BODY, post(CHUNKED), post(CHUNKED) + b"1\r\n{\r\n"):
        answer = await until_closed(gateway, said)
        check_error(answer, 408)
        assert b"\r\nconnection: close" in answer


async def test_nothing_is_waited_for_without_an_end(ready: Start) -> None:
    gateway = await ready(READ_IDLE_SECONDS=0.2)
    check_error(await until_closed(gateway, post()[:-2]), 408)
    assert await until_closed(gateway, b"") == b""
    # Answered at once; then the rest of the body does not come.
    check_error(await until_closed(gateway, post("Content-Length: 9", path="/elsewhere")), 404)
    check_error(await until_closed(gateway, post("Content-Length: 99999999")), 413)


async def test_idle_uploads_make_room(ready: Start) -> None:
    gateway = await ready(MAX_BODY_BYTES=MIB, READ_IDLE_SECONDS=60)
    nearly = post(f"Content-Length: {MIB}") + b" " * (MIB - 1)
    large = BODY.ljust(MIB // 2)
    async with (
        connection(gateway, nearly) as (first, _),
        connection(gateway, nearly) as (second, _),
    ):
        heads = [asyncio.create_task(one.readuntil(b"\r\n\r\n")) for one in (first, second)]
        while not any(head.done() for head in heads):
            # However far the uploads have come.
            answer = await gateway.client.post("/v1/ranking", content=BODY)
            assert answer.status_code == 200
            answer = await gateway.client.post("/v1/ranking", content=large)
            assert answer.status_code in {200, 429}
        assert (await next(asyncio.as_completed(heads))).startswith(b"HTTP/1.1 429 ")
        for head in heads:
            head.cancel()


async def test_a_body_without_an_end_is_413_and_the_end(ready: Start) -> None:
    gateway = await ready(MAX_BODY_BYTES=MIB, READ_IDLE_SECONDS=0.2)
    chunk = b"10000\r\n" + b" " * (1 << 16) + b"\r\n"
    async with connection(gateway, post(CHUNKED)) as (reader, writer):
        head = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        with pytest.raises(ConnectionError):
            while True:
                writer.write(chunk)
                await writer.drain()
        assert (await head).startswith(b"HTTP/1.1 413 ")


async def test_pipelined_requests_are_answered_in_their_order(ready: Start) -> None:
    gateway = await ready()
    good = post(f"Content-Length: {len(BODY)}") + BODY
    bad = post("Content-Length: 2") + b"{}"
    last = post("Content-Length: 1", "Connection: close", path="/elsewhere") + b"x"
    answers = await until_closed(gateway, good + bad + good * 100 + last)
    codes = [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert codes == [200, 422] + [200] * 100 + [404]


async def test_odd_texts_are_texts(ready: Start) -> None:
    gateway = await ready(TRUNCATE="END")
    for text in (
        "\0",
        "\ufeff",
        "\u202e\u2066",
        "e" + "\u0301" * 10_000,
        "\U0001f468\u200d" * 1000,
        "\U0010ffff",
    ):
        texts = {"query": {"text": text}, "passages": [{"text": text}, {"text": ""}]}
        for escaped in (True, False):
            content = json.dumps(json.loads(BODY) | texts, ensure_ascii=escaped).encode()
            answer = await gateway.client.post("/v1/ranking", content=content)
            assert answer.status_code == 200, (ascii(text), answer.text)
            assert len(answer.json()["rankings"]) == 2


async def test_silent_connections_keep_nobody_out(ready: Start) -> None:
    gateway = await ready(MAX_CONNECTIONS=4)
    async with connection(gateway, b"") as (first, _):
        crowd = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(10)]
        assert await first.read() == b""
        async with httpx.AsyncClient(base_url=str(gateway.client.base_url)) as client:
            assert (await client.get("/v1/health/live")).status_code == 200
            assert (await client.post("/v1/ranking", content=BODY)).status_code == 200
        for _, writer in crowd:
            writer.close()


async def test_a_client_that_hangs_up_is_noticed(ready: Start, triton: Any) -> None:
    gateway = await ready()
    triton.model.open.clear()
    calls = triton.model.calls
    texts = [
        " ".join(words) for words in itertools.islice(itertools.product("abcd", repeat=4), 100)
    ]
    many = json.dumps(json.loads(BODY) | {"passages": [{"text": one} for one in texts]}).encode()
    async with connection(gateway, post(f"Content-Length: {len(many)}") + many):
        while triton.model.calls == calls:  # noqa: ASYNC110 (the other end is another process)
            await asyncio.sleep(0.01)
    gone = 'requests_total{code="499",dialect="nim"} 1.0'
    while gone not in (text := await metrics(gateway)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert "reranker_queue_tokens 0.0" in text
    triton.model.open.set()
    assert (await gateway.client.post("/v1/ranking", content=BODY)).status_code == 200


async def metrics(gateway: Any) -> str:
    return str((await gateway.client.get("/v1/metrics")).text)


def not_a_number(answer: Any) -> None:
    answer.raw_output_contents[0] = np.full(answer.outputs[0].shape, np.nan, np.float32).tobytes()


def another_shape(answer: Any) -> None:
    answer.outputs[0].shape[:] = [1, answer.outputs[0].shape[0] + 1]
    answer.raw_output_contents[0] += b"\0\0\0\0"


def too_few_bytes(answer: Any) -> None:
    answer.raw_output_contents[0] = b"\0"


def another_type(answer: Any) -> None:
    answer.outputs[0].datatype = "INT32"


def an_unknown_type(answer: Any) -> None:
    answer.outputs[0].datatype = "FP7"


def another_output(answer: Any) -> None:
    answer.outputs[0].name = "embeddings"


async def test_an_engine_that_answers_nonsense(ready: Start, triton: Any) -> None:
    gateway = await ready()
    for damage in (
        not_a_number,
        another_shape,
        too_few_bytes,
        another_type,
        an_unknown_type,
        another_output,
    ):
        triton.model.damage = damage
        answer = await gateway.client.post("/v1/ranking", content=BODY)
        found = answer.json()
        assert (answer.status_code, found["object"], found["code"]) == (500, "error", 500), damage
        assert found["type"] == "engine_error"
        await gateway.until_ready(503)
        triton.model.damage = lambda answer: None
        await gateway.until_ready()


async def test_an_engine_that_hangs_is_asked_once(ready: Start, triton: Any) -> None:
    gateway = await ready(INFER_TIMEOUT_SECONDS=0.2)
    triton.model.open.clear()
    answer = await gateway.client.post("/v1/ranking", content=BODY)
    assert (answer.status_code, answer.json()["code"]) == (503, 503)
    assert "reranker_batch_failures_total 1.0" in await metrics(gateway)
    triton.model.open.set()
    await gateway.until_ready()


async def test_an_engine_that_dies_with_a_batch(ready: Start, triton: Any) -> None:
    gateway = await ready(ENGINE_PATIENCE_SECONDS=0.2)
    triton.model.open.clear()
    calls = triton.model.calls
    running = asyncio.create_task(gateway.client.post("/v1/ranking", content=BODY))
    while triton.model.calls == calls:  # noqa: ASYNC110 (the other end is another process)
        await asyncio.sleep(0.01)
    await triton.stop()
    answer = await running
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    triton.model.open.set()
    await triton.start()
    await gateway.until_ready()
    assert (await gateway.client.post("/v1/ranking", content=BODY)).status_code == 200


async def test_sigterm_in_traffic_fails_no_request(ready: Start) -> None:
    gateway = await ready(DRAIN_DELAY_SECONDS=60)
    answers = []

    async def ask_until_told_to_go() -> None:
        async with httpx.AsyncClient(base_url=str(gateway.client.base_url)) as client:
            while not answers or answers[-1].headers.get("connection") != "close":
                answers.append(await client.post("/v1/ranking", content=BODY))

    clients = [asyncio.create_task(ask_until_told_to_go()) for _ in range(4)]
    while len(answers) < 20:
        await asyncio.wait(clients, timeout=0.01)
    gateway.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    assert {answer.status_code for answer in answers} == {200}
    gateway.process.send_signal(signal.SIGTERM)
    assert await gateway.process.wait() == 0
