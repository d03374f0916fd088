"""The gateway's process over gRPC: by the protocol's own client, with TLS, and switched off."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as types
from support.certificates import issue
from support.http2 import DeafCaller
from tritonclient.grpc import aio as grpc_client
from tritonclient.grpc import service_pb2, service_pb2_grpc
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
        assert not await _ready(server)
        triton.model.open.set()
        assert await running == [[1, 0], [12.0, 5.0], [3, 2]]
        assert await gateway.process.wait() == 0


async def test_a_drain_sends_open_channels_elsewhere(start_gateway: Start, triton: Any) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        request = service_pb2.ModelInferRequest(model_name="demo")
        for name in ("query", "passage"):
            request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
            request.raw_input_contents.append(b"\1\0\0\0a")
        triton.model.open.clear()
        calls = triton.model.calls
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        running = stub.ModelInfer(request)
        waiting = asyncio.ensure_future(asyncio.wait_for(running, None))
        while triton.model.calls == calls:  # noqa: ASYNC110 (the other end is another process)
            await asyncio.sleep(0.01)
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        gateway.process.send_signal(signal.SIGTERM)
        # It was told that no further call will be taken, while one is in flight.
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        assert not running.done()
        triton.model.open.set()
        assert len((await waiting).outputs) == 3
    assert await gateway.process.wait() == 0


async def test_who_does_not_take_its_answer_gives_its_place_back(
    start_gateway: Start, triton: Any
) -> None:
    await triton.start()
    gateway = await start_gateway(MAX_CONNECTIONS=4, READ_TIMEOUT_SECONDS=1)
    await gateway.until_ready()
    request = service_pb2.ModelInferRequest(model_name="demo")
    for name in ("query", "passage"):
        request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(b"\1\0\0\0a")
    path = "/inference.GRPCInferenceService/ModelInfer"
    async with (
        DeafCaller(gateway.grpc_port) as deaf,
        grpc_client.InferenceServerClient(f"127.0.0.1:{gateway.grpc_port}") as server,
    ):
        for _ in range(2):
            deaf.call(path, request.SerializeToString())
        for _ in range(2):
            await deaf.answered()
        # The two that may be in progress.
        with pytest.raises(InferenceServerException, match="2 calls are in progress"):
            await ask(server)
        # Nobody asks for a key here: a probe has a place of its own all the same.
        assert await server.is_server_ready()
        while not (answer := await _room(server)):  # noqa: ASYNC110 (the other end is another process)
            await asyncio.sleep(0.02)
        assert answer == [[1, 0], [12.0, 5.0], [3, 2]]
    gateway.process.send_signal(signal.SIGTERM)
    _, log = await gateway.process.communicate()
    assert b"Traceback" not in log


async def _room(server: Any) -> list[list[float]] | None:
    try:
        return await ask(server)
    except InferenceServerException as refusal:
        assert "calls are in progress" in str(refusal)
        return None


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


def test_descriptors_are_shared_by_all_ports() -> None:
    script = """if True:
        import resource
        from reranker_gateway.listeners import raise_descriptors
        hard = 128 + 300
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        print(*(raise_descriptors(1000, ports) for ports in (2, 3)), raise_descriptors(50, 3))
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """
    # Of a process of its own: a hard limit that was lowered stays so.
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert said.stdout.split() == [b"150", b"100", b"50", b"428"]
