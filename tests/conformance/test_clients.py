"""Each client, in all that its users do with it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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


class _full:  # noqa: N801 (a context manager that is used as a function)
    """The address of a gateway whose queue is full."""

    def __init__(self, start_gateway: Start) -> None:
        self._start = start_gateway
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> str:
        from support.gateway_process import TritonProcess, free_port

        self._triton = TritonProcess(free_port())
        await self._triton.start()
        gateway = await self._start(
            TRITON_URL=f"127.0.0.1:{self._triton.port}", MAX_QUEUE_TOKENS=20
        )
        await gateway.until_ready()
        self._triton.model.open.clear()
        texts = [f"{'b ' * (at % 5)}{'c ' * (at // 5)}d" for at in range(25)]
        asked = {"query": {"text": "a"}, "passages": [{"text": text} for text in texts]}
        work = gateway.client.post("/v1/ranking", json=asked | {"model": "demo"})
        self._tasks.append(asyncio.create_task(work))
        while "reranker_queue_tokens 0.0" in (await gateway.client.get("/v1/metrics")).text:
            await asyncio.sleep(0.01)
        return _url(gateway)

    async def __aexit__(self, *_: object) -> None:
        self._triton.model.open.set()
        await asyncio.gather(*self._tasks)
        await self._triton.stop()


def _url(gateway: Any) -> str:
    return f"http://127.0.0.1:{gateway.port}"
