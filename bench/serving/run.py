"""Ours, the engine bare, and what else a user could pick, side by side on one machine.

    python bench/serving/run.py DIR [--rounds 3] [--seconds 15] [--only PART...] [--engine NAME]

DIR is what `bench/serving/measure` prepares. In each round every server gets the same requests, all
of them equally often, for at least `--seconds`, one server after the other, so that what disturbs
the machine disturbs all; figures are ratios within a round, as median and range over the rounds.
Servers that nobody asks just wait. Parts:

    tune      short tries of each peer's ways (`servers.PEERS`); the best go to DIR/tuned.json
    ceiling   W1 and W3 of each engine over the engine bare
    single    W4
    peers     W3 side by side
    latency   W3 at 60 % of what each can take
    overload  W5

Rows of the table are printed as they are found, and their numbers kept in DIR/results.json.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from direct import gateway_ms, triton_ms
from load import Outcome, Target, closed, percentile, poisson
from processes import counters, cpu_seconds, end_with_servers
from servers import PEERS, Peer, Server, Way, before, engines, ours, triton, tuned, up
from workloads import QUERIES, Asked, requests

_HERE = Path(__file__).parent
_PARTS = ("ceiling", "single", "peers", "latency", "overload")
_CLIENTS = 4
#: Requests of a peer's try.
_TRY = 3
#: What part of its best a server is asked for in `latency`.
_LOAD = 0.6
#: W5 lasts so many times `--seconds`.
_OVERLOAD = 3
#: The queue of W5, about what the clients of a closed loop have waiting. The default is made for
#: GPUs: on two cores it is half a minute of work.
_QUEUE_TOKENS = 65_536


def target(server: Server, asked: list[Asked], model: str) -> Target:
    """The server as the load sees it: the same passages in each lap, to another query.

    So a request that overlaps with its former self shares no pair with it, which would be scored
    once for both.
    """
    laps = [replace(one, query=query) for query in QUERIES for one in asked]
    bodies = [server.body(one, model) for one in laps]
    pairs = [len(one.passages) for one in laps]
    return Target(server.url + server.path, bodies, pairs, lap=len(asked))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    if not values:
        return "-"
    middle = f"{statistics.median(values):.{digits}f}"
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


class Bench:
    """What is measured, and with what."""

    def __init__(self, arguments: argparse.Namespace, logs: Path) -> None:
        self.directory: Path = arguments.directory
        self.logs = logs
        self.rounds: int = arguments.rounds
        self.seconds: float = arguments.seconds
        self.tries: float = arguments.tries
        self.bodies: int = arguments.bodies
        self.timed: int = arguments.timed
        self.engines = engines(self.directory)
        #: What a user gets who asks for nothing.
        self.chosen = arguments.engine or next(iter(self.engines))
        self.model: str = json.loads((self.engine / "model.json").read_text())["name"]

    @property
    def engine(self) -> Path:
        """The engine of what is compared with others."""
        return self.engines[self.chosen]

    def saturate(self, server: Server, asked: list[Asked], seconds: float | None = None) -> Outcome:
        """Closed loop. Raises RuntimeError when a request was not answered."""
        goal = target(server, asked, self.model)
        found = asyncio.run(closed(goal, _CLIENTS, self.seconds if seconds is None else seconds))
        if found.failed or found.refused:
            raise RuntimeError(f"{server.name}: {found.failed}, refused {len(found.refused)}")
        return found

    def bare(self, engine: Path, asked: list[Asked], *more: str) -> dict[str, float | str]:
        """The engine without anything around it, measured now."""
        file = self.logs / "requests.json"
        file.write_text(json.dumps([asdict(one) for one in asked]))
        command = [
            *(self.directory / "peers/bin/python", _HERE / "bare.py", engine, "--requests", file),
            *("--seconds", self.seconds, "--threads", os.cpu_count(), *more),
        ]
        done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"bare.py: {done.stderr.decode()[-2000:]}")
        return dict(json.loads(done.stdout))

    def tell(self, what: str, shown: str, values: object) -> None:
        """A row of the table."""
        file = self.directory / "results.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | {what: values}, indent=2))
        print(f"| {what} | {shown} |", flush=True)

    def tune(self) -> None:
        """Each peer in each of its ways, one after the other; the fastest on W3 is its best."""
        asked = requests("W3", min(_TRY, self.bodies), seed=77)
        best = tuned(self.directory)
        for peer in PEERS:
            rates: dict[Way, float] = {}
            for way in peer.ways:
                with contextlib.ExitStack() as stack:
                    server = up(peer, way, self.directory, self.logs, stack)
                    if server is None:
                        break
                    row = f"tries, pairs/s: {server.name}"
                    try:
                        rates[way] = self.saturate(server, asked, 0).pairs_per_second
                    except RuntimeError as error:
                        # Some libraries can't score two requests at once.
                        self.tell(row, f"fails: {error}", None)
                    else:
                        self.tell(row, f"{rates[way]:.1f}", rates[way])
            if rates:
                best[peer.name] = max(rates, key=rates.__getitem__)
        (self.directory / "tuned.json").write_text(json.dumps(best, indent=2))

    def ceiling(self, name: str) -> None:
        """W1 and W3 of one engine over the engine bare, and what of the time is the gateway's."""
        engine = self.engines[name]
        with ours(self.directory, engine, self.logs) as server:
            for workload in ("W1", "W3"):
                asked = requests(workload, self.bodies)
                tries = ("--find", "--seconds", str(self.tries))
                way = str(self.bare(engine, asked, *tries)["way"])
                self._over_bare(f"{workload}, {name}", server, engine, asked, way)

    def _over_bare(
        self, row: str, server: Server, engine: Path, asked: list[Asked], way: str
    ) -> None:
        ratios, padding, shares, rates = [], [], [], []
        for _ in range(self.rounds):
            most = float(self.bare(engine, asked, "--way", way)["pairs_per_second"])
            before, cpu = counters(server.url), cpu_seconds(server.pid)
            found = self.saturate(server, asked)
            after, cpu = counters(server.url), cpu_seconds(server.pid) - cpu
            delta = {key: after[key] - before.get(key, 0.0) for key in after}
            rates.append((found.pairs_per_second, most))
            ratios.append(found.pairs_per_second / most)
            padding.append(delta["reranker_padded_tokens_total"] / delta["reranker_tokens_total"])
            shares.append(cpu / found.wall)
        shown = ", ".join(f"{mine:.1f} of {most:.1f}" for mine, most in rates)
        self.tell(f"{row}: over the engine bare ({way})", spread(ratios), ratios)
        self.tell(f"{row}: pairs/s of bare pairs/s", shown, rates)
        self.tell(f"{row}: padded/real", spread(padding, 3), padding)
        self.tell(f"{row}: gateway's processor time over wall", spread(shares, 3), shares)

    def single(self) -> None:
        """W4: what a single pair waits for Triton, and what for the gateway."""
        bare, alone, extra = [], [], []
        with (
            triton(self.directory, self.engine, self.logs / "triton.log") as port,
            before(self.engine, port, self.logs / "gateway.log") as server,
        ):
            for turn in range(self.rounds):
                asked = requests("W4", 100, seed=turn)
                bare.append(float(self.bare(self.engine, asked, "--seconds", "0")["single_ms"]))
                alone.append(triton_ms(port, self.engine, asked))
                goal = target(server, asked, self.model)
                extra.append(gateway_ms(goal.url, goal.bodies[: len(asked)]) - alone[-1])
        self.tell("W4: p50 of the engine bare, ms", spread(bare), bare)
        self.tell("W4: p50 of Triton asked directly, ms", spread(alone), alone)
        self.tell("W4: p50 of ours beyond that, ms", spread(extra), extra)

    def peers(self, servers: list[Server]) -> None:
        """W3: pairs per second of ours, the first one, over each."""
        rates: dict[str, list[float]] = {server.name: [] for server in servers}
        for turn in range(self.rounds):
            asked = requests("W3", self.bodies, seed=100 + turn)
            for server in tuple(servers):
                try:
                    rates[server.name].append(self.saturate(server, asked).pairs_per_second)
                except RuntimeError as error:
                    # Some do not stand what others do; ours, the first one, must.
                    if server is servers[0]:
                        raise
                    self.tell(f"W3: pairs/s of {server.name}", f"fails: {error}", None)
                    servers.remove(server)
                    del rates[server.name]
        mine = rates[servers[0].name]
        for name, theirs in rates.items():
            ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
            self.tell(f"W3: pairs/s of {name}", spread(theirs, 1), theirs)
            self.tell(f"W3: ours over {name}", spread(ratios), ratios)

    def latency(self, servers: list[Server]) -> None:
        """W3 at a part of what each can take: the same requests, the same pauses in proportion."""
        asked = requests("W3", self.timed, seed=999)
        pairs = statistics.mean(len(one.passages) for one in asked)
        known = json.loads((self.directory / "results.json").read_text())
        for server in servers:
            best = statistics.median(known[f"W3: pairs/s of {server.name}"])
            goal = target(server, asked, self.model)
            found = asyncio.run(poisson(goal, _LOAD * best / pairs, self.timed))
            tail = [percentile(found.answered, share) for share in (0.5, 0.9, 0.99)]
            shown = ", ".join(f"{value:.2f}" for value in tail)
            shown += f" of {len(found.answered)}, failed {found.failed.total()}"
            row = f"W3 at {_LOAD:.0%}, {server.name}: p50, p90, p99 in s"
            self.tell(row, shown, found.answered)

    def overload(self, roomy: Server, bounded: Server) -> None:
        """W5: twice what it can take. The peak is that of `roomy`, which refuses nothing."""
        asked = requests("W3", 4 * self.bodies, seed=5)
        pairs = statistics.mean(len(one.passages) for one in asked)
        peak = self.saturate(roomy, asked)
        rate = 2 * peak.pairs_per_second / pairs
        goal = target(bounded, asked, self.model)
        found = asyncio.run(poisson(goal, rate, round(rate * _OVERLOAD * self.seconds)))
        share = found.pairs_per_second / peak.pairs_per_second
        slow = percentile(found.answered, 0.99) / percentile(peak.answered, 0.99)
        refused = [value * 1000 for value in found.refused]
        times = ", ".join(f"{percentile(refused, share):.1f}" for share in (0.5, 0.99))
        self.tell("W5: goodput over peak", f"{share:.2f}", share)
        self.tell("W5: p99 of accepted over that at saturation", f"{slow:.2f}", slow)
        self.tell("W5: refusals, p50 and p99 in ms", f"{times} of {len(refused)}", refused)
        self.tell("W5: failed", str(dict(found.failed) or 0), dict(found.failed))


