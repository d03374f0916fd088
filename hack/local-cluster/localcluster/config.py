"""Configuration files of the node, rendered from ``templates/``."""

from __future__ import annotations

from pathlib import Path
from string import Template

from localcluster import credentials, files
from localcluster.addressing import Addresses
from localcluster.cgroups import ClusterCgroup
from localcluster.errors import ClusterError
from localcluster.layout import TOOL_DIR, Layout
from localcluster.system_images import PAUSE

CNI_PLUGIN = "ptp"
_CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_TEMPLATES = TOOL_DIR / "templates"
_IDENTITIES = ("kubelet", "controller-manager", "scheduler", "proxy")
# Overlayfs takes none of these as its upper layer.
_NOT_FOR_OVERLAY = frozenset({"overlay", "nfs", "nfs4", "ecryptfs", "aufs", "fuse.sshfs", "vfat"})


def render(template: str, values: dict[str, str]) -> str:
    """Fill a template; a name without a value, or a value without a name, is a bug."""
    try:
        return Template((_TEMPLATES / template).read_text()).substitute(values)
    except (KeyError, ValueError) as error:
        raise ClusterError(f"template {template}: {error}") from error


def write_all(layout: Layout, name: str, addresses: Addresses) -> None:
    """Write every configuration file; those that would not change stay untouched."""
    etc = layout.etc
    containerd = {
        "pause_image": PAUSE,
        "snapshotter": snapshotter(layout.root),
        "cni": str(cni_directory()),
    }
    kubelet = {
        "node": addresses.node,
        "dns_service": addresses.dns_service,
        "cgroup": ClusterCgroup(layout.id).root,
    }
    files.write(etc / "containerd.toml", render("containerd.toml", containerd))
    files.write(etc / "kubelet.yaml", render("kubelet.yaml", kubelet))
    files.write(
        etc / "cni" / "10-local-cluster.conflist",
        render("cni.conflist", {"node_pods": addresses.node_pods}),
    )
    files.write(etc / "resolv.conf", render("resolv.conf", {}))
    for identity in _IDENTITIES:
        kubeconfig = credentials.component_kubeconfig(identity, name, addresses)
        files.write(etc / f"{identity}.kubeconfig", kubeconfig, mode=0o600)


def cni_directory() -> Path | None:
    """Return where this machine's CNI plugins are."""
    return next((path for path in _CNI_DIRECTORIES if (path / CNI_PLUGIN).is_file()), None)


def snapshotter(directory: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the containerd snapshotter that works on the directory's file system."""
    best = (0, "")
    for line in mounts.read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if directory.is_relative_to(mount) and len(mount) >= best[0]:
            best = (len(mount), kind)
    return "native" if best[1] in _NOT_FOR_OVERLAY else "overlayfs"
