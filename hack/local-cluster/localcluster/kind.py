"""The cluster where a Docker engine and kind are at hand: kind makes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from localcluster import files, state
from localcluster.console import Console
from localcluster.errors import ClusterError, PrerequisiteError
from localcluster.health import ComponentHealth
from localcluster.layout import Layout

_TIMEOUT_SECONDS = 600


def is_available() -> bool:
    """Tell whether kind is installed and a Docker engine answers."""
    if shutil.which("kind") is None or shutil.which("docker") is None:
        return False
    try:
        _run(["docker", "version", "--format={{.Server.Version}}"])
    except (ClusterError, subprocess.TimeoutExpired):
        return False
    return True


@dataclass(frozen=True)
class KindCluster:
    """A kind cluster whose kubeconfig is in this directory."""

    layout: Layout
    name: str
    console: Console

    def binaries(self) -> None:
        """Check that kind is there: its node image brings the rest."""
        if shutil.which("kind") is None:
            raise PrerequisiteError("kind is not installed: see https://kind.sigs.k8s.io")

    def up(self) -> None:
        """Create the cluster unless it exists; write its kubeconfig either way."""
        self.binaries()
        self.layout.root.mkdir(parents=True, exist_ok=True)
        if self._exists():
            self._kind("export", "kubeconfig", f"--kubeconfig={self.layout.kubeconfig}")
            self.console.say(f"kind cluster {self.name} is up already")
        else:
            state.save(self.layout, state.State(state.KIND, self.name))
            self.console.run(
                f"kind create cluster {self.name}",
                [
                    *("kind", "create", "cluster", f"--name={self.name}"),
                    *(f"--kubeconfig={self.layout.kubeconfig}", "--wait=180s"),
                ],
                log=self.layout.logs / "kind.log",
            )
            self.console.say(f"kind cluster {self.name} is up: {self.layout.kubeconfig}")
        self.layout.kubeconfig.chmod(0o600)

    def down(self, *, purge: bool) -> None:
        """Delete the cluster and what this directory says of it."""
        self._kind("delete", "cluster")
        files.remove(self.layout.kubeconfig)
        files.remove(self.layout.state)
        self.console.say(f"kind cluster {self.name} is down")

    def status(self) -> list[ComponentHealth]:
        """Return one line a node: kind looks after the rest."""
        if not self._exists():
            return []
        nodes = self._kind("get", "nodes").split()
        return [ComponentHealth(node, None, True, "made by kind") for node in nodes]

    def load_images(self, sources: list[str]) -> None:
        """Load archives, or images of buildah's or Docker's store."""
        for source in sources:
            began = self.console.elapsed
            if Path(source).is_file():
                self._kind("load", "image-archive", source)
            elif shutil.which("buildah") is None:
                self._kind("load", "docker-image", source)
            else:
                self._load_from_buildah(source)
            self.console.say(f"loaded {source} ({self.console.elapsed - began:.1f} s)")

    def _load_from_buildah(self, name: str) -> None:
        with tempfile.TemporaryDirectory(dir=self.layout.root, prefix="image-") as directory:
            archive = Path(directory, "image.tar")
            _run(["buildah", "push", "--quiet", name, f"docker-archive:{archive}:{name}"])
            self._kind("load", "image-archive", str(archive))

    def _exists(self) -> bool:
        return self.name in _run(["kind", "get", "clusters"]).split()

    def _kind(self, *arguments: str) -> str:
        return _run(["kind", *arguments, f"--name={self.name}"])


def _run(argv: list[str]) -> str:
    # kind needs the user's own environment: Docker's context is in it.
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{argv[0]} is not installed") from error
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(argv[:3])}: {done.stderr.strip()[-800:]}")
    return done.stdout
