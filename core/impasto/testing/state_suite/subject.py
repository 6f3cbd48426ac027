"""The store under test, and records for it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar, TypeVar, cast

import attrs
import pytest

from impasto.state_records import StateError, StoredCall, StoredObject
from impasto.states import StateStore
from impasto.testing.watch import Limited, run

T = TypeVar("T")

OWNER, OTHER = b"o" * 32, b"p\0" * 16
IDENTITY, OTHER_IDENTITY = b"\0i" * 16, b"j" * 32
HOUR = 3600.0


class StateSubject(Limited):
    """A suite's subject. Each check gets the address of an empty store from the fixture ``address``."""

    state_type: ClassVar[type[StateStore] | None] = None
    """The class of the store. A check that starts processes imports it there."""

    @pytest.fixture
    def address(self) -> str:
        """Return the address of a store that is new and empty."""
        raise NotImplementedError("override the fixture address: return that of an empty store")

    def set_clock(self, state: StateStore, seconds: float) -> None:
        """Set the clock of a store, ahead of the real time by so many seconds."""
        pytest.skip("override set_clock to check periods and clocks that are set back")

    @contextmanager
    def outage(self, address: str) -> Iterator[None]:
        """Make a store unreachable for a block."""
        pytest.skip("override outage to check a store that is away for a while")
        yield

    @asynccontextmanager
    async def away(self, address: str) -> AsyncIterator[None]:
        """Make a store unreachable for a block, without blocking the loop."""
        outage = self.outage(address)
        await asyncio.to_thread(outage.__enter__)
        try:
            yield
        finally:
            await asyncio.to_thread(outage.__exit__, None, None, None)

    def create(self, address: str) -> StateStore:
        """Return a store of this address."""
        assert self.state_type is not None, "declare state_type, the class of the store"
        return self.state_type(address, setting="acme_setting")

    @asynccontextmanager
    async def open_store(self, address: str) -> AsyncIterator[StateStore]:
        """Open a store for a block."""
        state = self.create(address)
        try:
            await state.open()
            yield state
        finally:
            await state.aclose()

    def use(self, address: str, work: Callable[[StateStore], Awaitable[None]]) -> None:
        """Run a function with the open store."""

        async def with_store() -> None:
            async with self.open_store(address) as state:
                await work(state)

        run(with_store())


def new_id() -> str:
    """Return an id for a record."""
    return secrets.token_hex(32)


async def new_call(state: StateStore, /, **fields: Any) -> StoredCall:
    """Return a call that is not stored."""
    now = await state.now()
    call = StoredCall(id=new_id(), owner=OWNER, identity=IDENTITY, created=now, expires=now + HOUR)
    return attrs.evolve(call, **fields)


async def insert_call(state: StateStore, /, **fields: Any) -> StoredCall:
    """Store a call."""
    call = await new_call(state, **fields)
    await state.calls.insert([call])
    return call


async def new_object(state: StateStore, /, **fields: Any) -> StoredObject:
    """Return a file that is not stored."""
    now = await state.now()
    item = StoredObject(
        kind="file", id=new_id(), owner=OWNER, status="ready", size=10, body="{}", created=now, expires=now + HOUR
    )
    return attrs.evolve(item, **fields)


async def insert_object(state: StateStore, /, **fields: Any) -> StoredObject:
    """Store a file."""
    item = await new_object(state, **fields)
    assert await state.objects.insert(item, max_count=1_000) == item, "an object was not inserted"
    return item


async def at_once(operations: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run operations side by side, and return their results."""
    return cast("list[T]", await asyncio.gather(*operations))


async def refusal_of(operation: Awaitable[object], what: str) -> StateError:
    """Return the StateError that an operation must raise."""
    try:
        await operation
    except StateError as error:
        return error
    except Exception as error:  # of the store, whatever it is
        raise AssertionError(f"{what} raised {error!r}, not a StateError") from error
    raise AssertionError(f"{what} raised no StateError")
