"""The programs of a cluster and their command lines, in the order of starting.

Paths are those of the node's mount namespace. A component is restarted when
its fingerprint changes: the command line, the files it reads at start, or the
program itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from localcluster.addressing import API_PORT, Addresses
from localcluster.layout import NODE_BIN, NODE_DIR, Layout

_PKI = NODE_DIR / "pki"
_ETC = NODE_DIR / "etc"
ETCD_SOCKET = Path("/run/etcd/client.sock")
_ETCD_URL = f"unix://{ETCD_SOCKET}"
KUBE_PROXY_HEALTH_PORT = 10256
KUBELET_HEALTH_PORT = 10248


@dataclass(frozen=True)
class Component:
    """One program: what to run, and the files of the cluster it reads when it starts."""

    name: str
    argv: tuple[str, ...]
    program: str | None = None
    inputs: tuple[str, ...] = field(default=())

    def fingerprint(self, layout: Layout, program_stamp: Callable[[str], str]) -> str:
        """Return a digest of everything that would need a restart when it changes."""
        digest = hashlib.sha256(json.dumps(self.argv).encode())
        if self.program is not None:
            digest.update(program_stamp(self.program).encode())
        for name in self.inputs:
            digest.update((layout.root / name).read_bytes())
        return digest.hexdigest()


def all_components(node: str, addresses: Addresses) -> list[Component]:
    """Return every component in the order of starting."""
    return [
        _etcd(),
        _apiserver(addresses),
        _containerd(),
        _controller_manager(addresses),
        _scheduler(),
        _kubelet(node, addresses),
        _kube_proxy(node, addresses),
    ]


def _flags(program: str, values: dict[str, str]) -> tuple[str, ...]:
    return (str(NODE_BIN / program), *(f"--{name}={value}" for name, value in values.items()))


def _etcd() -> Component:
    peer = "http://127.0.0.1:2380"
    flags = {
        "name": "local",
        "data-dir": str(NODE_DIR / "data" / "etcd"),
        "listen-client-urls": _ETCD_URL,
        "advertise-client-urls": _ETCD_URL,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"local={peer}",
        # A test cluster's speed must not hang on the disk; recovery copes with the loss.
        "unsafe-no-fsync": "true",
        "auto-compaction-retention": "1h",
        "quota-backend-bytes": str(4 * 1024**3),
        "log-level": "warn",
    }
    return Component("etcd", _flags("etcd", flags), "etcd")


def _apiserver(addresses: Addresses) -> Component:
    flags = {
        "etcd-servers": _ETCD_URL,
        "bind-address": addresses.node,
        "advertise-address": addresses.node,
        "secure-port": str(API_PORT),
        "tls-cert-file": f"{_PKI}/apiserver.crt",
        "tls-private-key-file": f"{_PKI}/apiserver.key",
        "client-ca-file": f"{_PKI}/ca.crt",
        "anonymous-auth": "false",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-cluster-ip-range": addresses.services,
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": f"{_PKI}/service-account.pub",
        "service-account-signing-key-file": f"{_PKI}/service-account.key",
        "kubelet-certificate-authority": f"{_PKI}/ca.crt",
        "kubelet-client-certificate": f"{_PKI}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{_PKI}/apiserver-kubelet-client.key",
        # exec and logs would look up the node's host name otherwise.
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": f"{_PKI}/front-proxy-ca.crt",
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": f"{_PKI}/front-proxy.crt",
        "proxy-client-key-file": f"{_PKI}/front-proxy.key",
        "profiling": "false",
    }
    return Component(
        "kube-apiserver",
        _flags("kube-apiserver", flags),
        "kube-apiserver",
        ("pki/stamp.json", "pki/ca.crt"),
    )


def _containerd() -> Component:
    argv = ("containerd", "--config", f"{_ETC}/containerd.toml")
    return Component("containerd", argv, inputs=("etc/containerd.toml",))


def _controller_manager(addresses: Addresses) -> Component:
    kubeconfig = f"{_ETC}/controller-manager.kubeconfig"
    flags = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "allocate-node-cidrs": "true",
        "cluster-cidr": addresses.pods,
        "service-cluster-ip-range": addresses.services,
        "node-cidr-mask-size": "24",
        "root-ca-file": f"{_PKI}/ca.crt",
        "cluster-signing-cert-file": f"{_PKI}/ca.crt",
        "cluster-signing-key-file": f"{_PKI}/ca.key",
        "service-account-private-key-file": f"{_PKI}/service-account.key",
        "use-service-account-credentials": "true",
        "leader-elect": "false",
        # There is no other node: evicting pods from a slow one only loses their work.
        "node-monitor-grace-period": "10m",
        "flex-volume-plugin-dir": "/var/lib/kubelet/volume-plugins",
        "profiling": "false",
    }
    return _client("kube-controller-manager", flags, "controller-manager")


def _scheduler() -> Component:
    kubeconfig = f"{_ETC}/scheduler.kubeconfig"
    flags = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
        "profiling": "false",
    }
    return _client("kube-scheduler", flags, "scheduler")


def _kubelet(node: str, addresses: Addresses) -> Component:
    flags = {
        "config": f"{_ETC}/kubelet.yaml",
        "kubeconfig": f"{_ETC}/kubelet.kubeconfig",
        "cert-dir": "/var/lib/kubelet/pki",
        "hostname-override": node,
        "node-ip": addresses.node,
    }
    return _client("kubelet", flags, "kubelet", "etc/kubelet.yaml")


def _kube_proxy(node: str, addresses: Addresses) -> Component:
    flags = {
        "kubeconfig": f"{_ETC}/proxy.kubeconfig",
        "hostname-override": node,
        "proxy-mode": "iptables",
        "cluster-cidr": addresses.pods,
        "healthz-bind-address": f"{addresses.node}:{KUBE_PROXY_HEALTH_PORT}",
        "metrics-bind-address": "127.0.0.1:10249",
        # These are limits of the whole machine, not of the node's namespace.
        "conntrack-max-per-core": "0",
        "conntrack-tcp-timeout-established": "0s",
        "conntrack-tcp-timeout-close-wait": "0s",
    }
    return _client("kube-proxy", flags, "proxy")


def _client(program: str, flags: dict[str, str], identity: str, *inputs: str) -> Component:
    """A component that talks to the API server under its own identity."""
    files = (f"etc/{identity}.kubeconfig", f"pki/{identity}.crt", *inputs)
    return Component(program, _flags(program, flags), program, files)
