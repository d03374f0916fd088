"""What the CPU can do, and how many threads to compute with.

Libraries count the node's cores; a container with a CPU limit that starts that many threads is
throttled instead of fast.
"""

import math
import os
from pathlib import Path

from engine_builder.errors import StageError
from reranker_contracts import EngineTarget, StageReason


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The kernel's names of the CPU's features; empty where it has none, as on arm64."""
    for line in cpuinfo.read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def require_cpu(target: EngineTarget, flags: frozenset[str] | None = None) -> None:
    """Raises StageError (TargetAbsent) when this CPU computes the target's precision otherwise."""
    found = cpu_flags() if flags is None else flags
    if target.cpu_features and found.isdisjoint(target.cpu_features):
        raise StageError(
            StageReason.TARGET_ABSENT,
            f"{target.runtime} {target.precision} needs a CPU with one of "
            f"{', '.join(target.cpu_features)}, this node's has none; build on a node that has it, "
            "or set spec.engine.precision (--precision) to fp32 or auto",
        )


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs this process may use: its affinity mask cut by the cgroup's quota, at least 1."""
    affinity = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def _quota_v2(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(cgroup: Path) -> float | None:
    try:
        quota = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        period = int((cgroup / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
