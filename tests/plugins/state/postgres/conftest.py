"""Stores in a schema of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from impasto_plugins.state.postgres import PostgresState

StoreFactory = Callable[..., Awaitable[PostgresState]]


@pytest.fixture
async def factory(postgres: str) -> AsyncIterator[StoreFactory]:
    """A function that opens a store, with parameters of its address; all of them have one schema."""
    stores: list[PostgresState] = []

    async def open_store(**parameters: object) -> PostgresState:
        query = "".join(f"&{name}={value}" for name, value in parameters.items())
        store = PostgresState(postgres + query)
        stores.append(store)
        await store.open()
        return store

    yield open_store
    for store in stores:
        await store.aclose()


@pytest.fixture
async def store(factory: StoreFactory) -> PostgresState:
    """A store."""
    return await factory()
