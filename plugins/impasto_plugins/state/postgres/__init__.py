"""State in PostgreSQL: one schema for the processes of several machines."""

from .store import PostgresState

__all__ = ["PostgresState"]
