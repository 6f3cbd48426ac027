"""How many descriptors this process has open."""

from __future__ import annotations

import os


def open_descriptors() -> int:
    """Their number; the one that looks is not counted."""
    return len(os.listdir("/dev/fd")) - 1
