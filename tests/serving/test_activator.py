"""The real activator in front of a gateway that comes and goes: what waits, and what does not."""

import asyncio
import json
import signal
import ssl
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from support.certificates import issue
from support.gateway_process import GatewayProcess, Sleeper
from tritonclient.grpc import service_pb2, service_pb2_grpc

REQUEST = {
    "model": "demo",
    "query": {"text": "a"},
    "passages": [{"text": "b"}, {"text": "d d"}, {"text": ""}],
}
ORDER = [1, 0, 2]


async def metric(process: GatewayProcess, name: str) -> float:
    text = (await process.client.get(f"http://127.0.0.1:{process.metrics_port}/metrics")).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def until_held(process: GatewayProcess, count: int) -> None:
    """The test's time limit is the deadline."""
    while await metric(process, "reranker_held_requests") != count:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def ranked(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [entry["index"] for entry in answer.json()["rankings"]]


async def test_a_hundred_wait_and_none_is_lost(sleeper: Sleeper) -> None:
    activator = await sleeper.activator()
    await activator.until_ready()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{activator.port}", timeout=60, limits=limits
    ) as client:
        asked = [asyncio.create_task(client.post("/v1/ranking", json=REQUEST)) for _ in range(100)]
        await until_held(activator, 100)
        await sleeper.wake()
        answers = await asyncio.gather(*asked)
    assert [ranked(answer) for answer in answers] == [ORDER] * 100
    # One id for both processes, and nothing twice.
    assert all(len(answer.headers.get_list("x-request-id")) == 1 for answer in answers)
    assert all(len(answer.headers.get_list("date")) == 1 for answer in answers)
    assert await metric(activator, "reranker_held_requests") == 0
    assert await metric(activator, "reranker_held_bytes") == 0
    assert await metric(activator, "reranker_cold_start_seconds") > 0
    # Who still comes by this way is handed on at once, and should look for a pod next.
    late = await activator.client.post("/v1/ranking", json=REQUEST)
    assert (ranked(late), late.headers["connection"]) == (ORDER, "close")


async def test_every_api_is_held(sleeper: Sleeper) -> None:
    activator = await sleeper.activator()
    await activator.until_ready()
    plain = {"query": "a", "documents": ["b", "d d", ""]}
    asked = {
        "/v1/rerank": plain,
        "/v2/rerank": plain,
        "/rerank": {"query": "a", "texts": ["b", "d d", ""]},
        "/v1/score": {"model": "demo", "text_1": "a", "text_2": ["b", "d d", ""]},
        "/v1/retrieval/nvidia/reranking": REQUEST,
    }
    tasks = {
        path: asyncio.create_task(activator.client.post(path, json=body))
        for path, body in asked.items()
    }
    await until_held(activator, len(asked))
    gateway = await sleeper.wake()
    for path, task in tasks.items():
        answer = await task
        direct = await gateway.client.post(path, json=asked[path])
        assert answer.status_code == direct.status_code == 200, path
        assert answer.headers["content-type"] == direct.headers["content-type"]
        assert list(answer.json()) == list(direct.json()) or path == "/rerank"


async def test_grpc_is_held(sleeper: Sleeper) -> None:
    activator = await sleeper.activator()
    await activator.until_ready()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{activator.grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
        assert (await stub.ModelReady(service_pb2.ModelReadyRequest(name="demo"))).ready
        call = stub.ModelInfer(infer_request())
        waiting = asyncio.ensure_future(call)
        await until_held(activator, 1)
        await sleeper.wake()
        answer = await waiting
        scores = dict(await call.trailing_metadata())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ModelInfer(service_pb2.ModelInferRequest(model_name="other"))
    assert [output.name for output in answer.outputs] == ["index", "logit", "token_count"]
    assert scores["x-truncated-passages"] == "0"
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def infer_request() -> Any:
    request = service_pb2.ModelInferRequest(model_name="demo")
    for name, texts in (("query", ["a", "a"]), ("passage", ["b", "d d"])):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[len(texts), 1])
        tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    return request


