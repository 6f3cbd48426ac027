"""State in a folder: one SQLite database for all processes of a machine."""

from .store import SQLiteState

__all__ = ["SQLiteState"]
