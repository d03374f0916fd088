"""The activator's HTTP in the test's own process, before a small server that stands for a pod."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.activator_pod import Pod

from reranker_gateway.activator.app import Activator, create_app


def client_of(activator: Activator) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(activator))
    return httpx.AsyncClient(transport=transport, base_url="http://activator")


async def test_every_request_gives_its_place_back(activator_of: Callable[..., Activator]) -> None:
    async with client_of(activator_of(max_held=8)) as client:
        codes = [(await client.post("/v1/ranking", json={})).status_code for _ in range(100)]
    assert codes == [200] * 100


async def test_whom_there_is_no_place_for_is_told_when_a_pod_should_be_there(
    activator_of: Callable[..., Activator], pod: Pod
) -> None:
    pod.ready = False
    activator = activator_of(max_held=1, cold_start_seconds=30)
    async with client_of(activator) as client:
        asked = [asyncio.create_task(client.post("/v1/ranking", json={})) for _ in range(2)]
        done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = [task.result() for task in done]
        assert refused.status_code == 429
        assert 29 <= int(refused.headers["retry-after"]) <= 31
        pod.ready = True
        assert [(await task).status_code for task in waiting] == [200]


async def test_a_pod_that_falls_silent_is_not_waited_for_for_ever(
    activator_of: Callable[..., Activator], pod: Pod
) -> None:
    pod.answers.append(None)
    activator = activator_of(infer_timeout_seconds=0.2)
    async with asyncio.timeout(10), client_of(activator) as client:
        assert (await client.post("/v1/ranking", json={})).status_code == 200
    assert len(pod.heads) == 2
    answer = await activator.backend.send("GET", b"/", [], b"")
    opened = answer.extensions["network_stream"].get_extra_info("socket")
    assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    await answer.aclose()


async def test_a_pod_that_goes_amid_its_answer_is_followed_by_another(
    activator_of: Callable[..., Activator], pod: Pod
) -> None:
    pod.answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    async with client_of(activator_of()) as client:
        answer = await client.post("/v1/ranking", json={})
    assert (answer.status_code, answer.text, len(pod.heads)) == (200, "{}", 2)


async def test_a_long_answer_is_handed_on_whole(
    activator_of: Callable[..., Activator], pod: Pod
) -> None:
    size = 3 << 20
    pod.answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    async with client_of(activator_of()) as client:
        assert (await client.post("/v1/ranking", json={})).content == b"x" * size


@pytest.mark.parametrize("target", [b"/v1/ranking#a", b"*", b"http://a/v1/ranking", b"//a/b"])
async def test_a_target_that_is_no_path_is_refused(
    activator_of: Callable[..., Activator], pod: Pod, target: bytes
) -> None:
    app = create_app(activator_of())
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/ranking", "raw_path": target}
    async with asyncio.timeout(10):
        await app(scope | {"query_string": b"", "headers": []}, receive, send)
    assert said[0]["status"] == 400
    assert pod.heads == []


async def test_headers_of_one_connection_stay_there(
    activator_of: Callable[..., Activator], pod: Pod
) -> None:
    pod.answers.append(
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Far: 2\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    headers = {"Connection": "close, X-One", "X-One": "1", "X-Other": "2"}
    async with client_of(activator_of()) as client:
        answer = await client.post("/v1/ranking", json={}, headers=headers)
    assert ("x-hop" in answer.headers, answer.headers["x-far"]) == (False, "2")
    (head,) = pod.heads
    assert ("x-one" in head.lower(), "x-other: 2" in head.lower()) == (False, True)
