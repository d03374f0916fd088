"""Getting over what a crash, a power loss or a SIGKILL left behind.

Two cases. Processes, links and records of a node that is gone are swept away;
the kernel has removed its mounts and addresses with its namespaces. Stores
that were cut off while writing (etcd runs without fsync) are kept when they
still open; when they do not, the cluster starts again without them and says so.
"""

from __future__ import annotations

import re

from localcluster import files, namespaces, network, state
from localcluster.addressing import Addresses
from localcluster.cgroups import ClusterCgroup
from localcluster.components import Component
from localcluster.console import Console
from localcluster.health import etcd_problem
from localcluster.layout import Layout
from localcluster.runner import ComponentEndedError, Runner

_START_TIMEOUT_SECONDS = 60
# What etcd, bbolt and containerd say about data that they cannot read.
_DAMAGED = re.compile(
    r"panic:|crc mismatch|corrupt|invalid database|checksum error|unexpected EOF"
    r"|unexpected fault address|failed to (?:read|open) WAL|file unexpectedly short"
    r"|slice bounds out of range|failed to recover|database file .* not found"
    r"|mvcc: cannot|version mismatch|invalid page",
    re.IGNORECASE,
)
# These must never cost the data, whatever else the program says on its way out.
_NOT_DAMAGED = re.compile(
    r"no space left on device|disk quota exceeded|address already in use|permission denied",
    re.IGNORECASE,
)


def looks_damaged(output: str) -> bool:
    """Tell whether a program that ended at its start complained about its stored data."""
    return bool(_DAMAGED.search(output)) and not _NOT_DAMAGED.search(output)


def node_stands(layout: Layout) -> bool:
    """Tell whether the node's namespaces are held and joined to the host."""
    known = state.load(layout)
    return (
        namespaces.held(layout, current=True) is not None
        and known is not None
        and known.index is not None
        and network.is_connected(Addresses(known.index), layout.root)
    )


def clear_leftovers(layout: Layout, cgroup: ClusterCgroup, console: Console) -> None:
    """Sweep away what is left of a node that no longer stands; a standing one is not touched."""
    if node_stands(layout):
        return
    ended = cgroup.kill_all(console)
    # The kubelet looks for a container in every group it finds, seconds for each.
    cgroup.remove()
    links = network.disconnect(layout.root)
    if ended or links:
        console.say(f"cleared what an earlier run left: {ended} processes, {len(links)} links")
    files.remove(layout.run)
    files.remove(layout.tmp)
    for checkpoint in (layout.data / "kubelet").glob("*_state"):
        # Half a checkpoint keeps the kubelet from starting; it makes new ones.
        checkpoint.unlink()


def start_etcd(layout: Layout, addresses: Addresses, runner: Runner, etcd: Component) -> None:
    """Start etcd; when it cannot read its data, set that aside and start from nothing."""

    def ready() -> bool:
        return etcd_problem(addresses) is None

    try:
        runner.ensure_ready(etcd, ready, timeout_seconds=_START_TIMEOUT_SECONDS)
    except ComponentEndedError as ended:
        data = layout.data / "etcd"
        if not (data / "member").exists() or not looks_damaged(ended.output):
            raise
    else:
        return
    aside = layout.data / "etcd.damaged"
    files.remove(aside)
    # The node has the parent directory bound, not this one: a rename is seen there.
    data.rename(aside)
    data.mkdir(mode=0o700)
    runner.console.say(
        f"etcd cannot read its data, which is now in {aside}: the cluster starts empty, apply "
        f"your manifests again (files of old volumes are still in {layout.data / 'storage'})"
    )
    runner.ensure_ready(etcd, ready, timeout_seconds=_START_TIMEOUT_SECONDS)


def start_containerd(layout: Layout, runner: Runner, containerd: Component) -> None:
    """Start containerd; when it cannot read its image store, start with an empty one."""

    def ready() -> bool:
        # A version check is answered only once all plugins are loaded.
        return runner.node.succeeds("ctr", "version")

    try:
        runner.ensure_ready(containerd, ready, timeout_seconds=_START_TIMEOUT_SECONDS)
    except ComponentEndedError as ended:
        if not looks_damaged(ended.output):
            raise
    else:
        return
    files.remove(layout.data / "containerd")
    runner.console.say("containerd cannot read its image store: load the project's images again")
    runner.ensure_ready(containerd, ready, timeout_seconds=_START_TIMEOUT_SECONDS)
