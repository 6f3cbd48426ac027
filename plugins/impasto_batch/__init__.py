"""Batches: a hundred thousand pictures from one manifest, resumable after any stop, and never paid for twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .service import BatchOptions as BatchOptions, run_batch as run_batch
    from .unit import Outcome as Outcome

__all__ = ["BatchOptions", "Outcome", "run_batch"]


def __getattr__(name: str) -> object:
    """The service brings much that the command line's list of commands does not need."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import service, unit

    return unit.Outcome if name == "Outcome" else getattr(service, name)
