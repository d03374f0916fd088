"""Load on `POST /v1/ranking`: pairs per second, latency, padding.

    .venv/bin/python bench/ranking.py http://ADDRESS:8000 [--clients 1 8] [--seconds 20] [--json]

One row for each kind of text and number of clients: passages of about 100 tokens, then mixed ones
of 20 to 300, 50 in a request as a retriever would hand over. Closed loop: each client has one
connection and sends its next request when the last one was answered. The texts come from a fixed
seed. A row ends after `--seconds` or `--requests`, whichever is first. What is not a whole answer
counts as failed and as nothing else; a run with failures exits with 1.

Tokens and padding are differences of the gateway's own counters, so the address must lead to one
gateway, and to nobody else's requests.
"""

import argparse
import asyncio
import itertools
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field

import httpx

_WORDS = [
    "tool", "image", "file", "network", "server", "library", "text", "editor", "system", "data",
    "format", "view", "convert", "print", "search", "index", "package", "build", "test",
    "secure", "mail", "sound", "video", "graph", "table", "query", "cache", "log", "user",
]  # fmt: skip
_QUERY = "which tool converts many images"
#: Of query and template; a word is a token for the demo model, or nearly.
_QUERY_TOKENS = 8
_KINDS = {"about 100": (95, 105), "20 to 300": (20, 300)}
_BODIES = 16
_SEED = 20260101
_TIMEOUT = 120
_COLUMNS = (
    "tokens a pair", "clients", "requests", "failed", "pairs/s", "p50 ms", "p99 ms",
    "mean tokens", "padded/real",
)  # fmt: skip


@dataclass
class Row:
    """What was measured; None where there was nothing to measure."""

    kind: str
    clients: int
    requests: int
    #: How often, by status code or error.
    failed: dict[str, int]
    seconds: float
    pairs_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    mean_tokens: float | None
    padded_to_real: float | None


@dataclass
class Tally:
    """Outcomes of the requests of one row."""

    seconds: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Counts:
    """The gateway's counters."""

    passages: float
    #: Of those, the ones that were scored with an equal one.
    shared: float
    tokens: float
    padded_tokens: float


def bodies(model: str, passages: int, shortest: int, longest: int) -> list[bytes]:
    """Requests that are sent in turn, with pairs of `shortest` to `longest` tokens."""
    rng = random.Random(_SEED)  # noqa: S311 - texts, no secrets

    def passage() -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(shortest, longest) - _QUERY_TOKENS))

    return [
        json.dumps(
            {
                "model": model,
                "query": {"text": _QUERY},
                "passages": [{"text": passage()} for _ in range(passages)],
                "truncate": "END",
            }
        ).encode()
        for _ in range(_BODIES)
    ]


