"""What clusters leave on the host: listed before and after, the two must be equal.

Other clusters may come and go meanwhile; what belongs to those is left out.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from localcluster import processes
from localcluster.cgroups import hierarchies
from localcluster.layout import Layout

# Where container runtimes, CNI and Kubernetes keep things by default.
_PLACES = (
    *("/run/containerd", "/run/cni", "/run/netns", "/run/runc", "/run/kubernetes", "/run/etcd"),
    *("/var/lib/kubelet", "/var/lib/cni", "/var/lib/containerd", "/var/lib/etcd"),
    *("/var/lib/storage", "/var/log/pods", "/var/log/containers", "/var/run/kubernetes"),
    *("/etc/cni", "/etc/containerd", "/etc/kubernetes", "/opt/cni", "/opt/containerd"),
    *("/usr/libexec/kubernetes", "/run/cluster", "/run/cluster-bin", "/run/sysctl"),
)
_SYSCTLS = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/ipv4/ip_forward"),
)
_OTHERS_MOUNTS = ("/var/lib/containers/", "/run/containers/")


def take(layouts: list[Layout]) -> dict[str, list[str]]:
    """List everything on the host that these clusters could have made."""
    groups = [f"/local-cluster-{layout.id}" for layout in layouts]
    roots = [str(layout.root) for layout in layouts]
    return {
        "processes": _processes(groups, roots),
        "control groups": _control_groups(groups),
        "mounts": _mounts(),
        "links": _links(roots),
        "routes": _routes(),
        "iptables": _iptables(),
        "files": [f"{place}/{name}" for place in _PLACES for name in _names(Path(place))],
        "sysctls": [f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in _SYSCTLS],
    }


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """Return one line for each thing that appeared or went."""
    lines = []
    for kind, listed in before.items():
        lines += [f"{kind}: new: {entry}" for entry in sorted(set(after[kind]) - set(listed))]
        lines += [f"{kind}: gone: {entry}" for entry in sorted(set(listed) - set(after[kind]))]
    return lines


def _processes(groups: list[str], roots: list[str]) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cgroup = (process / "cgroup").read_text()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        is_selftest = "selftest" in command or "cluster --dir" in command
        ours = any(group in cgroup for group in groups) or any(root in command for root in roots)
        # What has ended and only waits for init to collect it is gone.
        ended = processes.identify(int(process.name)) is None
        if ours and not is_selftest and not ended:
            found.append(f"{process.name} {command[:120]}")
    return found


def _control_groups(groups: list[str]) -> list[str]:
    paths = [h.mount / group.lstrip("/") for h in hierarchies() for group in groups]
    return [str(path) for path in paths if path.exists()]


def _mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if not any(other in line for other in _OTHERS_MOUNTS)]


def _links(roots: list[str]) -> list[str]:
    listed = json.loads(_output("ip", "-json", "link", "show"))
    return [
        f"{link['ifname']} {link.get('ifalias', '')}"
        for link in listed
        if "ifalias" not in link or any(root in link["ifalias"] for root in roots)
    ]


def _routes() -> list[str]:
    lines = _output("ip", "-4", "route", "show").splitlines()
    return [line for line in lines if "localcluster" not in line or "linkdown" in line]


def _iptables() -> list[str]:
    rules = [
        line
        for table in ("filter", "nat", "mangle", "raw")
        for line in _output("iptables", "-t", table, "-S").splitlines()
    ]
    return sorted(rules)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
