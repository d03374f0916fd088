"""kubectl, as a user has it in hand, and waiting for a condition with a deadline."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Json = dict[str, Any]
T = TypeVar("T")


class KubectlError(Exception):
    """A command that failed; its message is what the user would read."""


class Kubectl:
    """One cluster, optionally one namespace."""

    def __init__(self, program: Path, kubeconfig: Path, namespace: str = "default") -> None:
        self.program, self.kubeconfig, self.namespace = program, kubeconfig, namespace

    def within(self, namespace: str) -> "Kubectl":
        """The same cluster, another namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return self.tool(self.program, "-n", self.namespace, *arguments, stdin=stdin)

    def tool(self, program: Path, *arguments: str, stdin: str | None = None) -> str:
        """Run a program with this cluster's kubeconfig. Raises KubectlError."""
        done = subprocess.run(
            [str(program), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        if done.returncode != 0:
            raise KubectlError(f"{program.name} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on beside the test; its output and errors are one text."""
        return subprocess.Popen(
            [str(self.program), "-n", self.namespace, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )

    def apply(self, manifest: Json) -> None:
        """`kubectl apply`, strict about unknown fields as always."""
        self("apply", "-f", "-", stdin=json.dumps(manifest))

    def get(self, kind: str, name: str) -> Json:
        """One object."""
        result: Json = json.loads(self("get", kind, name, "-o", "json"))
        return result

    def list(self, kinds: str, selector: str = "") -> list[Json]:
        """All objects of these kinds with these labels."""
        extra = ("-l", selector) if selector else ()
        result: list[Json] = json.loads(self("get", kinds, "-o", "json", *extra))["items"]
        return result


def eventually(
    probe: Callable[[], T], *, within: float, describe: Callable[[], str] = str, every: float = 0.5
) -> T:
    """The first truthy value of `probe`; fails with `describe()` after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {describe()}")
        time.sleep(every)


def until_served(kubectl: Kubectl, definition: str) -> None:
    """The API server serves what it defines; `kubectl wait` fails while it has no conditions."""

    def established() -> bool:
        conditions = kubectl.get("crd", definition).get("status", {}).get("conditions") or ()
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

    eventually(established, within=180)
