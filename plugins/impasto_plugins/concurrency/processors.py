"""The processors that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The quota of a container: microseconds of processor time, or ``max``, in a period of so many microseconds."""


def usable_processors(quota: Path = _QUOTA) -> int:
    """Return how many processors this process may use, at least 1: its affinity, within its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text("ascii").split()
        count = min(count, -(-int(allowed) // int(period)))
    except (OSError, ValueError):  # no container, or one without a quota
        pass
    return max(count, 1)
