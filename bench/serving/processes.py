"""Servers of a benchmark: started, waited for, ended, and their processor time."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_START_SECONDS = 600
_TICK = os.sysconf("SC_CLK_TCK")


def end_with_servers() -> None:
    """When this process is told to end, its servers end first: they have sessions of their own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def free_port() -> int:
    """One that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[object],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    until: str | None = None,
    folder: Path | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process, ready when `until` answers 200. Raises RuntimeError when it ends or is late."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            # With its children, so that none of them outlives the benchmark.
            start_new_session=True,
        )
    try:
        if until is not None:
            _wait(process, until, log)
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    # The first one knows how to end the others, and what to tidy up after them.
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} has ended: {_last_words(log)}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"no answer in {_START_SECONDS} s from {process.args!r}: {_last_words(log)}")


def _last_words(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-5:])


@contextlib.contextmanager
def gateway(
    engine: Path, triton_port: int, log: Path, profile: Path | None = None, **settings: object
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Our gateway before a Triton; its process and its address. `profile` is for cProfile."""
    port = free_port()
    environment = {
        "ENGINE_DIR": engine,
        "TRITON_URL": f"127.0.0.1:{triton_port}",
        "TRITON_METRICS_URL": "",
        "HOST": "127.0.0.1",
        "HTTP_PORT": port,
        "METRICS_PORT": free_port(),
        "GRPC_PORT": free_port(),
        "DRAIN_DELAY_SECONDS": 0,
        **settings,
    }
    url = f"http://127.0.0.1:{port}"
    plain = ["-m", "reranker_gateway", "serve"]
    with running(
        [sys.executable, *([_HERE / "profiled.py", profile] if profile else plain)],
        log=log,
        environment={f"RERANKER_{key}": str(value) for key, value in environment.items()},
        until=f"{url}/v1/health/ready",
    ) as process:
        yield process, url


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def counters(url: str) -> dict[str, float]:
    """The gateway's metrics without labels."""
    found = {}
    with urllib.request.urlopen(f"{url}/v1/metrics", timeout=10) as answer:  # noqa: S310
        for line in answer.read().decode().splitlines():
            name, _, value = line.partition(" ")
            if name.startswith(("reranker_", "process_")) and "{" not in name:
                found[name] = float(value)
    return found
