"""The connections of one process: each operation is one statement on one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from impasto import MissingExtra
from impasto.ext import StateError, finish

from .address import PostgresAddress
from .migrations import prepare

if TYPE_CHECKING:
    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")

_log = logging.getLogger("impasto")

CONNECT_SECONDS = 3.0

_PREPARE_SECONDS = 60.0
"""Seconds for the schema: another process may be creating it."""


class ConnectionPool:
    """Up to ``pool_size`` connections, which open when they are needed, again after they broke.

    An operation runs to its end even if its caller is cancelled: no connection is ever left within a statement.
    """

    def __init__(self, address: PostgresAddress, setting: str, result_folders: Sequence[Path]) -> None:
        self.address = address
        self._setting = setting
        self.result_folders = result_folders
        self._pool: Pool[Record] | None = None
        self._preparing = asyncio.Lock()
        self._is_prepared = False
        self._running: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.round_trips = 0
        """Statements that were sent to the server."""

    async def fetch(self, statement: str, *values: object) -> list[Record]:
        """Run one statement as one transaction, and return its rows. Raises StateError.

        In a statement ``{s}`` is the schema.
        """
        text = statement.replace("{s}", f'"{self.address.schema}"')

        async def run(connection: PoolConnectionProxy[Record]) -> list[Record]:
            self.round_trips += 1
            if self.address.statement_cache_size:
                return await connection.fetch(text, *values)
            async with connection.transaction():  # preparing and running it must reach the same server of a pooler
                return await connection.fetch(text, *values)

        return await self.run(run)

    async def open(self) -> None:
        """Connect, and create a schema that is missing. The first operation does it too. Raises StateError."""
        await self.run(_do_nothing)

    async def run(
        self, work: Callable[[PoolConnectionProxy[Record]], Awaitable[T]], *, on_any_schema: bool = False
    ) -> T:
        """Run a function with a connection of its own, to its end. Raises StateError, and the errors of ``work``.

        ``on_any_schema``: do not look at the schema's version before.
        """
        if self._is_closed:
            raise StateError(f"{self._setting}: the store is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        elif self._loop is not asyncio.get_running_loop():
            text = "the store belongs to another event loop, or was used before a fork; make one in this loop"
            raise StateError(f"{self._setting}: {text}", is_permanent=True)
        task = asyncio.ensure_future(self._run(work, on_any_schema))
        self._running.add(task)
        task.add_done_callback(self._finish)
        return await finish(task)  # whoever cancels it finds all of the change, or nothing

    async def aclose(self) -> None:
        """Close the connections after running operations."""
        self._is_closed = True
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await pool.close()
            except TimeoutError:  # it has cut off the connections to a server that does not answer
                pass

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have been cancelled

    async def _run(self, work: Callable[[PoolConnectionProxy[Record]], Awaitable[T]], on_any_schema: bool) -> T:
        asyncpg = await asyncio.to_thread(_import_asyncpg) if self._pool is None else _import_asyncpg()
        seconds, is_sent = self.address.command_timeout, False
        try:
            pool = self._pool or await self._create(asyncpg)
            async with asyncio.timeout(CONNECT_SECONDS + seconds) as timeout:
                connection = await pool.acquire()
                try:
                    if not self._is_prepared and not on_any_schema:
                        timeout.reschedule(None)
                        await self._prepare(connection)
                    timeout.reschedule(asyncio.get_running_loop().time() + seconds)
                    is_sent = True
                    return await work(connection)
                except (asyncio.CancelledError, asyncpg.InternalClientError):  # its time is over, or it is broken
                    connection.terminate()  # nobody gets an answer of whatever it may still do
                    raise
                finally:
                    await pool.release(connection)
        except StateError as error:
            raise self._failure(error) from None
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
            ValueError,
        ) as error:
            from .failures import describe_failure

            failure = self._failure(describe_failure(error, self.address, was_reached=self._is_prepared))
            failure.may_have_changed = is_sent
            raise failure from error

    def _failure(self, error: StateError) -> StateError:
        """Return an error with the setting. A permanent one of a store in use is logged, once for all who meet it."""
        failure = StateError(f"{self._setting}: {error}", is_permanent=error.is_permanent)
        if error.is_permanent and self._is_prepared:
            self._is_prepared = False  # whatever mends it, the schema may be another one then
            _log.error("%s. Until then everything that needs it is refused", failure)
        return failure

    async def _create(self, asyncpg: Any) -> Pool[Record]:
        address = self.address
        async with self._preparing:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    address.dsn,
                    min_size=0,  # nothing is connected yet
                    max_size=address.pool_size,
                    timeout=CONNECT_SECONDS,
                    statement_cache_size=address.statement_cache_size,
                    reset=_do_nothing,  # no operation changes a connection's state, and a reset is a round trip
                    server_settings={"application_name": "impasto"},
                )
            assert self._pool is not None  # noqa: S101 - created here, or by another task
            return self._pool

    async def _prepare(self, connection: PoolConnectionProxy[Record]) -> None:
        async with self._preparing:
            if not self._is_prepared:
                async with asyncio.timeout(_PREPARE_SECONDS):
                    await prepare(connection, self.address, self.result_folders)
                self._is_prepared = True


async def _do_nothing(connection: PoolConnectionProxy[Record]) -> None:
    """Leave a connection as it is."""


def _import_asyncpg() -> Any:
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise MissingExtra("state in PostgreSQL needs asyncpg: pip install 'impasto[postgres]'") from None
    return asyncpg
