"""The meaning of a failure: its cause in words, and if waiting helps.

A wrong address, password, right or schema is permanent. A server that starts, only reads, has no room or can't be
reached is not: it may take writes again by itself.
"""

from __future__ import annotations

import os
import socket
import ssl

import asyncpg

from impasto.ext import StateError, printable

from .address import PostgresAddress

_UNKNOWN_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
"""Answers of a name server. If none answers, the error is another one."""

_NO_TLS = "rejected SSL upgrade"
"""The end of asyncpg's message if a server refuses TLS, or its answer is not PostgreSQL's."""

_PERMANENT = ("28", "3D", "3F", "42")
"""Classes of SQLSTATE: authorization, the database, the schema, and rights or parts of it."""


def describe_failure(error: Exception, address: PostgresAddress, *, was_reached: bool) -> StateError:
    """Return the error of an operation, without a password.

    ``was_reached``: this process has used the server before, so that the name of its host is right.
    """
    server = address.server
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            text = f"PostgreSQL at {server} refused the user or the password ({_reason(error)}); correct them"
        case asyncpg.InvalidCatalogNameError():
            text = f"PostgreSQL at {server} has no database of this name; create it, or correct the name"
        case asyncpg.InsufficientPrivilegeError():
            text = f"PostgreSQL at {server}: {_reason(error)}; grant its user this right, or give another user"
        case asyncpg.UndefinedTableError() | asyncpg.UndefinedFunctionError() | asyncpg.InvalidSchemaNameError():
            text = (
                f"the schema {address.schema!r} at {server} is incomplete ({_reason(error)}); restore it, or give"
                " another one"
            )
        case asyncpg.InvalidSQLStatementNameError() | asyncpg.DuplicatePreparedStatementError():
            text = f"PostgreSQL at {server} is behind a pooler that does not keep prepared statements"
            return StateError(f"{text}; add statement_cache_size=0 to the address", is_permanent=True)
        case (
            asyncpg.PostgresConnectionError()
            | asyncpg.AdminShutdownError()
            | asyncpg.CrashShutdownError()
            | asyncpg.InternalClientError()  # the server's last word came before the statement was sent
        ):
            return StateError(f"the connection to PostgreSQL at {server} broke")
        case asyncpg.PostgresError():
            text = f"PostgreSQL at {server}: {_reason(error)}"
        case ValueError():  # asyncpg's own words quote no part of the address but a wrong value
            reason = _reason(error) if isinstance(error, asyncpg.InterfaceError) else "it can't be parsed"
            return StateError(f"invalid address of {server}: {reason}", is_permanent=True)
        case asyncpg.InterfaceError():
            is_permanent = isinstance(error, asyncpg.UnsupportedServerFeatureError)
            return StateError(f"can't use PostgreSQL at {server}: {_reason(error)}", is_permanent=is_permanent)
        case _:
            return _network_failure(error, server, was_reached=was_reached)
    return StateError(text, is_permanent=(error.sqlstate or "")[:2] in _PERMANENT)


def _network_failure(error: Exception, server: str, *, was_reached: bool) -> StateError:
    match error:
        case TimeoutError():
            return StateError(f"PostgreSQL at {server} did not answer in time")
        case ssl.SSLCertVerificationError():
            text = f"the certificate of PostgreSQL at {server} can't be verified ({error.verify_message})"
            advice = "correct the host, or give its authority's certificate with sslrootcert=FILE"
            return StateError(f"{text}; {advice}", is_permanent=True)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return StateError(f"the connection to PostgreSQL at {server} broke")
        case ssl.SSLError():
            reason = printable(error.reason or "")
            return StateError(f"no TLS connection to PostgreSQL at {server} is possible: {reason}", is_permanent=True)
        case ConnectionError() if str(error).endswith(_NO_TLS):
            text = f"the server at {server} refuses TLS, or is not PostgreSQL"
            return StateError(f"{text}; correct host and port, or sslmode", is_permanent=True)
        case socket.gaierror() if error.errno in _UNKNOWN_HOST and not was_reached:
            text = f"can't reach PostgreSQL at {server}: there is no host of this name"
            return StateError(f"{text}; correct it, or start this program once the name is known", is_permanent=True)
        case OSError():
            return StateError(f"can't reach PostgreSQL at {server}: {_words(error)}")
        case _:
            return StateError(f"can't use PostgreSQL at {server}: {type(error).__name__}")


def _reason(error: Exception) -> str:
    """Return a server's message, which has no values of a statement: those are in its detail."""
    return printable(str(error.args[0]))


def _words(error: OSError) -> str:
    """Return the system's words: asyncio's own message repeats the address, also as a list of all of them."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)
