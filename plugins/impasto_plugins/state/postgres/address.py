"""The address of a PostgreSQL store: a ``postgresql://`` URL, with parameters of the store beside PostgreSQL's own."""

from __future__ import annotations

import math
import re
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs

from impasto import ConfigError
from impasto.ext import printable

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")


@attrs.frozen(kw_only=True)
class PostgresAddress:
    """An address in parts. ``dsn`` is PostgreSQL's own URL and may hold the password; ``server`` names it without.

    ``schema``: that of the tables. ``pool_size``: the most connections of this process. ``command_timeout``: the most
    seconds of one operation. ``statement_cache_size``: prepared statements of a connection; 0 behind a pooler of
    transactions that can't keep them.
    """

    dsn: str = attrs.field(repr=False)
    server: str
    schema: str
    pool_size: int
    command_timeout: float
    statement_cache_size: int

    @classmethod
    def parse(cls, address: str, setting: str) -> Self:
        """Return the parts of an address. Raises ConfigError without the address, which may hold a password."""
        try:
            url = urlsplit(address)
            server = url.netloc.rpartition("@")[2] or "localhost"
        except ValueError:
            raise _wrong(setting, "is not a valid URL") from None
        if url.scheme not in ("postgresql", "postgres"):
            raise _wrong(setting, "is not a postgresql:// URL")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        own = {name: query.pop(name) for name in _PARAMETERS if name in query}
        schema = own.get("schema", "impasto")
        if not _SCHEMA.fullmatch(schema):
            raise _wrong(setting, f"schema must be up to 48 of a-z, 0-9 and _, not {printable(schema, 60)!r}")
        dsn = urlunsplit(url._replace(query=urlencode(query)))
        numbers = {name: _number(setting, name, own[name]) for name in own if name in _NUMBERS}
        return cls(
            dsn=dsn,
            server=server,
            schema=schema,
            pool_size=int(numbers.get("pool_size", 4)),
            command_timeout=numbers.get("command_timeout", 5.0),
            statement_cache_size=int(numbers.get("statement_cache_size", 100)),
        )


_NUMBERS = {"pool_size": (1.0, 100.0), "command_timeout": (0.1, 60.0), "statement_cache_size": (0.0, 1_000.0)}
"""The smallest and the largest value of each parameter that is a number."""

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
