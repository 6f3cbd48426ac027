"""What the state of a call with a key and limits costs on SQLite: ``python keyed_state.py``, with any installation.

It prints milliseconds of CPU for each call, of all threads of the process.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time

from impasto.ext import Reservation, StateStore, StoredCall, Use

CALLS = 200
WARM_CALLS = 20
USES = [
    Use(what="requests", period="minute", amount=1),
    Use(what="images", period="day", amount=1, limit=10**9),
    Use(what="nano_usd", period="month", amount=30_000_000),
]


async def keyed_call(store: StateStore) -> None:
    """Do what the gateway does in the state for a call with an Idempotency-Key: four transactions."""
    row = StoredCall(id=secrets.token_hex(32), owner=b"key", identity=secrets.token_bytes(32), expires=24 * 3600.0)
    await store.calls.insert_or_join(row, join=True)
    reservation = await store.budgets.reserve(b"key", USES)
    assert isinstance(reservation, Reservation)
    await store.calls.update(row.id, state="done", outcome='{"images": 1}')
    await store.budgets.settle(reservation, {"nano_usd": 20_000_000})


async def measure() -> float:
    """Return milliseconds of CPU for each call, in a store of its own."""
    from impasto_plugins.state.sqlite import SQLiteState

    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteState(folder)
        await store.open()
        try:
            for _ in range(WARM_CALLS):
                await keyed_call(store)
            before = time.process_time()
            for _ in range(CALLS):
                await keyed_call(store)
            return (time.process_time() - before) / CALLS * 1_000
        finally:
            await store.aclose()


if __name__ == "__main__":
    print(asyncio.run(measure()))
