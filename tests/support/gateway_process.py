"""The real gateway process in front of a Triton that the test holds in its hand; fixtures for it.

`FakeTriton` speaks KServe's gRPC protocol on a loopback port, so the whole gateway runs as it does
in a pod: its command line, its listeners, its signals, its gRPC client. The real tritonserver is
covered by the e2e tests, which have a cluster to run its image.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reranker_contracts import (
    ServedModel,
)
from support.identities import publish_engine
from support.ports import free_port


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # untyped
    """Scores a row by the sum of its ids."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.calls = 0
        self.loaded = True
        #: Changes each answer before it is sent.
        self.damage: Callable[[Any], None] = lambda answer: None

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=self.loaded and request.name == "reranker")

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls += 1
        await self.open.wait()
        if not self.loaded:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown model: no available versions")
        arrays = {
            tensor.name: np.frombuffer(content, np.int32).reshape(tensor.shape)
            for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        sums = (arrays["input_ids"] * arrays["attention_mask"]).sum(axis=1).astype(np.float32)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name="logits", datatype="FP32", shape=[len(sums), 1])
        answer.raw_output_contents.append(sums.tobytes())
        self.damage(answer)
        return answer


class TritonProcess:
    """Starts and stops the fake server on one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.model = FakeTriton()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self.model, self._server)
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


class GatewayProcess:
    """`reranker-gateway serve` and a client of it."""

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, metrics_port: int, grpc_port: int
    ) -> None:
        self.process = process
        self.port = port
        self.metrics_port = metrics_port
        self.grpc_port = grpc_port
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)

    async def until_ready(self, code: int = 200) -> None:
        """Poll the readiness probe as a kubelet does; the test's time limit is the deadline."""
        while True:
            try:
                answer = await self.client.get("/v1/health/ready")
            except httpx.TransportError:
                assert self.process.returncode is None
            else:
                if answer.status_code == code:
                    return
            await asyncio.sleep(0.02)


def write_engine(folder: Path) -> None:
    """A published engine without weights, of the model `demo`."""
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "a", "b", "c", "d"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    model = ServedModel.model_validate(
        {
            "name": "demo",
            "architecture": "Demo",
            "family": "demo",
            "maxLength": 32,
            "padId": 0,
            "template": {"pieces": [{"kind": "query"}, {"kind": "passage"}]},
            "inputs": ["input_ids", "attention_mask"],
        }
    )
    (folder / "model.json").write_text(model.to_json())
    publish_engine(folder, 32)


async def start_process(
    engine: Path, triton_port: int, settings: Mapping[str, object]
) -> GatewayProcess:
    """`reranker-gateway serve` on free ports; its log goes to a pipe."""
    environment = {
        "ENGINE_DIR": engine,
        "TRITON_URL": f"127.0.0.1:{triton_port}",
        "TRITON_METRICS_URL": "",
    }
    return await run_command("serve", environment | dict(settings))


async def run_command(command: str, settings: Mapping[str, object]) -> GatewayProcess:
    """A server of the gateway's program, on free ports where none are given."""
    ports = {name: free_port() for name in ("HTTP_PORT", "METRICS_PORT", "GRPC_PORT")}
    environment = ports | {"HOST": "127.0.0.1", "DRAIN_DELAY_SECONDS": 0} | dict(settings)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reranker_gateway", command),
        env=os.environ | {f"RERANKER_{key}": str(value) for key, value in environment.items()},
        stderr=asyncio.subprocess.PIPE,
    )
    return GatewayProcess(process, *(int(str(environment[name])) for name in ports))


@pytest.fixture
def engine_dir(tmp_path: Path) -> Path:
    write_engine(tmp_path)
    return tmp_path


@pytest.fixture
async def triton() -> AsyncIterator[TritonProcess]:
    server = TritonProcess(free_port())
    yield server
    await server.stop()


@pytest.fixture
async def start_gateway(
    engine_dir: Path, triton: TritonProcess
) -> AsyncIterator[Callable[..., Any]]:
    """Starts gateways; whatever still runs at the end is killed."""
    started: list[GatewayProcess] = []

    async def start(**settings: object) -> GatewayProcess:
        started.append(await start_process(engine_dir, triton.port, settings))
        return started[-1]

    yield start
    await _end(started)


class Sleeper:
    """An activator, and the address at which a gateway may come up behind it."""

    def __init__(self, start_gateway: Callable[..., Any], triton: TritonProcess) -> None:
        self._start_gateway = start_gateway
        self._triton = triton
        self.backend = {"HTTP_PORT": free_port(), "GRPC_PORT": free_port()}
        self.started: list[GatewayProcess] = []

    async def activator(self, **settings: object) -> GatewayProcess:
        scheme = "https" if "TLS_DIR" in settings else "http"
        environment = {
            "BACKEND_URL": f"{scheme}://127.0.0.1:{self.backend['HTTP_PORT']}",
            "BACKEND_GRPC": f"127.0.0.1:{self.backend['GRPC_PORT']}",
            "SERVED_NAME": "demo",
        }
        found = await run_command("activate", environment | settings)
        self.started.append(found)
        return found

    async def wake(self, **settings: object) -> GatewayProcess:
        """Start the pod's gateway; ready when Triton is, which is not waited for."""
        await self._triton.start()
        gateway: GatewayProcess = await self._start_gateway(**self.backend, **settings)
        return gateway


@pytest.fixture
async def sleeper(
    start_gateway: Callable[..., Any], triton: TritonProcess
) -> AsyncIterator[Sleeper]:
    """An activator with nothing behind it yet."""
    found = Sleeper(start_gateway, triton)
    yield found
    await _end(found.started)


async def _end(started: list[GatewayProcess]) -> None:
    for gateway in started:
        await gateway.client.aclose()
        if gateway.process.returncode is None:
            gateway.process.kill()
        await gateway.process.communicate()
