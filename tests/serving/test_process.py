"""The gateway's process: start, loss of Triton, end."""

import asyncio
import http.client
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

REQUEST = {
    "model": "demo",
    "query": {"text": "a"},
    "passages": [{"text": "b"}, {"text": "d d"}, {"text": ""}],
}


async def test_answers_and_follows_triton(start_gateway: Callable[..., Any], triton: Any) -> None:
    gateway = await start_gateway(ENGINE_PATIENCE_SECONDS=0.2)
    await gateway.until_ready(503)
    assert (await gateway.client.get("/v1/health/live")).status_code == 200

    await triton.start()
    await gateway.until_ready()
    answer = await gateway.client.post("/v1/ranking", json=REQUEST)
    assert answer.json() == {
        "rankings": [
            {"index": 1, "logit": 12.0},
            {"index": 0, "logit": 5.0},
            {"index": 2, "logit": 2.0},
        ],
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }

    await triton.stop()
    lost = await gateway.client.post("/v1/ranking", json=REQUEST)
    assert (lost.status_code, lost.headers["retry-after"]) == (503, "1")
    await gateway.until_ready(503)
    await triton.start()
    await gateway.until_ready()
    assert (await gateway.client.post("/v1/ranking", json=REQUEST)).status_code == 200


async def test_requests_wait_for_a_triton_that_starts_again(
    start_gateway: Callable[..., Any], triton: Any
) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    await triton.stop()
    asked = [asyncio.create_task(gateway.client.post("/v1/ranking", json=REQUEST))]
    _, waiting = await asyncio.wait(asked, timeout=0.5)
    assert waiting
    asked.append(asyncio.create_task(gateway.client.post("/v1/ranking", json=REQUEST)))
    assert (await gateway.client.get("/v1/health/ready")).status_code == 200
    await triton.start()
    assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200, 200]


async def test_requests_wait_for_a_triton_that_has_lost_its_model(
    start_gateway: Callable[..., Any], triton: Any
) -> None:
    """As one does whose backend process died, before it ends itself."""
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    triton.model.loaded = False
    asked = asyncio.create_task(gateway.client.post("/v1/ranking", json=REQUEST))
    _, waiting = await asyncio.wait([asked], timeout=0.5)
    assert waiting
    triton.model.loaded = True
    assert (await asked).status_code == 200


def _asked_on(connection: http.client.HTTPConnection) -> bool:
    """Whether the connection is kept after one more request."""
    connection.request("POST", "/v1/ranking", json.dumps(REQUEST))
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    return answer.getheader("connection") != "close"


async def test_clients_of_old_connections_are_sent_to_other_pods(
    start_gateway: Callable[..., Any], triton: Any
) -> None:
    await triton.start()
    gateway = await start_gateway(CONNECTION_AGE_SECONDS=0.5)
    await gateway.until_ready()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    began = time.monotonic()
    kept = 0
    while await asyncio.to_thread(_asked_on, connection):
        kept += 1
        assert time.monotonic() - began < 30
    assert kept > 0
    assert time.monotonic() - began >= 0.5
    # The next one is new.
    assert await asyncio.to_thread(_asked_on, connection)
    connection.close()


