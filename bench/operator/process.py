"""The operator as a process: started from the sources, watched through /proc and its metrics."""

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
from control_plane import ROOT, end

_TICKS = os.sysconf("SC_CLK_TCK")
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.eE+-]+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Calls:
    """Requests to the API server so far, without watches and the Lease."""

    reads: float
    writes: float
    events: float

    def since(self, earlier: "Calls") -> "Calls":
        return Calls(
            self.reads - earlier.reads, self.writes - earlier.writes, self.events - earlier.events
        )


class OperatorProcess:
    """One replica."""

    def __init__(self, kubeconfig: Path, log: Path, port: int, settings: dict[str, str]) -> None:
        self._log = log
        self._port = port
        self._environment = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": os.pathsep.join(
                str(ROOT / part) for part in ("operator/src", "contracts/src")
            ),
            "RERANKER_OPERATOR_HTTP_PORT": str(port),
            **{f"RERANKER_OPERATOR_{name.upper()}": value for name, value in settings.items()},
        }
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
        self._process: subprocess.Popen[bytes] | None = None
        self._way: Path | None = None

    def start(self, kubeconfig: Path | None = None) -> None:
        """With another way to the API server, where one is given."""
        self._way = kubeconfig
        other = {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reranker_operator.main"],
                env=self._environment | other, stdout=log, stderr=log,
            )  # fmt: skip

    async def keep_running(self) -> None:
        """As a kubelet does, until cancelled."""
        while True:
            if self._process is not None and self._process.poll() is not None:
                self.start(self._way)
            await asyncio.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)

    @property
    def _proc(self) -> Path:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the operator has ended; see {self._log}")
        return Path(f"/proc/{self._process.pid}")

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self, peak: bool = False) -> float:
        """MiB resident now, or at most so far."""
        wanted = "VmHWM" if peak else "VmRSS"
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(wanted):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"no {wanted}")

    async def calm(self) -> bool:
        """All that was there at the start was looked at, and nothing is due."""
        try:
            ready = await self._client.get("/readyz")
        except httpx.HTTPError:
            return False
        if ready.status_code != 200:
            return False
        values = await self._values()
        return not any(
            values.get((f"reranker_operator_queue_{name}", "")) for name in ("depth", "working")
        )

    async def until_calm(self, seconds: float) -> None:
        """Calm for a second."""
        quiet = 0
        async with asyncio.timeout(seconds):
            while quiet < 5:
                quiet = quiet + 1 if await self.calm() else 0
                await asyncio.sleep(0.2)

    async def calls(self) -> Calls:
        reads = writes = events = 0.0
        for (name, labels), value in (await self._values()).items():
            of = dict(_LABEL.findall(labels))
            if name != "reranker_operator_api_requests_total" or of["resource"] == "leases":
                continue
            if of["verb"] in ("get", "list"):
                reads += value
            elif of["resource"] == "events":
                events += value
            else:
                writes += value
        return Calls(reads, writes, events)

    async def _values(self) -> dict[tuple[str, str], float]:
        text = (await self._client.get("/metrics")).text
        found = (_SERIES.match(line) for line in text.splitlines())
        return {(m[1], m[2] or ""): float(m[3]) for m in found if m}
