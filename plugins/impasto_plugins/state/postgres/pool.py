"""The connections of one process: each operation is one statement on one of them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from impasto import MissingExtra
from impasto.ext import StateError, finish, printable

from .address import PostgresAddress
from .migrations import prepare

if TYPE_CHECKING:
    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")

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
        self._result_folders = result_folders
        self._pool: Pool[Record] | None = None
        self._preparing = asyncio.Lock()
        self._is_prepared = False
        self._running: set[asyncio.Task[Any]] = set()
        self._is_closed = False
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
            raise StateError(f"{self._setting}: {error}") from None
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
            ValueError,
        ) as error:
            failure = StateError(f"{self._setting}: {self._describe(error)}")
            failure.may_have_changed = is_sent
            raise failure from error

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
                    await prepare(connection, self.address.schema, self._result_folders)
                self._is_prepared = True

    def _describe(self, error: Exception) -> str:
        """Return the cause of a failure, without a password."""
        import asyncpg

        server = self.address.server
        match error:
            case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
                return f"PostgreSQL at {server} refused the user or the password"
            case asyncpg.InvalidCatalogNameError():
                return f"PostgreSQL at {server} has no database of this name; create it, or correct the name"
            case asyncpg.UndefinedTableError() | asyncpg.UndefinedFunctionError() | asyncpg.InvalidSchemaNameError():
                schema, reason = self.address.schema, printable(str(error.args[0]))
                return f"the schema {schema!r} at {server} is incomplete ({reason}); restore it, or give another one"
            case (
                asyncpg.PostgresConnectionError()
                | asyncpg.AdminShutdownError()
                | asyncpg.CrashShutdownError()
                | asyncpg.InternalClientError()  # the server's last word came before the statement was sent
            ):
                return f"the connection to PostgreSQL at {server} broke"
            case asyncpg.PostgresError():  # its message has no values of a statement: those are in its detail
                return f"PostgreSQL at {server}: {printable(str(error.args[0]))}"
            case asyncpg.InterfaceError():
                return f"can't use PostgreSQL at {server}: {printable(str(error.args[0]))}"
            case TimeoutError():
                return f"PostgreSQL at {server} did not answer in time"
            case OSError():
                return f"can't reach PostgreSQL at {server}: {_reason(error)}"
            case _:
                return f"invalid address: {printable(str(error))}"


async def _do_nothing(connection: PoolConnectionProxy[Record]) -> None:
    """Leave a connection as it is."""


def _reason(error: OSError) -> str:
    """Return the system's words: asyncio's own message repeats the address, also as a list of all of them."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)


def _import_asyncpg() -> Any:
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise MissingExtra("state in PostgreSQL needs asyncpg: pip install 'impasto[postgres]'") from None
    return asyncpg
