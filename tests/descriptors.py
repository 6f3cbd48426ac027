"""How many descriptors this process has open on a file."""

from __future__ import annotations

import os
from pathlib import Path


def open_descriptors(path: Path) -> int:
    """Their number; what else is open, or is let go meanwhile, doesn't count."""
    looked_for, found = path.stat(), 0
    for name in os.listdir("/dev/fd"):
        try:
            found += os.path.samestat(os.fstat(int(name)), looked_for)
        except OSError:  # the one that listed them
            continue
    return found
