"""Batches: a hundred thousand images from one manifest, resumable after any stop, and never paid for twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import BatchOptions as BatchOptions, run_batch as run_batch
    from .tasks import Outcome as Outcome

__all__ = ["BatchOptions", "Outcome", "run_batch"]


def __getattr__(name: str) -> object:
    """Import on first use: listing the commands needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api, tasks

    return tasks.Outcome if name == "Outcome" else getattr(api, name)
