"""Ours, the engine bare, and what else a user could pick, side by side on one machine.

    python bench/serving/run.py DIR [--rounds 3] [--seconds 20] [--only NAME...] [--json FILE]

DIR is what `bench/serving/prepare` left. In each round every server gets the same requests for
`--seconds`, one after the other, so that what disturbs the machine disturbs all; figures are ratios
within a round, as median and range over the rounds. Servers that nobody asks just wait.

PEERS and INFINITY name the Python programs of environments with requirements/bench-peers.txt and
bench-infinity.txt; what is not given is left out, and the table says so.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from load import Outcome, Target, closed, percentile, poisson
from processes import counters, cpu_seconds, free_port, gateway, running
from workloads import Asked, requests

_HERE = Path(__file__).parent
_CLIENTS = 4
_BODIES = 24
_W5_SECONDS = 3
#: The queue of W5: a few seconds of a CPU's work.
_QUEUE_TOKENS = 32_768


@dataclass(frozen=True)
class Server:
    """One that answers."""

    name: str
    url: str
    #: NIM's body, or that of Cohere and others.
    nim: bool = False
    pid: int = 0


def target(server: Server, asked: list[Asked], model: str) -> Target:
    """The same texts in the server's words."""
    path = "/v1/ranking" if server.nim else "/rerank"
    bodies = [one.ranking(model) if server.nim else one.rerank(model) for one in asked]
    return Target(server.url + path, bodies, [len(one.passages) for one in asked])


