"""The gateway's process over gRPC: by the protocol's own client, with TLS, and switched off."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as types
from support.certificates import issue
from tritonclient.grpc import aio as grpc_client
from tritonclient.utils import InferenceServerException

Start = Callable[..., Any]


def tensor(name: str, texts: list[str]) -> types.InferInput:
    made = types.InferInput(name, [len(texts), 1], "BYTES")
    made.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=np.object_))
    return made


async def ask(server: Any, passages: tuple[str, ...] = ("b", "d d")) -> list[list[float]]:
    inputs = [tensor("query", ["a"] * len(passages)), tensor("passage", list(passages))]
    result = await server.infer("demo", inputs, parameters={"truncate": "end"})
    return [result.as_numpy(name).ravel().tolist() for name in ("index", "logit", "token_count")]


async def test_tritonclient(start_gateway: Start, triton: Any) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    async with grpc_client.InferenceServerClient(f"127.0.0.1:{gateway.grpc_port}") as server:
        assert await server.is_server_live()
        assert await server.is_server_ready()
        assert await server.is_model_ready("demo")
        assert (await server.get_model_metadata("demo")).inputs[0].name == "query"
        assert await ask(server) == [[1, 0], [12.0, 5.0], [3, 2]]
        with pytest.raises(InferenceServerException, match="not served here"):
            await server.infer("other", [tensor("query", ["a"]), tensor("passage", ["b"])])


async def test_a_drain_finishes_what_is_in_flight(start_gateway: Start, triton: Any) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    async with grpc_client.InferenceServerClient(f"127.0.0.1:{gateway.grpc_port}") as server:
        triton.model.open.clear()
        calls = triton.model.calls
        running = asyncio.create_task(ask(server))
        while triton.model.calls == calls:  # noqa: ASYNC110 (the other end is another process)
            await asyncio.sleep(0.01)
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.until_ready(503)
        assert not await server.is_server_ready()
        triton.model.open.set()
        assert await running == [[1, 0], [12.0, 5.0], [3, 2]]
        assert await gateway.process.wait() == 0


async def test_tls_with_a_certificate_that_is_replaced(
    start_gateway: Start, triton: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    await triton.start()
    issue(folder, "first")
    gateway = await start_gateway(TLS_DIR=folder)
    address = f"127.0.0.1:{gateway.grpc_port}"
    for name in ("first", "second"):
        issue(folder, name)
        async with grpc_client.InferenceServerClient(
            address, ssl=True, root_certificates=str(folder / "tls.crt")
        ) as server:
            while not await _ready(server):  # noqa: ASYNC110 (the other end is another process)
                await asyncio.sleep(0.02)
            assert await ask(server) == [[1, 0], [12.0, 5.0], [3, 2]]
    async with grpc_client.InferenceServerClient(address) as plain:
        assert not await _ready(plain)


async def _ready(server: Any) -> bool:
    try:
        return bool(await server.is_server_ready())
    except InferenceServerException:
        return False


async def test_switched_off(start_gateway: Start, triton: Any) -> None:
    await triton.start()
    gateway = await start_gateway(DIALECTS="nim,cohere")
    await gateway.until_ready()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection("127.0.0.1", gateway.grpc_port)
    assert (await gateway.client.post("/score", json={})).status_code == 404


async def test_a_taken_grpc_port_is_named(start_gateway: Start, triton: Any) -> None:
    await triton.start()
    gateway = await start_gateway(GRPC_PORT=triton.port)
    _, said = await gateway.process.communicate()
    assert gateway.process.returncode == 1
    assert f"RERANKER_GRPC_PORT={triton.port}: cannot listen" in said.decode()
