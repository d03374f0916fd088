"""The cluster that the user's kubeconfig points at: used as it is, never changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from localcluster import files, state
from localcluster.console import Console
from localcluster.errors import ClusterError, PrerequisiteError
from localcluster.health import ComponentHealth
from localcluster.layout import Layout


@dataclass(frozen=True)
class CurrentContext:
    """The current context, copied into this directory's kubeconfig."""

    layout: Layout
    name: str
    console: Console

    def binaries(self) -> None:
        """Check for kubectl: nothing else runs on this machine."""
        self._kubectl_program()

    def up(self) -> None:
        """Copy the current context, with its credentials in it."""
        self.layout.root.mkdir(parents=True, exist_ok=True)
        content = self._kubectl("config", "view", "--minify", "--flatten", "--output=json")
        files.write(self.layout.kubeconfig, content, mode=0o600)
        state.save(self.layout, state.State(state.CURRENT, self.name))
        self._kubectl("get", "--raw=/readyz", "--request-timeout=10s")
        context = self._kubectl("config", "current-context").strip()
        self.console.say(f"using the current context {context}: {self.layout.kubeconfig}")

    def down(self, *, purge: bool) -> None:
        """Forget the context; the cluster is somebody else's and stays."""
        files.remove(self.layout.kubeconfig)
        files.remove(self.layout.state)
        self.console.say("the cluster of the current context is left as it is")

    def status(self) -> list[ComponentHealth]:
        """Return whether the API server answers."""
        if not self.layout.kubeconfig.exists():
            return []
        try:
            self._kubectl(f"--kubeconfig={self.layout.kubeconfig}", "get", "--raw=/readyz")
        except ClusterError as error:
            return [ComponentHealth("kube-apiserver", None, False, str(error))]
        return [ComponentHealth("kube-apiserver", None, True, "of the current context")]

    def load_images(self, sources: list[str]) -> None:
        """Say how images get into a cluster that this machine does not run."""
        raise PrerequisiteError(
            f"CLUSTER=current: images cannot be loaded into a cluster elsewhere; push "
            f"{', '.join(sources)} to a registry that it can pull from, and use those names"
        )

    def _kubectl(self, *arguments: str) -> str:
        done = subprocess.run(
            [self._kubectl_program(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ,
            check=False,
        )
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments[:2])}: {done.stderr.strip()[-800:]}")
        return done.stdout

    def _kubectl_program(self) -> str:
        own = self.layout.bin / "kubectl"
        found = str(own) if own.is_file() else shutil.which("kubectl")
        if found is None:
            raise PrerequisiteError(
                "kubectl is not installed: install it, or run `cluster binaries`"
            )
        return str(Path(found))
