"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os

from okanjo_conductor._io.files import text_of


def usable_cpus(cgroup_root: str = "/sys/fs/cgroup") -> int:
    """Count the CPUs of the affinity mask, or fewer if a cgroup's quota allows fewer."""
    has_mask = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1
    quota = _quota(cgroup_root)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def _quota(root: str) -> float | None:
    """Read the CPU quota of the cgroup that is mounted here, version 2 or 1."""
    try:
        quota, period = text_of(f"{root}/cpu.max").split()
    except (OSError, ValueError):
        try:
            quota = text_of(f"{root}/cpu/cpu.cfs_quota_us")
            period = text_of(f"{root}/cpu/cpu.cfs_period_us")
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no quota
        return None
    return share if share > 0 else None
