"""A cluster under test, driven through the same command line as its users'."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.layout import TOOL_DIR, Layout

_WORKLOAD = Path(__file__).with_name("workload.yaml")
NAMESPACE = "selftest"


def check(truth: object, what: str) -> None:
    """Print a line for a check that holds; end the test where one does not."""
    if not truth:
        raise SystemExit(f"FAILED: {what}")
    print(f"  ok: {what}", flush=True)


@dataclass(frozen=True)
class TestedCluster:
    """One cluster in one directory."""

    layout: Layout

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of ``cluster`` for this directory."""
        return [
            *(sys.executable, str(TOOL_DIR / "cluster")),
            *(f"--dir={self.layout.root}", *arguments),
        ]

    def run(self, *arguments: str) -> str:
        """Run a ``cluster`` command that must succeed; return what it printed."""
        began = time.monotonic()
        environment = {**os.environ, "CLUSTER": "local"}
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=environment, check=False
        )
        shown = f"{self.layout.root.name}: cluster {' '.join(arguments)}"
        print(f"  {shown}: {time.monotonic() - began:.1f} s", flush=True)
        if done.returncode != 0:
            raise SystemExit(f"FAILED: {shown}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output."""
        done = subprocess.run(
            [self.layout.bin / "kubectl", f"--kubeconfig={self.layout.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"FAILED: kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return objects of the test's namespace."""
        answer = self.kubectl("get", f"--namespace={NAMESPACE}", "--output=json", *arguments)
        value: dict[str, Any] = json.loads(answer)
        return value

    def records(self) -> dict[str, int]:
        """Return the recorded process id of every component."""
        found = sorted(self.layout.run.glob("*.json"))
        return {path.stem: int(json.loads(path.read_text())["pid"]) for path in found}

    def kill_recorded(self) -> None:
        """Take the recorded processes away at once, as a power loss would."""
        for pid in self.records().values():
            os.kill(pid, signal.SIGKILL)

    def kill_up_at(self, line: str) -> None:
        """Start ``up`` and kill it, with SIGKILL, when it prints ``line``."""
        with subprocess.Popen(
            self.command("up"),
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CLUSTER": "local"},
        ) as process:
            for printed in process.stderr or ():
                if line in printed:
                    process.kill()
                    print(f"  {self.layout.root.name}: up killed at: {line}", flush=True)
                    return
        raise SystemExit(f"FAILED: up never printed {line!r}")

    def apply_workload(self) -> None:
        """Start the test's pods, Service and volume, and wait for them."""
        self.kubectl("apply", "--filename=-", stdin=_WORKLOAD.read_text())
        self.wait_for_workload()

    def wait_for_workload(self) -> None:
        """Wait until both pods are ready in their present form."""
        options = (f"--namespace={NAMESPACE}", "--timeout=90s")
        self.kubectl("rollout", "status", "deployment/web", *options)
        self.kubectl("wait", "pod", "--selector=app=web", "--for=condition=Ready", *options)

    def exec(self, script: str) -> str:
        """Run a shell script in one of the pods."""
        return self.kubectl(
            "exec", f"--namespace={NAMESPACE}", "deployment/web", "--", "sh", "-ec", script
        )

    def service(self) -> tuple[str, int]:
        """Return the Service's cluster address and its node port."""
        spec = self.get("service", "web")["spec"]
        return spec["clusterIP"], spec["ports"][0]["nodePort"]

    def node_address(self) -> str:
        """Return the address at which the host reaches the node."""
        nodes = self.get("nodes")["items"]
        return str(nodes[0]["status"]["addresses"][0]["address"])

    def restarts(self) -> int:
        """Return how often the test's containers were restarted."""
        pods = self.get("pods", "--selector=app=web")["items"]
        return sum(s["restartCount"] for pod in pods for s in pod["status"]["containerStatuses"])


def fetch(url: str) -> str:
    """Return what a URL answers, without any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return str(answer.read().decode()).strip()


def eventually(what: str, attempt: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until ``attempt`` is true; errors of the network count as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if attempt():
                print(f"  ok: {what}", flush=True)
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"FAILED: {what}: not within {seconds:.0f} s")


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
