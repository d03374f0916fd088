"""The address on this machine: a port-forward that outlives the pods behind it.

`kubectl port-forward` ends with the pod it picked, so a small supervisor starts it again. Its
process id and start time are kept in `.cluster/demo.json`; only that process is ever stopped.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from shell import ROOT, STATE, DemoError, environment

_RECORD = STATE / "demo.json"
_FIRST_PORT = 8000


def start(name: str, namespace: str) -> str:
    """The base URL; a running forward of the same service is used again."""
    running = _running()
    if running is not None and running["service"] == f"{namespace}/{name}":
        return _wait(str(running["url"]))
    stop()
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = (STATE / "demo-forward.log").open("ab")
    process = subprocess.Popen(  # the supervisor must live on when the demo ends
        [sys.executable, str(Path(__file__)), name, namespace, str(port)],
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    record = {
        "pid": process.pid,
        "started": _start_time(process.pid),
        "service": f"{namespace}/{name}",
        "url": url,
    }
    _RECORD.write_text(json.dumps(record), encoding="utf-8")
    return _wait(url)


def stop() -> None:
    """End the forward that this demo started, if it still runs."""
    running = _running()
    if running is not None:
        os.killpg(int(running["pid"]), signal.SIGTERM)
    _RECORD.unlink(missing_ok=True)


def address() -> str | None:
    """The base URL of the running forward."""
    running = _running()
    return None if running is None else str(running["url"])


def _running() -> dict[str, str] | None:
    try:
        record: dict[str, str] = json.loads(_RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if _start_time(int(record["pid"])) == record["started"] else None


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat: a process id alone may belong to somebody else by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def _free_port() -> int:
    for port in range(_FIRST_PORT, _FIRST_PORT + 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DemoError(f"no free port between {_FIRST_PORT} and {_FIRST_PORT + 99}")


def _wait(url: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/v1/health/ready", timeout=5):
                return url
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise DemoError(f"{url} does not answer; see {STATE / 'demo-forward.log'}")


def _supervise(name: str, namespace: str, port: str) -> None:
    command = ["kubectl", "port-forward", "-n", namespace, f"service/{name}", f"{port}:8000"]
    while True:
        subprocess.run(command, check=False)
        time.sleep(1)
        running = _running()
        if running is None or int(running["pid"]) != os.getpid():
            # The cluster was taken down, and the record with it.
            return


if __name__ == "__main__":
    _supervise(*sys.argv[1:4])