async def test_what_tells_of_the_service_wakes_nobody(sleeper: Sleeper) -> None:
    activator = await sleeper.activator(ALIASES="other", DIALECTS="nim,grpc")
    await activator.until_ready()
    client = activator.client
    assert (await client.get("/v1/health/live")).status_code == 200
    names = [entry["id"] for entry in (await client.get("/v1/models")).json()["data"]]
    assert names == ["demo", "other"]
    unknown = await client.get("/v1/metadata")
    assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "1")
    assert "starts none" in unknown.json()["message"]
    assert (await client.post("/rerank", json={})).status_code == 404
    assert (await client.post("/nowhere", json={})).status_code == 404
    assert await metric(activator, "reranker_held_requests") == 0
    gateway = await sleeper.wake(DIALECTS="nim,grpc")
    await gateway.until_ready()
    told = await client.get("/v1/metadata")
    assert told.json() == (await gateway.client.get("/v1/metadata")).json()


async def test_a_caller_in_a_hurry_is_told_at_once_and_wakes(sleeper: Sleeper) -> None:
    activator = await sleeper.activator(COLD_START_SECONDS=30)
    await activator.until_ready()
    hurried = await activator.client.post(
        "/v1/ranking", json=REQUEST, headers={"X-Request-Timeout-Ms": "5000"}
    )
    assert hurried.status_code == 503
    assert 29 <= int(hurried.headers["retry-after"]) <= 31
    assert hurried.json()["object"] == "error"
    assert hurried.elapsed.total_seconds() < 1
    assert await metric(activator, "reranker_held_requests") == 1
    gateway = await sleeper.wake()
    await gateway.until_ready()
    # Found by the activator itself: nobody waits.
    while True:
        answer = await activator.client.post(
            "/v1/ranking", json=REQUEST, headers={"X-Request-Timeout-Ms": "5000"}
        )
        if answer.status_code == 200:
            break
    assert ranked(answer) == ORDER


async def test_times_end_and_places_are_given_back(sleeper: Sleeper) -> None:
    activator = await sleeper.activator(HOLD_SECONDS=1)
    await activator.until_ready()
    client = activator.client
    held = asyncio.create_task(client.post("/v1/ranking", json=REQUEST))
    asked = await client.post("/v1/ranking", json=REQUEST, headers={"X-Request-Timeout-Ms": "200"})
    assert asked.status_code in {503, 504}
    late = await held
    assert late.status_code == 503
    assert int(late.headers["retry-after"]) >= 1
    # A client that goes gives its place back.
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/ranking", json=REQUEST, timeout=0.3)
    while await metric(activator, "reranker_activator_in_progress"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await metric(activator, "reranker_held_bytes") == 0


async def test_places_are_bounded(sleeper: Sleeper) -> None:
    activator = await sleeper.activator(MAX_HELD=8, MAX_HELD_BYTES=1 << 20)
    await activator.until_ready()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{activator.port}", timeout=60
    ) as client:
        asked = [asyncio.create_task(client.post("/v1/ranking", json=REQUEST)) for _ in range(12)]
        done: set[Any] = set()
        while len(done) < 4:
            done, waiting = await asyncio.wait(asked, timeout=0.05)
        for task in done:
            refused = task.result()
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
        large = await client.post("/v1/ranking", content=b"x" * (2 << 20))
        assert large.status_code == 429
        await sleeper.wake()
        for answer in await asyncio.gather(*waiting):
            assert ranked(answer) == ORDER


async def test_a_pod_that_goes_is_waited_for_again(sleeper: Sleeper) -> None:
    activator = await sleeper.activator()
    await activator.until_ready()
    gateway = await sleeper.wake()
    await gateway.until_ready()
    assert ranked(await activator.client.post("/v1/ranking", json=REQUEST)) == ORDER
    gateway.process.send_signal(signal.SIGTERM)
    await gateway.process.wait()
    waiting = asyncio.create_task(activator.client.post("/v1/ranking", json=REQUEST))
    await until_held(activator, 1)
    await sleeper.wake()
    assert ranked(await waiting) == ORDER