def side_by_side(
    bench: Bench, parts: Sequence[str], server: Server, against: Sequence[str] | None
) -> None:
    """`peers` and `latency`, with everybody running, or those that are named."""
    best = tuned(bench.directory)
    with contextlib.ExitStack() as stack:
        compared: list[Server] = [server]
        untuned: list[Server] = []
        for peer in (one for one in PEERS if against is None or one.name in against):
            first, way = peer.ways[0], best.get(peer.name, peer.ways[0])
            others = [] if way == first or not _as_it_comes(peer) else [first]
            for each, to in ((way, compared), *((one, untuned) for one in others)):
                found = up(peer, each, bench.directory, bench.logs, stack)
                if found is not None:
                    to.append(found)
        if "peers" in parts:
            everybody = [*compared, *untuned]
            bench.peers(everybody)
            compared = [server for server in compared if server in everybody]
        if "latency" in parts:
            bench.latency(compared)


def _as_it_comes(peer: Peer) -> bool:
    """Whether people run it without our help: it is a server by itself."""
    return peer.name.startswith(("infinity", "TEI"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--tries", type=float, default=2.5, help="seconds of each way of bare.py")
    parser.add_argument("--bodies", type=int, default=8, help="requests of a round")
    parser.add_argument("--timed", type=int, default=24, help="requests of latency")
    parser.add_argument("--only", nargs="*", default=_PARTS, choices=("tune", *_PARTS))
    parser.add_argument("--engine", help="the one to measure (ceiling: all; else what auto takes)")
    parser.add_argument(
        "--against",
        nargs="*",
        metavar="PEER",
        help="of peers and latency, as servers.py names them",
    )
    arguments = parser.parse_args()
    end_with_servers()
    parts = arguments.only
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as folder:
        bench = Bench(arguments, Path(folder))
        print("| figure | value |\n|---|---|", flush=True)
        if "tune" in parts:
            bench.tune()
        if "ceiling" in parts:
            for name in [arguments.engine] if arguments.engine else bench.engines:
                bench.ceiling(name)
        if "single" in parts:
            bench.single()
        if not {"peers", "latency"}.isdisjoint(parts):
            with ours(bench.directory, bench.engine, bench.logs) as server:
                side_by_side(bench, parts, server, arguments.against)
        if "overload" in parts:
            bounds = {"MAX_QUEUE_TOKENS": _QUEUE_TOKENS}
            with (
                triton(bench.directory, bench.engine, bench.logs / "triton.log") as port,
                before(bench.engine, port, bench.logs / "roomy.log") as roomy,
                before(bench.engine, port, bench.logs / "bounded.log", **bounds) as bounded,
            ):
                bench.overload(roomy, bounded)


if __name__ == "__main__":
    main()
