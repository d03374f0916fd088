"""A cluster for tests: kind or the local one, behind the same few calls."""

import abc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.kubectl import Kubectl

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = Path(os.environ.get("RERANKER_TEST_CLUSTER", ROOT / ".cluster-test"))
BINARIES = Path(os.environ.get("RERANKER_CLUSTER_BIN", ROOT / ".cluster/bin"))
PREFIX = "localhost/reranker-operator"
#: The operator's namespace.
SYSTEM = "reranker-system"
#: kind's default range of Service addresses.
_KIND_SERVICES = "10.96.0.0/16"


class Cluster(abc.ABC):
    """Kubeconfig, tools and images of a running cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubectl = Kubectl(BINARIES / "kubectl", kubeconfig)

    def helm(self, *arguments: str) -> str:
        """Run helm against the cluster."""
        return self.kubectl.tool(BINARIES / "helm", *arguments)

    def install(self, chart: str, *, tag: str | None = None) -> None:
        """Install or upgrade one of our charts as a user does; `tag` is that of all images."""
        values = ("--set", f"image.tag={tag}", "--set", f"images.tag={tag}") if tag else ()
        self.helm(
            "upgrade", "--install", chart, str(ROOT / "charts" / chart), *values,
            "-n", SYSTEM, "--create-namespace", "--wait", "--timeout", "3m",
        )  # fmt: skip

    @abc.abstractmethod
    def load(self, *images: str) -> None:
        """Bring images from this machine to the nodes."""


def tag_image(image: str, other: str) -> None:
    """Another reference to an image of this machine."""
    tool = "docker" if has_kind() else "buildah"
    subprocess.run([tool, "tag", image, other], check=True, capture_output=True)


class LocalCluster(Cluster):
    """hack/local-cluster in a directory of the tests' own."""

    def __init__(self) -> None:
        _local("up")
        super().__init__(DIRECTORY / "kubeconfig")

    def load(self, *images: str) -> None:
        """Layers that are there already are skipped."""
        _local("load-image", *images)


class KindCluster(Cluster):
    """pytest-kind's cluster. Tests talk to Services, so this host gets a route to them."""

    def __init__(self) -> None:
        from pytest_kind import KindCluster as PytestKind  # noqa: PLC0415 - only where Docker is

        # Named, or pytest-kind downloads versions of its own.
        programs = {"kind_path": Path(shutil.which("kind") or "kind"),
                    "kubectl_path": BINARIES / "kubectl"}  # fmt: skip
        self._kind = PytestKind("reranker-test", **programs)
        self._kind.create()
        super().__init__(Path(self._kind.kubeconfig_path).resolve())
        address = "{.items[0].status.addresses[?(@.type=='InternalIP')].address}"
        node = self.kubectl("get", "nodes", "-o", f"jsonpath={address}")
        subprocess.run(["ip", "route", "replace", _KIND_SERVICES, "via", node], check=True)

    def load(self, *images: str) -> None:
        """By `kind load`."""
        for image in images:
            self._kind.load_docker_image(image)

    def delete(self) -> None:
        """Remove the cluster and the route."""
        subprocess.run(["ip", "route", "del", _KIND_SERVICES], check=False)
        self._kind.delete()


def has_kind() -> bool:
    """A Docker engine answers and kind is installed."""
    if os.environ.get("CLUSTER") == "local" or not shutil.which("kind"):
        return False
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


@contextmanager
def open_cluster(*, keep: bool) -> Iterator[Cluster]:
    """Bring a cluster up and, unless `keep`, down again."""
    if has_kind():
        kind = KindCluster()
        try:
            yield kind
        finally:
            if not keep:
                kind.delete()
        return
    try:
        yield LocalCluster()
    finally:
        if not keep:
            _local("down")


def _local(*arguments: str) -> None:
    command = [str(ROOT / "hack/local-cluster/cluster"), "--dir", str(DIRECTORY), *arguments]
    environment = {**os.environ, "CLUSTER": "local", "RERANKER_CLUSTER_BIN": str(BINARIES)}
    # Its progress is worth seeing: bringing a cluster up takes a while.
    subprocess.run(command, check=True, env=environment, stdout=sys.__stderr__)