@contextlib.contextmanager
def triton(directory: Path, engine: Path, logs: Path) -> Iterator[int]:
    """The real one, from its image; its gRPC port."""
    grpc, http = free_port(), free_port()
    container = (directory / "container").read_text().strip()
    command = [
        *("buildah", "run", "--isolation", "chroot", "--user", "65532:65532"),
        *("--volume", f"{engine.resolve()}:/engine:ro", container, "--"),
        *("env", f"RERANKER_THREADS={os.cpu_count()}", "HOME=/tmp"),
        *("tritonserver", "--model-repository=/engine/repository"),
        *("--model-control-mode=explicit", "--load-model=reranker"),
        *("--disable-auto-complete-config", "--exit-on-error=true", "--allow-metrics=false"),
        *("--http-address=127.0.0.1", f"--http-port={http}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
    ]
    ready = f"http://127.0.0.1:{http}/v2/health/ready"
    with running(command, log=logs / "triton.log", until=ready):
        yield grpc


@contextlib.contextmanager
def peer(kind: str, directory: Path, logs: Path) -> Iterator[Server]:
    """One of the libraries in a minimal server."""
    port, model = free_port(), directory / "peer-model"
    command = [os.environ["PEERS"], _HERE / "peer_server.py", kind, model, str(port)]
    url = f"http://127.0.0.1:{port}"
    with running(command, log=logs / f"{kind}.log", until=f"{url}/health"):
        name = kind if kind == "flashrank" else f"sentence-transformers {kind}"
        yield Server(name, url)


@contextlib.contextmanager
def infinity(engine: str, directory: Path, logs: Path) -> Iterator[Server]:
    """infinity-emb as it comes."""
    port = free_port()
    program = Path(os.environ["INFINITY"]).parent / "infinity_emb"
    command = [
        *(program, "v2", "--model-id", directory / "peer-model", "--engine", engine),
        *("--device", "cpu", "--port", str(port), "--host", "127.0.0.1", "--no-model-warmup"),
    ]
    url = f"http://127.0.0.1:{port}"
    environment = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    log = logs / f"infinity-{engine}.log"
    with running(command, log=log, environment=environment, until=f"{url}/health"):
        yield Server(f"infinity {engine}", url)


def bare(engine: Path, asked: list[Asked], seconds: float, folder: Path) -> dict[str, float]:
    """The ceiling of these requests, measured now."""
    file = folder / "requests.json"
    file.write_text(json.dumps([asdict(one) for one in asked]))
    command = [
        *(os.environ["PEERS"], _HERE / "bare.py", engine, "--requests", file),
        *("--seconds", str(seconds), "--threads", str(os.cpu_count())),
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    if not values:
        return "-"
    return (
        f"{statistics.median(values):.{digits}f} "
        f"({min(values):.{digits}f} to {max(values):.{digits}f})"
    )


class Bench:
    """What is measured, and with what."""

    def __init__(self, arguments: argparse.Namespace, engine: Path, logs: Path) -> None:
        self.engine = engine
        self.logs = logs
        self.rounds: int = arguments.rounds
        self.seconds: float = arguments.seconds
        self.model: str = json.loads((engine / "model.json").read_text())["name"]
        self.results: dict[str, object] = {}

    def saturate(self, server: Server, asked: list[Asked]) -> Outcome:
        """Closed loop."""
        found = asyncio.run(closed(target(server, asked, self.model), _CLIENTS, self.seconds))
        if found.failed or found.refused:
            raise RuntimeError(f"{server.name}: {found.failed}, refused {len(found.refused)}")
        return found

    def ceiling(self, ours: Server) -> None:
        """W1 and W3 of ours over the engine bare, and what of the time is the gateway's."""
        for workload in ("W1", "W3"):
            ratios, padding, shares = [], [], []
            for turn in range(self.rounds):
                asked = requests(workload, _BODIES, seed=turn)
                most = bare(self.engine, asked, self.seconds, self.logs)["pairs_per_second"]
                before, cpu = counters(ours.url), cpu_seconds(ours.pid)
                found = self.saturate(ours, asked)
                after, cpu = counters(ours.url), cpu_seconds(ours.pid) - cpu
                delta = {key: after[key] - before.get(key, 0.0) for key in after}
                ratios.append(found.pairs_per_second / most)
                padding.append(
                    delta["reranker_padded_tokens_total"] / delta["reranker_tokens_total"]
                )
                shares.append(cpu / (found.wall * (os.cpu_count() or 1)))
            self.tell(f"{workload} over the engine bare", spread(ratios), ratios)
            self.tell(f"{workload} padded/real", spread(padding, 3), padding)
            self.tell(
                f"{workload} gateway's share of all processor time", spread(shares, 3), shares
            )

    def single(self, ours: Server) -> None:
        """W4: what a single pair waits for the gateway."""
        extra = []
        for turn in range(self.rounds):
            asked = requests("W4", 200, seed=turn)
            alone = bare(self.engine, asked, 2, self.logs)["single_ms"]
            one = asyncio.run(closed(target(ours, asked, self.model), 1, self.seconds / 4))
            extra.append(percentile(one.answered, 0.5) * 1000 - alone)
        self.tell("W4 p50 beyond the engine bare, ms", spread(extra), extra)

    def side_by_side(self, servers: list[Server]) -> None:
        """W3: pairs per second of each over ours, then p99 at 60 % of what each can take."""
        rates: dict[str, list[float]] = {server.name: [] for server in servers}
        for turn in range(self.rounds):
            asked = requests("W3", _BODIES, seed=100 + turn)
            for server in servers:
                rates[server.name].append(self.saturate(server, asked).pairs_per_second)
        ours = rates[servers[0].name]
        for name, theirs in rates.items():
            ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
            self.tell(f"W3 ours over {name}", spread(ratios), ratios)
        asked = requests("W3", 200, seed=999)
        mean = statistics.mean(len(one.passages) for one in asked)
        for server in servers:
            rate = 0.6 * statistics.median(rates[server.name]) / mean
            found = asyncio.run(poisson(target(server, asked, self.model), rate, 3 * self.seconds))
            tail = [percentile(found.answered, share) for share in (0.5, 0.99)]
            shown = f"{tail[0]:.2f}, {tail[1]:.2f} of {len(found.answered)}"
            self.tell(f"W3 at 60 %, {server.name}: p50, p99 in s", shown, tail)

    def overload(self, ours: Server) -> None:
        """W5: twice what it can take."""
        asked = requests("W3", 200, seed=5)
        mean = statistics.mean(len(one.passages) for one in asked)
        peak = self.saturate(ours, asked)
        rate = 2 * peak.pairs_per_second / mean
        goal = target(ours, asked, self.model)
        found = asyncio.run(poisson(goal, rate, _W5_SECONDS * self.seconds))
        self.tell(
            "W5 goodput over peak", f"{found.pairs_per_second / peak.pairs_per_second:.2f}", 0
        )
        slow = percentile(found.answered, 0.99) / percentile(peak.answered, 0.99)
        self.tell("W5 p99 of accepted over that at saturation", f"{slow:.2f}", slow)
        refused = [value * 1000 for value in found.refused]
        shown = f"{percentile(refused, 0.5):.1f}, {percentile(refused, 0.99):.1f} of {len(refused)}"
        self.tell("W5 refusals: p50, p99 in ms", shown, refused)
        self.tell("W5 failed", str(dict(found.failed) or 0), dict(found.failed))

    def tell(self, what: str, shown: str, values: object) -> None:
        """A row of the table."""
        self.results[what] = values
        print(f"| {what} | {shown} |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", nargs="*", default=["ceiling", "single", "peers", "overload"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    (engine,) = (directory / "store/engines").iterdir()
    with (
        tempfile.TemporaryDirectory(prefix="bench-serving-") as folder,
        contextlib.ExitStack() as up,
    ):
        logs = Path(folder)
        bench = Bench(arguments, engine, logs)
        port = up.enter_context(triton(directory, engine, logs))
        process, url = up.enter_context(gateway(engine, port, logs / "gateway.log"))
        ours = Server("ours", url, nim=True, pid=process.pid)
        print("| figure | value |\n|---|---|", flush=True)
        if "ceiling" in arguments.only:
            bench.ceiling(ours)
        if "single" in arguments.only:
            bench.single(ours)
        if "peers" in arguments.only:
            bench.side_by_side([ours, *_peers(directory, logs, up)])
        if "overload" in arguments.only:
            _, url = up.enter_context(
                gateway(engine, port, logs / "small.log", MAX_QUEUE_TOKENS=_QUEUE_TOKENS)
            )
            bench.overload(Server("ours", url, nim=True))
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.results, indent=2))


def _peers(directory: Path, logs: Path, up: contextlib.ExitStack) -> list[Server]:
    found = []
    wanted = [
        *(("PEERS", peer, kind) for kind in ("torch", "onnx", "openvino", "flashrank")),
        *(("INFINITY", infinity, engine) for engine in ("torch", "optimum")),
    ]
    for variable, start, kind in wanted:
        if variable not in os.environ:
            print(f"{kind}: {variable} is not set", file=sys.stderr)
            continue
        try:
            found.append(up.enter_context(start(kind, directory, logs)))
        except RuntimeError as error:
            log = str(error).rpartition(" ")[2]
            last = Path(log).read_text(errors="replace").strip().splitlines()[-1:]
            print(f"{variable} {kind} does not start: {last}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
