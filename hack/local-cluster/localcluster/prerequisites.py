"""What the machine must have before a local cluster can start.

Debian packages that are missing are installed; everything else that is
missing ends the command with one line that names it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from localcluster import commands, config
from localcluster.console import Console
from localcluster.errors import ClusterError, PrerequisiteError
from localcluster.layout import Layout

# Program that shows a package to be there, by package. Only a missing program
# counts: where Docker's own containerd is, Debian's package would remove it.
_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": config.CNI_PLUGIN,
    "iptables": "iptables",
    "conntrack": "conntrack",
    "iproute2": "ip",
    "mount": "mount",
    "procps": "sysctl",
    "openssl": "openssl",
    # These build the project's images, as Docker does elsewhere.
    "buildah": "buildah",
    "skopeo": "skopeo",
    "debootstrap": "debootstrap",
}
_FREE_BYTES = 2 * 1024**3
_HIDDEN = (Path("/run"), Path("/var/run"), Path("/proc"), Path("/sys"), Path("/dev"))
_ALTERNATIVES = "set CLUSTER=current to use the cluster of your kubeconfig, or install kind"


def check(layout: Layout) -> None:
    """Fail, with the remedy, when this machine cannot run a local cluster."""
    if os.uname().sysname != "Linux":
        raise PrerequisiteError(f"a local cluster needs Linux: {_ALTERNATIVES}")
    if os.geteuid() != 0:
        raise PrerequisiteError(
            "a local cluster needs root (it makes namespaces and cgroups): run it with sudo; "
            f"or {_ALTERNATIVES}"
        )
    for hidden in _HIDDEN:
        if layout.root.is_relative_to(hidden) or layout.bin.is_relative_to(hidden):
            raise PrerequisiteError(f"the cluster's directory cannot be below {hidden}: use --dir")
    layout.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(layout.root).free
    if free < _FREE_BYTES:
        raise PrerequisiteError(
            f"a local cluster takes {_FREE_BYTES / 1024**3:.0f} GiB of disk; {layout.root} "
            f"has {free / 1024**3:.1f} GiB left: free some, or use --dir"
        )


def ensure_packages(layout: Layout, console: Console) -> None:
    """Install the Debian packages that are missing."""
    missing = [name for name, program in _PACKAGES.items() if not _is_there(program)]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise PrerequisiteError(
            f"this is not a Debian or Ubuntu machine: install {', '.join(missing)} yourself; "
            f"or {_ALTERNATIVES}"
        )
    console.say(f"installing Debian packages: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = layout.logs / "apt.log"
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    try:
        console.run("apt-get install", install, log=log, env=environment)
    except ClusterError:
        # The usual reason is a package index that is old or was never fetched.
        console.run("apt-get update", ["apt-get", "update"], log=log, env=environment)
        console.run("apt-get install", install, log=log, env=environment)
    still = [name for name in missing if not _is_there(_PACKAGES[name])]
    if still:
        raise PrerequisiteError(
            f"after installing package {still[0]}, {_PACKAGES[still[0]]} is still missing"
        )


def _is_there(program: str) -> bool:
    if program == config.CNI_PLUGIN:
        return config.cni_directory() is not None
    return shutil.which(program, path=commands.SYSTEM_PATH) is not None


def check_kernel() -> None:
    """Fail when the kernel does not let this process make the node's namespaces."""
    probe = ["unshare", "--mount", "--net", "--propagation=slave", "true"]
    try:
        commands.capture(probe)
    except ClusterError as error:
        raise PrerequisiteError(
            f"this machine does not let root make namespaces ({error}): run it outside of "
            f"an unprivileged container; or {_ALTERNATIVES}"
        ) from error
