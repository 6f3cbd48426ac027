"""The records of a gateway, for tests that read its rows, set its clock or see its calls in flight."""

from __future__ import annotations

from impasto.ext import StateStore
from impasto_plugins.gateway.idempotency.coordinator import IdempotencyCoordinator
from impasto_plugins.gateway.idempotency.in_flight import MachineCalls
from impasto_plugins.state.sqlite import SQLiteState
from impasto_plugins.state.sqlite.connection import SQLiteDatabase
from tests.plugins.gateway.conftest import Running


def database(gateway: Running) -> SQLiteDatabase:
    return database_of(gateway.gateway._state)


def database_of(state: StateStore) -> SQLiteDatabase:
    assert isinstance(state, SQLiteState)
    return state.database


def calls_of(coordinator: IdempotencyCoordinator) -> MachineCalls:
    """The calls in flight of a gateway whose state is on its machine."""
    assert isinstance(coordinator.in_flight, MachineCalls)
    return coordinator.in_flight
