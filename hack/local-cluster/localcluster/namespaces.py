"""The node's namespaces: one process holds them, every component enters them.

A mount and a network namespace per cluster keep ports, interfaces, iptables
rules, mounts and Unix sockets apart from the host and from the cluster next
to it, and let the kernel clean up: with the last process they are gone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from localcluster import commands, processes
from localcluster.console import Console, last_lines
from localcluster.errors import ClusterError
from localcluster.layout import TOOL_DIR, Layout

_SCRIPT = TOOL_DIR / "node-namespaces.sh"
COMPONENT = "node"
_READY = Path("/run/node-ready")


@dataclass(frozen=True)
class Node:
    """The namespaces, held open by the process ``pid``."""

    pid: int

    @property
    def enter(self) -> list[str]:
        """The command line prefix that runs a program inside."""
        # nsenter, not `ip netns exec`: that one mounts a fresh /sys without cgroups.
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--"]

    def capture(self, *argv: str, stdin: str | None = None, timeout_seconds: float = 60) -> str:
        """Run a short command inside and return its output."""
        return commands.capture([*self.enter, *argv], stdin=stdin, timeout_seconds=timeout_seconds)

    def succeeds(self, *argv: str, timeout_seconds: float = 10) -> bool:
        """Run a short command inside and tell whether it ended well."""
        return commands.succeeds([*self.enter, *argv], timeout_seconds=timeout_seconds)

    @property
    def started(self) -> datetime:
        """When the namespaces were made, in the whole seconds that Kubernetes tells time in."""
        marker = self.path(_READY).stat()
        return datetime.fromtimestamp(int(marker.st_mtime), tz=UTC)

    def path(self, inside: Path) -> Path:
        """Return where the host sees a path of the node's file system."""
        return Path(f"/proc/{self.pid}/root{inside}")


def fingerprint(layout: Layout) -> str:
    """Return a digest of what the namespaces are made from."""
    return hashlib.sha256(_SCRIPT.read_bytes() + os.fsencode(layout.bin)).hexdigest()


def held(layout: Layout, *, current: bool = False) -> Node | None:
    """Return the node whose namespaces are open; ``current``: only if made as of today."""
    record = processes.live_record(layout.run / f"{COMPONENT}.json")
    if record is None or (current and record.spec != fingerprint(layout)):
        return None
    node = Node(record.identity.pid)
    return node if node.path(_READY).exists() else None


def create(layout: Layout, console: Console, join_cgroup: Callable[[], None]) -> Node:
    """Make fresh namespaces for the node."""
    # Volumes and images are the cluster's affair: no other user looks into them.
    layout.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in ("kubelet", "storage", "containerd", "etcd"):
        (layout.data / directory).mkdir(parents=True, exist_ok=True)
    (layout.logs / "pods").mkdir(parents=True, exist_ok=True)
    layout.tmp.mkdir(parents=True, exist_ok=True)
    log = layout.logs / f"{COMPONENT}.log"
    record = layout.run / f"{COMPONENT}.json"
    pid = processes.spawn(
        [
            *("unshare", "--mount", "--net", "--propagation=slave", "--"),
            *(str(_SCRIPT), str(layout.root), str(layout.bin)),
        ],
        record=record,
        spec=fingerprint(layout),
        log=log,
        env=commands.environment(),
        before_exec=join_cgroup,
    )
    node = Node(pid)

    def ready() -> bool:
        if processes.live_record(record) is None:
            raise ClusterError(f"the node's namespaces cannot be made: {last_lines(log)}")
        return node.path(_READY).exists()

    console.wait_for("the node's namespaces", ready, timeout_seconds=20)
    return node
