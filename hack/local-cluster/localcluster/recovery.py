"""Getting over what a crash, a power loss or a SIGKILL left behind.

Two cases. Processes, links and records of a node that is gone are swept away;
the kernel has removed its mounts and addresses with its namespaces. Stores
that were cut off while writing (etcd runs without fsync) are kept when they
still open; when they do not, the cluster starts again without them and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from localcluster import etcd, files, namespaces, network, state
from localcluster.addressing import Addresses
from localcluster.cgroups import ClusterCgroup
from localcluster.components import Component
from localcluster.console import Console
from localcluster.health import etcd_problem
from localcluster.images import ImageStoreError
from localcluster.layout import Layout
from localcluster.runner import ComponentFailedError, Runner

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
    r"no space left on device|disk quota exceeded|address already in use|permission denied"
    r"|no answer in|signal: killed|cannot allocate memory|too many open files",
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


def start_etcd(
    layout: Layout, runner: Runner, component: Component, clients: Sequence[str]
) -> None:
    """Start etcd; when it cannot use its data, set that aside and start from nothing.

    ``clients`` are the components that remember what was in it: those end with it.
    """

    def start() -> None:
        runner.ensure_ready(
            component,
            lambda: etcd_problem(runner.node) is None,
            timeout_seconds=_START_TIMEOUT_SECONDS,
            hopeless=etcd.drops_writes,
        )

    data = layout.data / "etcd"
    fresh = not (data / "member").exists()
    try:
        start()
    except ComponentFailedError as failed:
        damaged = looks_damaged(failed.output) or etcd.drops_writes(failed.output)
        if fresh or not damaged:
            raise
    else:
        return
    for name in (*clients, component.name):
        runner.stop(name)
    aside = layout.data / "etcd.damaged"
    files.remove(aside)
    # The node has the parent directory bound, not this one: a rename is seen there.
    data.rename(aside)
    data.mkdir(mode=0o700)
    runner.console.say(
        f"etcd cannot use its data, which is now in {aside}: the cluster starts empty, apply "
        f"your manifests again (files of old volumes are still in {layout.data / 'storage'})"
    )
    start()


def start_containerd(
    layout: Layout, runner: Runner, containerd: Component, load_images: Callable[[], None]
) -> None:
    """Start containerd and load the cluster's own images.

    An image store that cannot be read or added to is given up, since it only
    holds copies; never while a kubelet may be running pods from it.
    """

    def start() -> None:
        # It comes up without its store, too: only asking for images tells.
        runner.ensure_ready(
            containerd,
            lambda: runner.node.succeeds("ctr", "version"),
            timeout_seconds=_START_TIMEOUT_SECONDS,
        )
        load_images()

    try:
        start()
    except ComponentFailedError as failed:
        if runner.runs("kubelet") or not looks_damaged(failed.output):
            raise
    except ImageStoreError as error:
        if runner.runs("kubelet") or _NOT_DAMAGED.search(str(error)):
            raise
    else:
        return
    runner.stop(containerd.name)
    files.remove(layout.data / "containerd")
    runner.console.say("containerd cannot use its image store: load the project's images again")
    start()