async def test_sigterm_waits_for_those_who_wait(sleeper: Sleeper) -> None:
    activator = await sleeper.activator()
    await activator.until_ready()
    waiting = asyncio.create_task(activator.client.post("/v1/ranking", json=REQUEST))
    await until_held(activator, 1)
    activator.process.send_signal(signal.SIGTERM)
    await activator.until_ready(503)
    while True:
        refused = await activator.client.post("/v1/ranking", json=REQUEST)
        if refused.status_code == 503:
            break
    await sleeper.wake()
    assert ranked(await waiting) == ORDER
    _, log = await activator.process.communicate()
    assert activator.process.returncode == 0
    assert json.loads(log.decode().splitlines()[-1])["event"] == "stopped"


async def test_keys_and_tls_are_the_gateways(sleeper: Sleeper, tmp_path: Path) -> None:
    tls, keys = tmp_path / "tls", tmp_path / "keys"
    issue(tls, "service.example")
    keys.mkdir()
    (keys / "one").write_text("secret")
    settings = {"TLS_DIR": tls, "API_KEYS_DIR": keys}
    activator = await sleeper.activator(**settings)
    plain = httpx.AsyncClient(base_url=f"http://127.0.0.1:{activator.metrics_port}")
    await activator.client.aclose()
    activator.client = plain
    await activator.until_ready()
    trusted = ssl.create_default_context(cafile=str(tls / "tls.crt"))
    async with httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{activator.port}", verify=trusted, timeout=60
    ) as client:
        assert (await client.post("/v1/ranking", json=REQUEST)).status_code == 401
        assert await metric(activator, "reranker_held_requests") == 0
        key = {"Authorization": "Bearer secret"}
        waiting = asyncio.create_task(client.post("/v1/ranking", json=REQUEST, headers=key))
        await until_held(activator, 1)
        certificate = (tls / "tls.crt").read_bytes()
        credentials = grpc.ssl_channel_credentials(certificate)
        async with grpc.aio.secure_channel(
            f"127.0.0.1:{activator.grpc_port}", credentials
        ) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            call = asyncio.ensure_future(
                stub.ModelInfer(infer_request(), metadata=(("x-api-key", "secret"),))
            )
            await until_held(activator, 2)
            await sleeper.wake(**settings)
            assert ranked(await waiting) == ORDER
            assert (await call).model_name == "demo"


async def test_settings_are_checked(sleeper: Sleeper) -> None:
    activator = await sleeper.activator(BACKEND_URL="nowhere")
    assert await activator.process.wait() == 2


def peak_memory(process: GatewayProcess) -> int:
    """The most bytes that it ever had in memory."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


async def test_a_flood_does_not_fill_the_memory(sleeper: Sleeper) -> None:
    activator = await sleeper.activator()
    await activator.until_ready()
    quiet = peak_memory(activator)
    large, clients = b"x" * (1 << 20), 300
    head = b"POST /v1/ranking HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(large)
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    codes: list[bytes] = []

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", activator.port)
        streams.append((reader, writer))
        writer.write(head + large)
        answer = asyncio.create_task(reader.read(12))
        try:
            # Who is refused early need not be read to the end.
            await writer.drain()
            codes.append(await asyncio.wait_for(answer, 5))
        except (TimeoutError, ConnectionError):
            answer.cancel()

    # Connections that say nothing, beside more bodies than may be held.
    for _ in range(500):
        streams.append(await asyncio.open_connection("127.0.0.1", activator.port))
    await asyncio.gather(*(send() for _ in range(clients)))
    held = await metric(activator, "reranker_held_bytes")
    assert 0 < held <= (64 + 4) << 20
    assert await metric(activator, "reranker_held_requests") <= 68
    # Others are still on their way, or had the connection ended before they read.
    assert set(codes) == {b"HTTP/1.1 429"}
    # The bodies, their copies and the connections; the limit of the pod is 384 MiB.
    assert peak_memory(activator) - quiet < 192 << 20
    assert (await activator.client.get("/v1/health/live")).status_code == 200
    for _, writer in streams:
        writer.close()
    while await metric(activator, "reranker_activator_in_progress"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert await metric(activator, "reranker_held_bytes") == 0
