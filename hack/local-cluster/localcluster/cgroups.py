"""The control groups of one cluster, in cgroup v1 and v2.

``/local-cluster-<id>`` is made in every hierarchy: the kubelet keeps the pods
in ``kubepods`` below it, the cluster's own programs are in ``components``. A
kubelet without a root of its own would take the pods of the cluster next to it
for orphans and end them. The id comes from the cluster's directory alone, so
no damaged file and no chosen name ever leads to another cluster's processes.

They also are the one complete list of what belongs to the cluster: container
shims outlive their parents and have no record, but they never leave the group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from localcluster.console import Console
from localcluster.errors import ClusterError, PrerequisiteError

_MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy."""

    mount: Path
    controllers: frozenset[str]
    unified: bool


def hierarchies() -> list[Hierarchy]:
    """Return the mounted hierarchies; fail when there is none to write to."""
    found = []
    for line in _MOUNTS.read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind == "cgroup2":
            path = Path(mount)
            controllers = frozenset((path / "cgroup.controllers").read_text().split())
            found.append(Hierarchy(path, controllers, unified=True))
        elif kind == "cgroup" and "rw" in options.split(","):
            found.append(Hierarchy(Path(mount), frozenset(options.split(",")), unified=False))
    if not found:
        raise PrerequisiteError(
            "no cgroup file system is mounted: mount one at /sys/fs/cgroup, or use a machine "
            "(not an unprivileged container) that has it"
        )
    return found


@dataclass(frozen=True)
class ClusterCgroup:
    """The groups of the cluster with this id (see :attr:`Layout.id`)."""

    id: str

    @property
    def root(self) -> str:
        """The path that the kubelet is told, below every hierarchy's mount."""
        return f"/local-cluster-{self.id}"

    def create(self) -> None:
        """Make the groups in every hierarchy; those that exist stay as they are."""
        try:
            self._create()
        except OSError as error:
            raise PrerequisiteError(
                f"control groups cannot be made here ({error}): use a machine, or a privileged "
                "container, whose /sys/fs/cgroup can be written to"
            ) from error

    def _create(self) -> None:
        for hierarchy in hierarchies():
            top = hierarchy.mount / self.root.lstrip("/")
            for group in (top, top / "components"):
                group.mkdir(exist_ok=True)
                if "cpuset" in hierarchy.controllers and not hierarchy.unified:
                    _inherit_cpuset(group)
            if hierarchy.unified:
                _delegate_controllers(hierarchy.mount, hierarchy.controllers)
                _delegate_controllers(top, hierarchy.controllers)
            _give_weight(top, 2)
            _give_weight(top / "components", 8)

    def join(self) -> None:
        """Move the calling process into ``components``, in every hierarchy."""
        for hierarchy in hierarchies():
            group = hierarchy.mount / self.root.lstrip("/") / "components"
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def processes(self) -> set[int]:
        """Return every process of the cluster: components, shims, containers."""
        pids: set[int] = set()
        for group in self._groups():
            with contextlib.suppress(OSError):
                pids.update(int(pid) for pid in (group / "cgroup.procs").read_text().split())
        return pids - {os.getpid(), 0}

    def kill_all(self, console: Console) -> int:
        """End every process of the cluster by SIGKILL; return how many there were."""
        seen: set[int] = set()

        def all_gone() -> bool:
            pids = self.processes()
            seen.update(pids)
            for pid in pids:
                self._kill(pid)
            self._thaw()
            return not pids

        console.wait_for(
            "the cluster's processes to end",
            all_gone,
            timeout_seconds=30,
            explain=lambda: f"these do not end: {sorted(self.processes())}",
        )
        return len(seen)

    def remove(self) -> None:
        """Remove the groups from every hierarchy; no process may be left in them."""
        deadline = time.monotonic() + 10
        for group in self._groups():
            while True:
                try:
                    group.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError as error:
                    # The kernel lets go of a group a moment after its last process.
                    if time.monotonic() > deadline:
                        raise ClusterError(f"cgroup {group} cannot be removed: {error}") from error
                    time.sleep(0.02)

    def _kill(self, pid: int) -> None:
        """Send SIGKILL to a process, provided that it still is one of the cluster's."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            descriptor = os.pidfd_open(pid)
            try:
                if f":{self.root}/" in Path(f"/proc/{pid}/cgroup").read_text():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def _groups(self) -> list[Path]:
        """Every group of the cluster, the innermost first."""
        return [
            Path(directory)
            for hierarchy in hierarchies()
            for directory, _, _ in os.walk(hierarchy.mount / self.root.lstrip("/"), topdown=False)
        ]

    def _thaw(self) -> None:
        """Let frozen containers (cgroup v1) run, or SIGKILL would never reach them."""
        for group in self._groups():
            state = group / "freezer.state"
            with contextlib.suppress(OSError):
                if state.exists() and state.read_text().strip() != "THAWED":
                    state.write_text("THAWED")


def _inherit_cpuset(group: Path) -> None:
    """Copy CPUs and memory nodes from the parent: an empty v1 cpuset takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (group / name).read_text().strip():
            (group / name).write_text((group.parent / name).read_text())


def _give_weight(group: Path, times: int) -> None:
    """So much more of a busy processor than a group has by default.

    The cluster weighs as two programs of the host: with one, a busy host starves its API server;
    with many, pods that take what they get starve who talks to them from the host. Within it the
    components come first, as on a node whose system has its share reserved.
    """
    for name, usual in (("cpu.shares", 1024), ("cpu.weight", 100)):
        # Neither in a hierarchy without the controller, nor before a v2 parent delegates it.
        with contextlib.suppress(OSError):
            if (group / name).exists():
                (group / name).write_text(str(times * usual))


def _delegate_controllers(group: Path, controllers: frozenset[str]) -> None:
    """Enable for the children of a v2 group what the hierarchy offers."""
    for controller in sorted(controllers):
        # Some controllers cannot be delegated here; the kubelet names what it misses.
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
