"""The database of a gateway's records, for tests that read its rows or set its clock."""

from __future__ import annotations

from impasto.ext import StateStore
from impasto_plugins.state.sqlite import SQLiteState
from impasto_plugins.state.sqlite.connection import SQLiteDatabase
from tests.plugins.gateway.conftest import Running


def database(gateway: Running) -> SQLiteDatabase:
    return database_of(gateway.gateway._state)


def database_of(state: StateStore) -> SQLiteDatabase:
    assert isinstance(state, SQLiteState)
    return state.database
