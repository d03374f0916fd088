"""The cluster's programs and the tests' servers: built once from pinned Go modules, then reused.

``binaries/<tool>/go.mod`` and ``go.sum`` pin every tool. A tool is built again
only when its stamp changes: the module files, its own sources and the flags.
Programs appear by rename and the stamp is written last, so a killed build is
simply built again. Several clusters may share the directory; a lock keeps two
builds apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import files
from localcluster.console import Console
from localcluster.errors import ClusterError, PrerequisiteError
from localcluster.layout import TOOL_DIR

_MODULES = TOOL_DIR / "binaries"
_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
_FREE_BYTES_TO_BUILD = 6 * 1024**3


@dataclass(frozen=True)
class Tool:
    """One Go module and the programs that it gives, by package path."""

    name: str
    programs: dict[str, str]
    pin: str | None = None
    version_variables: tuple[str, ...] = ()

    @property
    def module(self) -> Path:
        return _MODULES / self.name

    @property
    def version(self) -> str:
        """The pinned version, such as v1.35.4; ``v1`` for a program of our own."""
        if self.pin is None:
            return "v1"
        found = re.search(
            rf"^(?:require)?\s+{re.escape(self.pin)} (v\S+)",
            (self.module / "go.mod").read_text(),
            re.MULTILINE,
        )
        if found is None:
            raise ClusterError(f"{self.module}/go.mod does not require {self.pin}")
        return found[1]

    @property
    def linker_flags(self) -> str:
        values = {"version": self.version}
        major, _, minor = self.version.removeprefix("v").rpartition(".")[0].partition(".")
        values |= {"major": major, "minor": minor}
        settings = (f"-X {variable.format(**values)}" for variable in self.version_variables)
        return " ".join(["-s -w", *settings])

    @property
    def stamp(self) -> str:
        """A digest of everything that decides the programs' bytes, the Go release aside."""
        digest = hashlib.sha256(f"{self.linker_flags}\n{sorted(self.programs.items())}".encode())
        for path in sorted(self.module.iterdir()):
            if path.suffix in {".go", ".mod", ".sum"}:
                digest.update(f"{path.name}\0".encode() + path.read_bytes())
        return digest.hexdigest()


