"""The cluster that is made of plain processes on this machine: up, down, status.

``up`` is one path for every case. A healthy cluster passes through its checks
and nothing is touched; after a crash, a power loss or a kill half way the same
steps find what is missing and make it again.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from localcluster import (
    addons,
    binaries,
    config,
    credentials,
    files,
    namespaces,
    network,
    prerequisites,
    recovery,
    state,
    system_images,
)
from localcluster.addressing import INDEXES, Addresses
from localcluster.api import Api
from localcluster.cgroups import ClusterCgroup
from localcluster.components import all_components
from localcluster.console import Console
from localcluster.errors import ClusterError
from localcluster.health import ComponentHealth, Health
from localcluster.images import ImageStore
from localcluster.layout import Layout
from localcluster.namespaces import Node
from localcluster.runner import Runner

_STORAGE = ("etcd", "kube-apiserver")
_CLIENTS = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
_KEPT_BY_DOWN = frozenset({"bin", "images", "lock"})


@dataclass(frozen=True)
class LocalCluster:
    """The local cluster in one directory."""

    layout: Layout
    name: str
    console: Console

    @property
    def cgroup(self) -> ClusterCgroup:
        return ClusterCgroup(self.layout.id)

    def binaries(self) -> None:
        """Build what the cluster runs."""
        binaries.ensure(self.layout.bin, self.layout.logs, self.console)
        system_images.ensure_busybox(self.layout.bin, self.console)

    def up(self) -> None:
        """Bring the cluster up, or what of it is not."""
        prerequisites.check(self.layout)
        prerequisites.ensure_packages(self.layout, self.console)
        self.binaries()
        node, addresses = self._ensure_node()
        had_objects = (self.layout.data / "etcd" / "member").exists()
        if credentials.create(self.layout.pki, self.name, addresses) and had_objects:
            self.console.say("new credentials: restart pods that talk to the API server")
        config.write_all(self.layout, self.name, addresses)
        files.write(
            self.layout.kubeconfig,
            credentials.admin_kubeconfig(self.layout.pki, self.name, addresses),
            mode=0o600,
        )
        health = self._health(addresses)
        if all(component.ready for component in health.report()):
            self.console.say(f"cluster {self.name} is up already")
            return
        self._start(node, addresses)
        self.console.say(f"cluster {self.name} is up; kubeconfig: {self.layout.kubeconfig}")

    def down(self, *, purge: bool) -> None:
        """Remove the cluster and everything it made outside of its directory."""
        ended = self.cgroup.kill_all(self.console)
        self.cgroup.remove()
        network.disconnect(self.layout.root)
        keep = frozenset({"lock"}) if purge else _KEPT_BY_DOWN
        for path in sorted(self.layout.root.iterdir()):
            if path.name not in keep:
                files.remove(path)
        self.console.say(f"cluster {self.name} is down ({ended} processes ended)")

    def status(self) -> list[ComponentHealth]:
        """Return every component with its process and whether it is ready."""
        known = state.load(self.layout)
        if known is None or known.index is None:
            return []
        return self._health(Addresses(known.index)).report()

    def load_images(self, sources: list[str]) -> None:
        """Load archives or images of buildah's store into the node."""
        store = self._image_store(self._running_node())
        for source in sources:
            store.load(source, self.console)

    def _health(self, addresses: Addresses) -> Health:
        manifests = self._manifests(addresses)
        node = namespaces.held(self.layout, current=True)
        return Health(self.layout, self.name, addresses, self._api(addresses), manifests, node)

    def _manifests(self, addresses: Addresses) -> addons.Manifests:
        authority = self.layout.pki / "ca.crt"
        return addons.render(
            addresses, self.layout.images, authority.read_bytes() if authority.exists() else b""
        )

    def _api(self, addresses: Addresses) -> Api:
        return Api(self.layout, addresses)

    def _running_node(self) -> Node:
        node = namespaces.held(self.layout)
        if node is None:
            raise ClusterError("the cluster is not running: bring it up first (make cluster)")
        return node

    def _image_store(self, node: Node) -> ImageStore:
        return ImageStore(self.layout, node, config.snapshotter(self.layout.root))

    def _start(self, node: Node, addresses: Addresses) -> None:
        api = self._api(addresses)
        runner = Runner(self.layout, node, self.cgroup, self.console)
        components = {entry.name: entry for entry in all_components(self.name, addresses)}
        recovery.start_etcd(self.layout, runner, components["etcd"], ("kube-apiserver", *_CLIENTS))
        # The API server needs seconds to come up: containerd and the images use them.
        runner.ensure(components["kube-apiserver"])
        recovery.start_containerd(
            self.layout, runner, components["containerd"], lambda: self._load_system_images(node)
        )
        runner.wait("the API server", api.is_ready, needs=_STORAGE)
        for name in _CLIENTS:
            runner.ensure(components[name])
        manifests = self._manifests(addresses)
        api.apply(manifests.text)
        needs = [*_STORAGE, "containerd", *_CLIENTS]
        runner.wait("the node", lambda: self._is_ready(api, node), needs=needs)
        runner.wait(
            "CoreDNS and the default StorageClass",
            lambda: addons.are_ready(api, manifests, node.started),
            needs=needs,
            explain=lambda: addons.explain(api),
        )

    def _ensure_node(self) -> tuple[Node, Addresses]:
        """Return the node's namespaces, joined to the host, and its addresses."""
        recovery.clear_leftovers(self.layout, self.cgroup, self.console)
        node, known = namespaces.held(self.layout), state.load(self.layout)
        if node is not None and known is not None and known.index is not None:
            return node, Addresses(known.index)
        prerequisites.check_kernel()
        self.cgroup.create()
        # Held until the link exists, which is what claims the range.
        with network.exclusive():
            addresses = self._claim_addresses(known)
            self.console.say(f"making node {self.name}, addresses {addresses.block}")
            node = namespaces.create(self.layout, self.console, self.cgroup.join)
            network.connect(node, addresses, self.layout.root)
        return node, addresses

    def _claim_addresses(self, known: state.State | None) -> Addresses:
        """Return the range that the cluster had before, or write down a free one."""
        if known is None or known.index is None:
            addresses = network.choose(zlib.crc32(self.name.encode()) % INDEXES)
            state.save(self.layout, state.State(state.LOCAL, self.name, addresses.index))
            return addresses
        addresses = Addresses(known.index)
        # A link lives on for a moment after the namespace that it led to.
        self.console.wait_for(
            f"address range {addresses.block}",
            lambda: network.conflict(addresses) is None,
            timeout_seconds=5,
            explain=lambda: (
                f"{network.conflict(addresses)}. What is in etcd has these addresses: "
                "free them, or take the cluster down and up for others"
            ),
        )
        return addresses

    def _load_system_images(self, node: Node) -> None:
        system_images.ensure_archives(self.layout.bin, self.layout.images, self.console)
        store = self._image_store(node)
        store.check()
        for image in system_images.IMAGES:
            store.load_archive(image.archive(self.layout.images), self.console)

    def _is_ready(self, api: Api, node: Node) -> bool:
        try:
            return api.node_is_ready(self.name, node.started)
        except ClusterError:
            return False
