"""Rows of a table as records."""

from __future__ import annotations

import sqlite3
from typing import Generic, TypeVar

import attrs

T = TypeVar("T", bound=attrs.AttrsInstance)


class RecordTable(Generic[T]):
    """A table whose columns are the fields of a class."""

    def __init__(self, name: str, record_type: type[T]) -> None:
        self.name = name
        self._type = record_type
        self._names = [field.name for field in attrs.fields(record_type)]

    def select(self, db: sqlite3.Connection, where: str, *values: object) -> list[T]:
        """Return the records that match a condition, which is never a caller's text."""
        rows = db.execute(f"SELECT {', '.join(self._names)} FROM {self.name} WHERE {where}", values)  # noqa: S608 - names of fields
        return [self._type(**dict(zip(self._names, each, strict=True))) for each in rows]

    def select_one(self, db: sqlite3.Connection, where: str, *values: object) -> T | None:
        """Return the first of the records that match a condition, or None."""
        return next(iter(self.select(db, f"{where} LIMIT 1", *values)), None)

    def insert(self, db: sqlite3.Connection, record: T) -> bool:
        """Insert a record; return False if one with its id is there."""
        marks = ", ".join("?" for _ in self._names)
        statement = f"INSERT INTO {self.name} ({', '.join(self._names)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 - names of fields
        return db.execute(statement, attrs.astuple(record, recurse=False)).rowcount == 1