_COMPONENT_BASE = "k8s.io/component-base/version"
KUBERNETES = Tool(
    "kubernetes",
    {name: f"k8s.io/kubernetes/cmd/{name}" for name in (*_KUBERNETES, "kube-proxy", "kubectl")},
    "k8s.io/kubernetes",
    (
        f"{_COMPONENT_BASE}.gitVersion={{version}}",
        f"{_COMPONENT_BASE}.gitMajor={{major}}",
        f"{_COMPONENT_BASE}.gitMinor={{minor}}",
        f"{_COMPONENT_BASE}.gitTreeState=clean",
        "k8s.io/client-go/pkg/version.gitVersion={version}",
    ),
)
ETCD = Tool("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}, "go.etcd.io/etcd/server/v3")
COREDNS = Tool("coredns", {"coredns": "."}, "github.com/coredns/coredns")
PAUSE = Tool("pause", {"pause": "."})
LOCAL_PATH_PROVISIONER = Tool(
    "local-path-provisioner",
    {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
    "github.com/rancher/local-path-provisioner",
)
_MAJOR, _MINOR, *_ = KUBERNETES.version.removeprefix("v").split(".")
HELM = Tool(
    "helm",
    {"helm": "helm.sh/helm/v3/cmd/helm"},
    "helm.sh/helm/v3",
    (
        "helm.sh/helm/v3/internal/version.version={version}",
        # What `helm template` and `helm lint` take the cluster for; without it v1.20.
        f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={_MAJOR}",
        f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={_MINOR}",
        f"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor={_MAJOR}",
        f"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor={_MINOR}",
    ),
)
KUSTOMIZE = Tool(
    "kustomize",
    {"kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
    "sigs.k8s.io/kustomize/kustomize/v5",
    ("sigs.k8s.io/kustomize/api/provenance.version={version}",),
)
TOOLS = (KUBERNETES, ETCD, COREDNS, PAUSE, LOCAL_PATH_PROVISIONER, HELM, KUSTOMIZE)

REGISTRY = Tool(
    "registry",
    {"registry": "github.com/distribution/distribution/v3/cmd/registry"},
    "github.com/distribution/distribution/v3",
    ("github.com/distribution/distribution/v3/version.version={version}",),
)
MINIO = Tool("minio", {"minio": "github.com/minio/minio"}, "github.com/minio/minio")
#: Real servers that tests start on a port of their own.
TEST_TOOLS = (REGISTRY, MINIO)
#: By itself: it takes longer to build than all the others together.
KEDA = Tool(
    "keda",
    {
        "keda-operator": "github.com/kedacore/keda/v2/cmd/operator",
        "keda-adapter": "github.com/kedacore/keda/v2/cmd/adapter",
    },
    "github.com/kedacore/keda/v2",
    ("github.com/kedacore/keda/v2/version.Version={version}",),
)


def stamp_of(program: str) -> str:
    """Return the stamp of the tool that a program comes from."""
    return next(tool.stamp for tool in TOOLS if program in tool.programs)


def missing(directory: Path, wanted: Sequence[Tool] = TOOLS) -> list[Tool]:
    """Return the wanted tools that are not in ``directory`` in the pinned version."""
    return [tool for tool in wanted if not _is_built(tool, directory)]


def ensure(directory: Path, logs: Path, console: Console, wanted: Sequence[Tool] = TOOLS) -> None:
    """Build what is missing; does nothing, and needs no Go, when all is there."""
    if not missing(directory, wanted):
        return
    directory.mkdir(parents=True, exist_ok=True)
    with _build_lock(directory, console):
        for abandoned in directory.glob(".building-*"):
            files.remove(abandoned)
        tools = missing(directory, wanted)
        if tools:
            _check_can_build(directory, tools)
        for number, tool in enumerate(tools, start=1):
            console.say(f"building {tool.name} {tool.version} ({number} of {len(tools)})")
            _build(tool, directory, logs / f"build-{tool.name}.log", console)


def _is_built(tool: Tool, directory: Path) -> bool:
    stamp = files.read_json(_stamp_path(tool, directory)).get("stamp")
    return stamp == tool.stamp and all((directory / name).is_file() for name in tool.programs)


def _stamp_path(tool: Tool, directory: Path) -> Path:
    return directory / ".stamps" / f"{tool.name}.json"


@contextlib.contextmanager
def _build_lock(directory: Path, console: Console) -> Iterator[None]:
    with (directory / ".lock").open("w") as stream:

        def locked() -> bool:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        console.wait_for("another build of the binaries to end", locked, timeout_seconds=3600)
        yield


def _check_can_build(directory: Path, tools: list[Tool]) -> None:
    if shutil.which("go") is None:
        raise PrerequisiteError(
            "Go is not installed: install Go 1.26 or newer and put `go` on PATH "
            "(it builds Kubernetes once), or set RERANKER_CLUSTER_BIN to a directory "
            "with the binaries"
        )
    free = shutil.disk_usage(directory).free
    if free < _FREE_BYTES_TO_BUILD:
        raise PrerequisiteError(
            f"building the binaries takes {_FREE_BYTES_TO_BUILD / 1024**3:.0f} GiB of disk; "
            f"{directory} has {free / 1024**3:.1f} GiB left"
        )
    for tool in tools:
        # Asks each module: its go directive may select another toolchain.
        answer = subprocess.run(
            ["go", "env", "GOVERSION"],
            cwd=tool.module,
            capture_output=True,
            text=True,
            check=False,
        )
        wanted = re.search(r"^go (\S+)", (tool.module / "go.mod").read_text(), re.MULTILINE)
        if answer.returncode != 0:
            raise PrerequisiteError(
                f"{tool.name} needs Go {wanted[1] if wanted else '1.26'}: "
                f"{answer.stderr.strip() or 'the installed Go is older'}"
            )


def _build(tool: Tool, directory: Path, log: Path, console: Console) -> None:
    began = console.elapsed
    environment = {**os.environ, "CGO_ENABLED": "0"}
    environment.pop("GOFLAGS", None)
    with tempfile.TemporaryDirectory(dir=directory, prefix=f".building-{tool.name}-") as making:
        # One program may have a name of its own; several are named after their packages.
        output = f"{making}/{next(iter(tool.programs))}" if len(tool.programs) == 1 else making
        console.run(
            f"build of {tool.name}",
            [
                *("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", tool.linker_flags),
                *("-o", output, *tool.programs.values()),
            ],
            log=log,
            cwd=tool.module,
            env=environment,
        )
        for name, package in tool.programs.items():
            built = name if len(tool.programs) == 1 else package.rpartition("/")[2]
            Path(making, built).replace(directory / name)
    files.write_json(_stamp_path(tool, directory), {"stamp": tool.stamp, "version": tool.version})
    console.say(f"built {tool.name} {tool.version} in {console.elapsed - began:.0f} s")
