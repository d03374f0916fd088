"""Memory over time: a gateway under mixed load, with a Triton that answers at once.

    python bench/serving/soak.py ENGINE [--seconds 600] [--requests 100000] [--clients 8]

Goes on until both are reached, at most three times as long. Most requests are ranked; some are
wrong, some hang up before the answer, some come on a connection of their own. Memory and open files
of the gateway are looked at every second. After the first fifth, which fills caches and pools, the
slope of a straight line through them says what a leak would, by the hour and by 100,000 requests.
Fails when the last tenth holds more than `--most-mib` above the second one, or files
stay open.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
from processes import end_with_servers, free_port, gateway, running
from workloads import QUERY, WORDS, Asked

_HERE = Path(__file__).parent
_BODIES = 400
_PATIENCE = 3
_MIB = 1 << 20
#: Open at the end beyond those of the beginning: connections come and go.
_MORE_FILES = 16


@dataclass
class Soak:
    """What was sent, and what the process held meanwhile."""

    sent: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    #: Seconds since the beginning, requests so far, MiB, open files.
    looks: list[tuple[float, int, float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What it comes to."""

    seconds: int
    requests: int
    codes: dict[str, int]
    #: Of resident memory: at the start, early, late, at most.
    mib: list[float]
    growth_mib: float
    mib_per_hour: float
    mib_per_100k_requests: float
    #: Open ones, early and late.
    files: list[int]


def texts(chance: random.Random) -> Asked:
    """A few passages, now and then many."""
    count = chance.choice([1, 3, 8, 8, 20, 60])
    words = [max(1, round(chance.lognormvariate(3, 0.8))) for _ in range(count)]
    return Asked(QUERY, [" ".join(chance.choices(WORDS, k=n)) for n in words])


def bodies(model: str) -> list[tuple[str, bytes]]:
    """Paths and what is sent there."""
    chance, found = random.Random(11), []  # noqa: S311
    for at in range(_BODIES):
        asked = texts(chance)
        ways = [
            ("/v1/ranking", asked.ranking(model)),
            ("/v1/rerank", asked.rerank(model)),
            ("/v2/rerank", asked.rerank(model)),
            ("/rerank", asked.tei()),
            ("/v1/ranking", asked.ranking(model)[: 10 + at]),
            ("/v1/ranking", asked.ranking("another")),
            ("/nowhere", b"{}"),
        ]
        found.append(chance.choices(ways, weights=[6, 3, 2, 3, 1, 1, 1])[0])
    return found


def resident(pid: int) -> tuple[float, int]:
    """MiB and open files."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / _MIB, len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def client(url: str, asked: Sequence[tuple[str, bytes]], soak: Soak, seed: int) -> None:
    """Sends until it is cancelled."""
    chance = random.Random(seed)  # noqa: S311
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(trust_env=False) as session:
        while True:
            path, body = chance.choice(asked)
            way = chance.random()
            patience = chance.random() * 0.02 if way < 0.03 else 60
            own = {"Connection": "close"} if way > 0.97 else {}
            try:
                async with asyncio.timeout(patience):
                    async with session.post(url + path, data=body, headers=headers | own) as answer:
                        await answer.read()
                        soak.codes[str(answer.status)] += 1
            except TimeoutError:
                soak.codes["hung up"] += 1
            soak.sent += 1


async def load(url: str, pid: int, model: str, arguments: argparse.Namespace) -> Soak:
    """Until enough was sent for long enough."""
    soak, began = Soak(), time.monotonic()
    asked = bodies(model)
    tasks = [
        asyncio.create_task(client(url, asked, soak, seed)) for seed in range(arguments.clients)
    ]
    try:
        while (elapsed := time.monotonic() - began) < _PATIENCE * arguments.seconds:
            soak.looks.append((elapsed, soak.sent, *resident(pid)))
            if elapsed >= arguments.seconds and soak.sent >= arguments.requests:
                break
            done, _ = await asyncio.wait(tasks, timeout=1)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return soak


def verdict(soak: Soak) -> Verdict:
    """The line through what was seen after the first fifth."""
    looks = soak.looks[len(soak.looks) // 5 :]
    seconds, sent, mib, files = (list(column) for column in zip(*looks, strict=True))
    tenth = max(1, len(looks) // 10)
    early, late = statistics.median(mib[:tenth]), statistics.median(mib[-tenth:])
    return Verdict(
        seconds=round(soak.looks[-1][0]),
        requests=soak.sent,
        codes=dict(sorted(soak.codes.items())),
        mib=[round(value, 1) for value in (soak.looks[0][2], early, late, max(mib))],
        growth_mib=round(late - early, 2),
        mib_per_hour=round(statistics.linear_regression(seconds, mib).slope * 3600, 2),
        mib_per_100k_requests=round(statistics.linear_regression(sent, mib).slope * 1e5, 2),
        files=[max(files[:tenth]), max(files[-tenth:])],
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--most-mib", type=float, default=8)
    arguments = parser.parse_args()
    end_with_servers()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        with (
            running([sys.executable, _HERE / "instant.py", port], log=logs / "triton.log"),
            gateway(arguments.engine, port, logs / "gateway.log") as (process, url),
        ):
            model = json.loads((arguments.engine / "model.json").read_text())["name"]
            found = verdict(asyncio.run(load(url, process.pid, model, arguments)))
    print(json.dumps(asdict(found), indent=2))
    wrong = [code for code in found.codes if code.startswith("5")]
    leaks = found.growth_mib > arguments.most_mib or found.files[1] > found.files[0] + _MORE_FILES
    return int(bool(wrong) or leaks or found.requests < arguments.requests)


if __name__ == "__main__":
    sys.exit(main())
