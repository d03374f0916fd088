"""Two real gateways, of which one has its requests scored by the other, too."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from support.certificates import issue
from support.gateway_process import GatewayProcess, TritonProcess
from support.ports import free_port
from tritonclient.grpc import service_pb2, service_pb2_grpc

Start = Callable[..., Any]
REQUEST = {
    "model": "demo",
    "query": {"text": "a"},
    "passages": [{"text": "b"}, {"text": "d d"}, {"text": "c"}],
}
RESULT = 'reranker_shadow_requests_total{result="%s"}'
TAU = 'reranker_shadow_kendall_tau_%s{revision="new"}'


class Pair:
    """The former revision and the new one, each with a Triton of its own."""

    def __init__(self, start: Start, former: TritonProcess) -> None:
        self._start = start
        self._former = former
        self.triton = TritonProcess(free_port())

    async def start(
        self, *, plain: bool = True, **settings: object
    ) -> tuple[GatewayProcess, GatewayProcess]:
        """Both ready; every request is sent to the other."""
        await self._former.start()
        await self.triton.start()
        port = free_port()
        scheme = "http" if plain else "https"
        shared = {
            "SHADOW_URL": f"{scheme}://127.0.0.1:{port}",
            "SHADOW_PERCENT": 100,
            "SHADOW_IDENTITY": "b5a1",
        } | settings
        old = await self._start(REVISION="old", **shared)
        new = await self._start(
            REVISION="new", HTTP_PORT=port, TRITON_URL=f"127.0.0.1:{self.triton.port}", **shared
        )
        for process in (old, new):
            if not plain:
                # As the kubelet asks.
                url = f"http://127.0.0.1:{process.metrics_port}"
                await process.client.aclose()
                process.client = httpx.AsyncClient(base_url=url, timeout=30)
            await process.until_ready()
        return old, new


@pytest.fixture
async def pair(start_gateway: Start, triton: TritonProcess) -> AsyncIterator[Pair]:
    found = Pair(start_gateway, triton)
    yield found
    await found.triton.stop()


async def told(process: GatewayProcess) -> dict[str, float]:
    """The metrics, by name and labels as they are written."""
    text = (await process.client.get(f"http://127.0.0.1:{process.metrics_port}/metrics")).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def until(process: GatewayProcess, name: str, value: float) -> None:
    """The test's time limit is the deadline."""
    while (await told(process)).get(name) != value:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def opposite(answer: Any) -> None:
    """The engine ranks the other way round."""
    scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
    answer.raw_output_contents[0] = (-scores).tobytes()


async def test_scores_are_compared_whatever_the_api(pair: Pair) -> None:
    old, new = await pair.start()
    plain = {"query": "a", "texts": ["b", "d d", "c"]}
    assert (await old.client.post("/v1/ranking", json=REQUEST)).status_code == 200
    await until(old, TAU % "count", 1)
    assert (await old.client.post("/rerank", json=plain)).status_code == 200
    await until(old, TAU % "count", 2)
    assert (await told(old))[TAU % "sum"] == 2
    pair.triton.model.damage = opposite
    message = service_pb2.ModelInferRequest(model_name="demo")
    for name, texts in (("query", [b"a"] * 3), ("passage", [b"b", b"d d", b"c"])):
        tensor = message.inputs.add(name=name, datatype="BYTES", shape=[len(texts), 1])
        tensor.contents.bytes_contents.extend(texts)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{old.grpc_port}") as channel:
        await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
    await until(old, TAU % "count", 3)
    metrics = await told(old)
    assert (metrics[TAU % "sum"], metrics[RESULT % "compared"]) == (1, 3)
    assert metrics[RESULT % "failed"] == metrics[RESULT % "dropped"] == 0
    # There they are requests like any, and nobody's to be sent on.
    metrics = await told(new)
    assert metrics['reranker_requests_total{code="200",dialect="shadow"}'] == 3
    assert {metrics[RESULT % result] for result in ("compared", "failed", "dropped")} == {0}


async def test_nobody_waits_for_it_and_neither_does_the_end(pair: Pair) -> None:
    old, new = await pair.start()
    pair.triton.model.open.clear()
    # More than may be in flight there, and than are held.
    for _ in range(20):
        answer = await old.client.post("/v1/ranking", json=REQUEST)
        assert (answer.status_code, len(answer.json()["rankings"])) == (200, 3)
    metrics = await told(old)
    assert (metrics[RESULT % "compared"], metrics[RESULT % "failed"]) == (0, 0)
    assert metrics[RESULT % "dropped"] == 4
    assert pair.triton.model.calls > 0
    for process in (new, old):
        process.process.send_signal(signal.SIGTERM)
        _, log = await process.process.communicate()
        assert process.process.returncode == 0
        assert b"drain timeout" not in log
        assert b"d d" not in log


async def test_keys_and_certificates_are_those_that_are_mounted(pair: Pair, tmp_path: Path) -> None:
    keys, tls = tmp_path / "keys", tmp_path / "tls"
    keys.mkdir()
    (keys / "shop").write_text("secret")
    issue(tls, "rank.example.com")
    old, _ = await pair.start(plain=False, TLS_DIR=tls, API_KEYS_DIR=keys)
    head = {"x-api-key": "secret"}
    async with httpx.AsyncClient(verify=False, timeout=30) as client:  # noqa: S501 - no test of ours
        url = f"https://127.0.0.1:{old.port}/v1/ranking"
        assert (await client.post(url, json=REQUEST, headers=head)).status_code == 200
    await until(old, TAU % "count", 1)


async def test_another_service_of_that_name_gets_nothing(
    pair: Pair, start_gateway: Start, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "shop").write_text("secret")
    old, new = await pair.start()
    # As the former one, but of another service: it knows another secret.
    stranger = await start_gateway(
        REVISION="old",
        SHADOW_URL=f"http://127.0.0.1:{new.port}",
        SHADOW_PERCENT=100,
        API_KEYS_DIR=keys,
    )
    head = {"x-api-key": "secret"}
    await stranger.until_ready()
    answer = await stranger.client.post("/v1/ranking", json=REQUEST, headers=head)
    assert answer.status_code == 200
    assert stranger.process.stderr is not None
    line = b""
    while b"has not proven to be a pod of this service" not in line:
        line = await stranger.process.stderr.readline()
        assert line
    assert b"its proof is by another secret" in line
    assert (await old.client.post("/v1/ranking", json=REQUEST)).status_code == 200
    await until(old, TAU % "count", 1)
    metrics = await told(new)
    assert {name for name in metrics if 'dialect="shadow"' in name} == {
        'reranker_requests_total{code="200",dialect="shadow"}'
    }
    assert metrics['reranker_requests_total{code="200",dialect="shadow"}'] == 1


async def test_pods_of_one_revision_leave_each_other_alone(pair: Pair) -> None:
    _, new = await pair.start()
    answer = await new.client.post("/v1/ranking", json=REQUEST)
    assert answer.status_code == 200
    await until(new, 'reranker_requests_total{code="409",dialect="shadow"}', 1)
    metrics = await told(new)
    assert metrics[RESULT % "failed"] == 0
    assert not any("kendall_tau" in name for name in metrics)
