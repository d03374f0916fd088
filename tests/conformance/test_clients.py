"""Each client, in all that its users do with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.gateway_process import TritonProcess
from support.ports import free_port
from support.prefix_proxy import prefix_proxy

pytestmark = pytest.mark.timeout(180)
Start = Callable[..., Any]
ALIASES = "an-alias,jina-demo,org/an_alias-1.5"


@pytest.mark.parametrize(
    "client",
    [
        "langchain_nvidia.py",
        "llama_index_nvidia.py",
        "haystack_nvidia.py",
        "cohere_sdk.py",
        "litellm_routes.py",
        "huggingface_and_triton.py",
    ],
)
async def test_client(
    client: str, start_gateway: Start, triton: Any, run_client: Start, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "one").write_text("secret-key")
    await triton.start()
    server = await start_gateway(ALIASES=ALIASES)
    variables = {"SERVER": _url(server), "GRPC": f"127.0.0.1:{server.grpc_port}"}
    if client in {"langchain_nvidia.py", "cohere_sdk.py"}:
        locked = await start_gateway(API_KEYS_DIR=keys)
        not_ready = await start_gateway(TRITON_URL="127.0.0.1:1")
        await locked.until_ready()
        await not_ready.until_ready(503)
        variables |= {"LOCKED": _url(locked), "NOT_READY": _url(not_ready)}
    await server.until_ready()
    async with prefix_proxy(server.port, "/some/path") as proxy:
        if client == "cohere_sdk.py":
            async with _full(start_gateway) as full:
                await run_client(client, PROXY=proxy, FULL=full, **variables)
        else:
            await run_client(client, PROXY=proxy, **variables)


@asynccontextmanager
async def _full(start_gateway: Start) -> AsyncIterator[str]:
    """The address of a gateway whose queue is full."""
    held = TritonProcess(free_port())
    await held.start()
    gateway = await start_gateway(TRITON_URL=f"127.0.0.1:{held.port}", MAX_QUEUE_TOKENS=20)
    await gateway.until_ready()
    held.model.open.clear()
    texts = [f"{'b ' * (at % 5)}{'c ' * (at // 5)}d" for at in range(25)]
    asked = {"query": {"text": "a"}, "passages": [{"text": text} for text in texts]}
    work = gateway.client.post("/v1/ranking", json=asked | {"model": "demo"})
    running = asyncio.create_task(work)
    while not await _has_a_queue(gateway):  # noqa: ASYNC110 (the other end is another process)
        await asyncio.sleep(0.01)
    yield _url(gateway)
    held.model.open.set()
    assert (await running).status_code == 200
    await held.stop()


async def _has_a_queue(gateway: Any) -> bool:
    return "reranker_queue_tokens 0.0" not in (await gateway.client.get("/v1/metrics")).text


def _url(gateway: Any) -> str:
    return f"http://127.0.0.1:{gateway.port}"
