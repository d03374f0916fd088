"""Where things are: the cluster's directory, its name, and how the node sees both.

Inside the node's mount namespace the cluster directory is bound at a short,
fixed place (:data:`NODE_DIR`). Component configuration only speaks of that
place: no path is ever too long for a Unix socket, and none changes with the
checkout.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

TOOL_DIR = Path(__file__).resolve().parent.parent
REPOSITORY = TOOL_DIR.parent.parent

NODE_DIR = Path("/run/cluster")
NODE_BIN = Path("/run/cluster-bin")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class Layout:
    """The directory of one cluster and the names of what is in it."""

    root: Path
    bin: Path

    @classmethod
    def at(cls, directory: Path) -> Layout:
        """Lay out ``directory``; ``RERANKER_CLUSTER_BIN`` shares binaries between clusters."""
        root = directory.expanduser().resolve()
        shared = os.environ.get("RERANKER_CLUSTER_BIN")
        return cls(root=root, bin=Path(shared).expanduser().resolve() if shared else root / "bin")

    @property
    def id(self) -> str:
        """Twelve hex digits that stand for this directory on this machine."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]

    @property
    def default_name(self) -> str:
        """A name for the cluster that another directory is unlikely to have."""
        parts = [part for part in self.root.parts[1:] if part != ".cluster"]
        slug = re.sub(r"[^a-z0-9]+", "-", (parts[-1] if parts else "root").lower()).strip("-")
        return f"{slug[:24].strip('-') or 'cluster'}-{self.id[:6]}"

    @property
    def state(self) -> Path:
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"


def valid_name(name: str) -> bool:
    """Tell whether ``name`` can name the node, a cgroup and a kind cluster."""
    return _NAME.fullmatch(name) is not None
