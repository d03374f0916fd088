"""The load generator, against a gateway's process."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[2] / "bench/ranking.py"


async def bench(gateway: Any, *more: str) -> tuple[int | None, str]:
    url = str(gateway.client.base_url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, BENCH, url, "--passages", "3", "--requests", "8", *more),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_measures_and_counts_failures(start_gateway: Callable[..., Any], triton: Any) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    code, said = await bench(gateway, "--json")
    rows = json.loads(said)["rows"]
    assert code == 0
    assert [(row["clients"], row["requests"], row["failed"]) for row in rows] == [
        (1, 8, {}),
        (8, 8, {}),
    ] * 2
    # Every pair is cut to the engine's longest input, so nothing but the shortest is padded.
    assert all(1 <= row["padded_to_real"] < 1.2 for row in rows)
    assert all(25 < row["mean_tokens"] <= 32 for row in rows)
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows)

    triton.model.damage = lambda answer: answer.raw_output_contents.pop()
    code, said = await bench(gateway, "--clients", "2")
    assert code == 1
    assert "x 50" in said
    assert said.splitlines()[-1].endswith("| 0 | - | - | - | - |")


async def test_a_server_that_hangs_up_is_told_in_a_sentence() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, BENCH, f"http://{host}:{port}"), stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith(f"http://{host}:{port} gave no answer: ")
    assert "kubectl rr status" in said.decode()
    assert said.decode().count("\n") == 1
