"""The address of a PostgreSQL store: a ``postgresql://`` URL, with parameters of the store beside PostgreSQL's own."""

from __future__ import annotations

import math
import os
import re
import shlex
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs

from impasto import ConfigError
from impasto.ext import printable

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")


@attrs.frozen(kw_only=True)
class PostgresAddress:
    """An address in parts. ``dsn`` is PostgreSQL's own URL and may hold the password; ``server`` names it without.

    ``argument``: the address as an argument of a command, without the password.
    ``schema``: that of the tables. ``pool_size``: the most connections of this process. ``command_timeout``: the most
    seconds of one operation. ``statement_cache_size``: prepared statements of a connection; 0 behind a pooler of
    transactions that can't keep them.
    """

    dsn: str = attrs.field(repr=False)
    server: str
    argument: str
    schema: str
    pool_size: int
    command_timeout: float
    statement_cache_size: int

    @classmethod
    def parse(cls, address: str, setting: str) -> Self:
        """Return the parts of an address. Raises ConfigError without the address, which may hold a password."""
        try:
            url = urlsplit(address)
        except ValueError:
            raise _wrong(setting, "is not a valid URL") from None
        if url.scheme not in ("postgresql", "postgres"):
            raise _wrong(setting, "is not a postgresql:// URL")
        user, at, server = url.netloc.rpartition("@")
        if not at and "@" in address:  # what seems to be the host is a part of the password
            raise _wrong(setting, "the password needs %2F for /, %3F for ? and %23 for #")
        for host in server.split(","):
            if (found := _HOST.fullmatch(host)) is None or int(found[1] or 0) > _LAST_PORT:
                raise _wrong(setting, "has an invalid host or port")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        secret = {name: "***" for name in query if "password" in name}
        argument = url._replace(
            netloc=f"{user.partition(':')[0]}{':***' if ':' in user else ''}{at}{server}",
            query=urlencode({**query, **secret}, safe="*/"),
        )
        for name in _FILES & query.keys():
            if not os.access(query[name], os.R_OK):
                raise _wrong(setting, f"{name}: can't read {printable(query[name], 200)!r}")
        own = {name: query.pop(name) for name in _PARAMETERS if name in query}
        schema = own.get("schema", "impasto")
        if not _SCHEMA.fullmatch(schema):
            raise _wrong(setting, f"schema must be up to 48 of a-z, 0-9 and _, not {printable(schema, 60)!r}")
        dsn = urlunsplit(url._replace(query=urlencode(query)))
        numbers = {name: _number(setting, name, own[name]) for name in own if name in _NUMBERS}
        return cls(
            dsn=dsn,
            server=server or "localhost",
            argument=shlex.quote(argument.geturl()),
            schema=schema,
            pool_size=int(numbers.get("pool_size", 4)),
            command_timeout=numbers.get("command_timeout", 5.0),
            statement_cache_size=int(numbers.get("statement_cache_size", 100)),
        )


_NUMBERS = {"pool_size": (1.0, 100.0), "command_timeout": (0.1, 60.0), "statement_cache_size": (0.0, 1_000.0)}
"""The smallest and the largest value of each parameter that is a number."""

_HOST = re.compile(r"(?:\[[^\[\]]+\]|[^\[\]:,\s]*)(?::(\d{1,5}))?")
_LAST_PORT = 65_535

_FILES = {"sslcert", "sslkey", "sslrootcert", "sslcrl"}

_PARAMETERS = ("schema", *_NUMBERS)


def _number(setting: str, name: str, text: str) -> float:
    minimum, maximum = _NUMBERS[name]
    try:
        value = float(text) if name == "command_timeout" else int(text)
    except ValueError:
        value = math.nan
    if not minimum <= value <= maximum:
        raise _wrong(setting, f"{name} must be a number from {minimum:g} to {maximum:g}, not {printable(text, 60)!r}")
    return value


def _wrong(setting: str, problem: str) -> ConfigError:
    return ConfigError(f"{setting}: {problem}; give postgresql://user:password@host:5432/database?schema=impasto")