def percentile(values: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of all are not above (nearest rank)."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else None


async def ask(http: httpx.AsyncClient, body: bytes, passages: int, tally: Tally) -> None:
    """One request."""
    started = time.perf_counter()
    try:
        answer = await http.post(
            "/v1/ranking", content=body, headers={"Content-Type": "application/json"}
        )
    except httpx.HTTPError as error:
        tally.failed[type(error).__name__] += 1
        return
    seconds = time.perf_counter() - started
    if answer.status_code != httpx.codes.OK:
        tally.failed[str(answer.status_code)] += 1
    elif len(answer.json()["rankings"]) != passages:
        tally.failed["incomplete"] += 1
    else:
        tally.seconds.append(seconds)


async def client(
    http: httpx.AsyncClient, turns: Iterator[bytes], passages: int, until: float, tally: Tally
) -> None:
    """One closed-loop client; the clients share the turns."""
    while time.perf_counter() < until and (body := next(turns, None)) is not None:
        await ask(http, body, passages, tally)


async def counts(http: httpx.AsyncClient) -> Counts:
    """The gateway's counters now."""
    names = (
        "reranker_passages_total", "reranker_shared_pairs_total", "reranker_tokens_total",
        "reranker_padded_tokens_total",
    )  # fmt: skip
    found = dict.fromkeys(names, 0.0)
    for line in (await http.get("/v1/metrics")).raise_for_status().text.splitlines():
        name, _, value = line.partition(" ")
        if name in found:
            found[name] = float(value)
    return Counts(*found.values())


async def measure(
    arguments: argparse.Namespace, kind: str, clients: int, texts: list[bytes]
) -> Row:
    """One row; each client sends one request before anything is counted."""
    tally, passages = Tally(), arguments.passages
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=arguments.url,
                    timeout=_TIMEOUT,
                    trust_env=False,
                    limits=httpx.Limits(max_connections=1),
                )
            )
            for _ in range(clients)
        ]
        await asyncio.gather(*(ask(http, texts[0], passages, Tally()) for http in connections))
        before = await counts(connections[0])
        turns = itertools.islice(itertools.cycle(texts), arguments.requests)
        started = time.perf_counter()
        until = started + arguments.seconds
        await asyncio.gather(*(client(http, turns, passages, until, tally) for http in connections))
        elapsed = time.perf_counter() - started
        after = await counts(connections[0])
    pairs = after.passages - before.passages - (after.shared - before.shared)
    tokens = after.tokens - before.tokens
    padded = after.padded_tokens - before.padded_tokens
    p50, p99 = percentile(tally.seconds, 0.5), percentile(tally.seconds, 0.99)
    return Row(
        kind=kind,
        clients=clients,
        requests=len(tally.seconds) + tally.failed.total(),
        failed=dict(tally.failed),
        seconds=elapsed,
        pairs_per_second=len(tally.seconds) * passages / elapsed,
        p50_ms=None if p50 is None else p50 * 1000,
        p99_ms=None if p99 is None else p99 * 1000,
        mean_tokens=tokens / pairs if pairs > 0 else None,
        padded_to_real=padded / tokens if tokens > 0 else None,
    )


def table_row(row: Row) -> str:
    """`row` as a line of a Markdown table."""
    failed = ", ".join(f"{count} x {what}" for what, count in sorted(row.failed.items())) or "0"
    numbers = (
        (row.pairs_per_second, 0), (row.p50_ms, 0), (row.p99_ms, 0), (row.mean_tokens, 1),
        (row.padded_to_real, 3),
    )  # fmt: skip
    shown = ["-" if value is None else f"{value:.{digits}f}" for value, digits in numbers]
    return f"| {' | '.join([row.kind, str(row.clients), str(row.requests), failed, *shown])} |"


async def run(arguments: argparse.Namespace) -> bool:
    """Measure and print; whether every request was answered."""
    async with httpx.AsyncClient(base_url=arguments.url, trust_env=False) as http:
        listed = (await http.get("/v1/models")).raise_for_status().json()
    rows = []
    if not arguments.json:
        print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for kind, (shortest, longest) in _KINDS.items():
        texts = bodies(listed["data"][0]["id"], arguments.passages, shortest, longest)
        for clients in arguments.clients:
            rows.append(await measure(arguments, kind, clients, texts))
            if not arguments.json:
                print(table_row(rows[-1]))
    if arguments.json:
        print(json.dumps({"passages": arguments.passages, "rows": list(map(asdict, rows))}))
    return not any(row.failed for row in rows)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("url", help="of one gateway, without a path")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=20, help="longest time of a row")
    parser.add_argument("--requests", type=int, default=10_000, help="most requests of a row")
    parser.add_argument("--passages", type=int, default=50, help="in each request")
    parser.add_argument("--json", action="store_true", help="one JSON document, no table")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    arguments = parser.parse_args()
    try:
        return 0 if asyncio.run(run(arguments)) else 1
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        print(f"{error.request.url} answered {status}: is it a gateway's?", file=sys.stderr)
    except httpx.HTTPError as error:
        # A pod that ends closes its connections, and is led to for a moment all the same.
        reason = str(error) or type(error).__name__
        print(
            f"{arguments.url} gave no answer: {reason}. If its pods were just replaced, wait until "
            "`kubectl rr status` says Ready, and run this again",
            file=sys.stderr,
        )
    return 1


if __name__ == "__main__":
    sys.exit(main())