async def test_an_early_answer_on_an_old_connection_is_not_lost(
    start_gateway: Callable[..., Any], triton: Any
) -> None:
    """To close while its body is still coming would reset the connection."""
    await triton.start()
    gateway = await start_gateway(CONNECTION_AGE_SECONDS=0.001)
    await gateway.until_ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(REQUEST).encode()
    head = "POST /v1/ranking HTTP/1.1\r\nHost: a\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
    await asyncio.sleep(0.01)
    writer.write(head.format("text/plain", len(body)).encode())
    refused = await reader.readuntil(b"\r\n\r\n")
    assert b" 415 " in refused
    assert b"connection: close" not in refused.lower()
    length = int(refused.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    await reader.readexactly(length)
    writer.write(body + head.format("application/json", len(body)).encode() + body)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()
    writer.close()


async def test_a_kept_connection_is_closed_before_it_would_be_refused(
    start_gateway: Callable[..., Any], triton: Any
) -> None:
    await triton.start()
    gateway = await start_gateway(DRAIN_DELAY_SECONDS=0.1)
    await gateway.until_ready()
    triton.model.open.clear()
    running = asyncio.create_task(gateway.client.post("/v1/ranking", json=REQUEST))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /v1/health/live HTTP/1.1\r\nHost: gateway\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"connection: close" not in head.lower()
    gateway.process.send_signal(signal.SIGTERM)
    # Others are still being answered.
    assert (await reader.read()).endswith(b"}")
    assert not running.done()
    writer.close()
    triton.model.open.set()
    assert (await running).status_code == 200
    assert await gateway.process.wait() == 0


async def test_who_will_be_killed_sends_everybody_away(
    start_gateway: Callable[..., Any], triton: Any, tmp_path: Path
) -> None:
    await triton.start()
    doomed = tmp_path / "doomed"
    doomed.touch()
    gateway = await start_gateway(DRAIN_DELAY_SECONDS=60, DOOMED_FILE=doomed)
    await gateway.until_ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /v1/health/live HTTP/1.1\r\nHost: gateway\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        await channel.channel_ready()
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.until_ready(503)
        assert not doomed.exists(), "that was another drain's"
        doomed.touch()
        assert (await reader.read()).endswith(b"}")
        writer.close()
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
    assert (await gateway.client.post("/v1/ranking", json=REQUEST)).status_code == 200
    gateway.process.send_signal(signal.SIGTERM)
    assert await gateway.process.wait() == 0


async def test_sigterm_finishes_what_is_in_flight(
    start_gateway: Callable[..., Any], triton: Any
) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    triton.model.open.clear()
    calls = triton.model.calls
    running = asyncio.create_task(gateway.client.post("/v1/ranking", json=REQUEST))
    while triton.model.calls == calls:  # noqa: ASYNC110 (the other end is another process)
        await asyncio.sleep(0.01)
    gateway.process.send_signal(signal.SIGTERM)
    await gateway.until_ready(503)
    while True:
        refused = await gateway.client.post("/v1/ranking", json=REQUEST)
        if refused.status_code == 503:
            break
    assert refused.headers["connection"] == "close"
    triton.model.open.set()
    assert (await running).status_code == 200
    _, log = await gateway.process.communicate()
    assert gateway.process.returncode == 0
    events = [json.loads(line)["event"] for line in log.decode().splitlines()]
    assert events[-1] == "stopped"
    assert "draining" in events


async def test_the_drain_timeout_ends_the_process(
    start_gateway: Callable[..., Any], triton: Any
) -> None:
    await triton.start()
    gateway = await start_gateway(DRAIN_TIMEOUT_SECONDS=0.2)
    await gateway.until_ready()
    triton.model.open.clear()
    calls = triton.model.calls
    running = asyncio.create_task(gateway.client.post("/v1/ranking", json=REQUEST))
    while triton.model.calls == calls:  # noqa: ASYNC110 (the other end is another process)
        await asyncio.sleep(0.01)
    gateway.process.send_signal(signal.SIGTERM)
    assert await gateway.process.wait() == 0
    cut_off = await running
    assert (cut_off.status_code, cut_off.json()["object"]) == (503, "error")
    triton.model.open.set()


async def test_a_taken_port_is_named(start_gateway: Callable[..., Any], triton: Any) -> None:
    gateway = await start_gateway(HTTP_PORT=triton.port, METRICS_PORT=triton.port)
    _, said = await gateway.process.communicate()
    assert gateway.process.returncode == 1
    assert f"RERANKER_METRICS_PORT={triton.port}: cannot listen" in said.decode()
