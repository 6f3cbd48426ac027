"""Rows of tables as records, and records as JSON: bytes are PostgreSQL's ``\\x`` and hexadecimal digits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from impasto.ext import StoredCall, StoredObject

if TYPE_CHECKING:
    from asyncpg import Record

_CALL = [field.name for field in attrs.fields(StoredCall)]
_OBJECT = [field.name for field in attrs.fields(StoredObject)]


def to_json(record: StoredCall | StoredObject) -> str:
    """Return a record as JSON."""
    return json.dumps(_mapping(record))


def list_to_json(records: Sequence[StoredCall | StoredObject]) -> str:
    """Return records as JSON."""
    return json.dumps([_mapping(each) for each in records])


def object_of_json(text: str) -> StoredObject:
    """Return the object of ``to_jsonb``."""
    values = json.loads(text)
    for name in ("owner", "identity"):
        values[name] = bytes.fromhex(values[name][2:])
    return StoredObject(**values)


def call_of(row: Record) -> StoredCall:
    """Return a row of the calls."""
    return StoredCall(**{name: row[name] for name in _CALL})


def object_of(row: Record) -> StoredObject:
    """Return a row of the objects."""
    return StoredObject(**{name: row[name] for name in _OBJECT})


def _mapping(record: StoredCall | StoredObject) -> dict[str, object]:
    values = attrs.asdict(record)
    return {name: f"\\x{value.hex()}" if isinstance(value, bytes) else value for name, value in values.items()}
