"""Load on `POST /v1/ranking`: passages per second, latency, padding, memory.

    .venv/bin/python bench/ranking.py http://ADDRESS:8000 [--clients 1 8] [--seconds 20]

Closed loop: each client sends its next request when the last one was answered. 50 passages a
request, as a retriever would hand over; lengths are log-normal around 100 tokens (`--fixed` makes
them equal). The texts are made from a fixed seed, so every run sends the same. Bounded by
`--seconds`; prints one table row for each number of clients, and the gateway's own padding ratio.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time

import httpx

_WORDS = [
    "tool", "image", "file", "network", "server", "library", "text", "editor", "system", "data",
    "format", "view", "convert", "print", "search", "index", "package", "build", "test",
    "secure", "mail", "sound", "video", "graph", "table", "query", "cache", "log", "user",
]  # fmt: skip


def passage(rng: random.Random, fixed: bool) -> str:
    """About 100 tokens: one word is one token for the demo model, or nearly."""
    length = 97 if fixed else min(400, max(8, round(rng.lognormvariate(4.45, 0.6))))
    return " ".join(rng.choice(_WORDS) for _ in range(length))


def requests(model: str, count: int, passages: int, fixed: bool) -> list[dict[str, object]]:
    """Bodies that are sent in turn."""
    rng = random.Random(20260101)  # noqa: S311 - texts, no secrets
    return [
        {
            "model": model,
            "query": {"text": "which tool converts many images"},
            "passages": [{"text": passage(rng, fixed)} for _ in range(passages)],
            "truncate": "END",
        }
        for _ in range(count)
    ]


async def client(
    http: httpx.AsyncClient, bodies: list[dict[str, object]], until: float, times: list[float]
) -> None:
    """One closed-loop client."""
    turn = 0
    while time.perf_counter() < until:
        started = time.perf_counter()
        answer = await http.post("/v1/ranking", json=bodies[turn % len(bodies)])
        answer.raise_for_status()
        times.append(time.perf_counter() - started)
        turn += 1


async def padding(http: httpx.AsyncClient) -> tuple[float, float]:
    """Real and padded tokens so far, from the gateway's metrics."""
    found = {"reranker_tokens_total": 0.0, "reranker_padded_tokens_total": 0.0}
    for line in (await http.get("/v1/metrics")).text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name in found:
            found[name] += float(line.rsplit(" ", 1)[1])
    return found["reranker_tokens_total"], found["reranker_padded_tokens_total"]


async def run(arguments: argparse.Namespace) -> None:
    """Warm up, then one row for each number of clients."""
    async with httpx.AsyncClient(base_url=arguments.url, timeout=300) as http:
        model = (await http.get("/v1/models")).json()["data"][0]["id"]
        bodies = requests(model, 16, arguments.passages, arguments.fixed)
        (await http.post("/v1/ranking", json=bodies[0])).raise_for_status()
        print("| clients | requests | pairs/s | p50 ms | p99 ms | padded/real tokens |")
        print("|---|---|---|---|---|---|")
        for clients in arguments.clients:
            before, times = await padding(http), list[float]()
            started = time.perf_counter()
            until = started + arguments.seconds
            turns = [bodies[n:] + bodies[:n] for n in range(clients)]
            await asyncio.gather(*(client(http, turn, until, times) for turn in turns))
            elapsed, after = time.perf_counter() - started, await padding(http)
            real, padded = after[0] - before[0], after[1] - before[1]
            p50 = statistics.median(times) * 1000
            p99 = sorted(times)[min(len(times) - 1, int(len(times) * 0.99))] * 1000
            rate = len(times) * arguments.passages / elapsed
            print(
                f"| {clients} | {len(times)} | {rate:.0f} | {p50:.0f} | {p99:.0f} "
                f"| {padded / real if real else 0:.3f} |"
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--passages", type=int, default=50)
    parser.add_argument("--fixed", action="store_true", help="all passages of 97 words")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
