"""The operator as a process: started from the sources, watched through /proc and its metrics."""

import asyncio
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from support.bare_control_plane import end
from support.operator_process import start_operator

_TICKS = os.sysconf("SC_CLK_TCK")


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


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_of(pid: int, peak: bool = False) -> float:
    """MiB of a process that are resident now, or were at most."""
    wanted = "VmHWM" if peak else "VmRSS"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(wanted):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {wanted}")


class OperatorProcess:
    """One replica."""

    def __init__(self, kubeconfig: Path, log: Path, port: int, settings: dict[str, str]) -> None:
        self._kubeconfig = self._way = kubeconfig
        self._log = log
        self._settings = settings | {"http_port": str(port)}
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, kubeconfig: Path | None = None) -> None:
        """With another way to the API server, where one is given."""
        self._way = kubeconfig or self._kubeconfig
        with self._log.open("ab") as log:
            self._process = start_operator(self._way, self._settings, stdout=log, stderr=log)

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
    def _pid(self) -> int:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the operator has ended; see {self._log}")
        return self._process.pid

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return cpu_of(self._pid)

    def memory(self, peak: bool = False) -> float:
        """MiB resident now, or at most so far."""
        return memory_of(self._pid, peak)

    async def calm(self) -> bool:
        """All that was there at the start was looked at, and nothing is due."""
        try:
            ready = await self._client.get("/readyz")
        except httpx.HTTPError:
            return False
        if ready.status_code != 200:
            return False
        return not any(
            sample.value for sample in await self._samples()
            if sample.name in ("reranker_operator_queue_depth", "reranker_operator_queue_working")
        )  # fmt: skip

    async def until_calm(self, seconds: float) -> None:
        """Calm for a second."""
        quiet = 0
        async with asyncio.timeout(seconds):
            while quiet < 5:
                quiet = quiet + 1 if await self.calm() else 0
                await asyncio.sleep(0.2)

    async def calls(self) -> Calls:
        reads = writes = events = 0.0
        for sample in await self._samples():
            of, value = sample.labels, sample.value
            if sample.name != "reranker_operator_api_requests_total" or of["resource"] == "leases":
                continue
            if of["verb"] in ("get", "list"):
                reads += value
            elif of["resource"] == "events":
                events += value
            else:
                writes += value
        return Calls(reads, writes, events)

    async def _samples(self) -> list[Sample]:
        text = (await self._client.get("/metrics")).text
        return [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]
