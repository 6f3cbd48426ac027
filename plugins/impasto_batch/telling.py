"""What a run says of itself."""

from __future__ import annotations

from .status import Status

_CLASSES = ("refused", "ambiguous", "unusable", "filtered", "expired", "pending")


def in_words(status: Status) -> str:
    """A status for a reader."""
    parts = [f"{number:,} {name}" for name in _CLASSES if (number := getattr(status, name))]
    return ", ".join(
        (f"{status.state}: {status.done:,} of {status.total:,} done", *parts, f"{status.cost_usd:.2f} USD")
    )
