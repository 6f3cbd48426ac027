"""Who calls: keys in one of three headers, known by their SHA-256 alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from .config.model import Config, Named
from .errors import INVALID, Failure

if TYPE_CHECKING:
    from multidict import MultiMapping

KEY_HEADERS = ("authorization", "api-key", "x-api-key")
"""Where a caller may give a key: as OpenAI's clients do, as Azure's do, and as many others."""

_LONGEST = 4096


@attrs.frozen(kw_only=True)
class Caller:
    """Who showed a key. ``digest`` is the key's SHA-256; ``models`` None means all, ``limits`` None no limits."""

    name: str
    digest: bytes = attrs.field(default=b"", repr=False)
    models: frozenset[str] | None = None
    limits: Named | None = None

    def may_use(self, model: str) -> bool:
        """Whether the key is good for a model."""
        return self.models is None or model in self.models


NOBODY = Caller(name="anyone")


class Keys:
    """The keys of a configuration."""

    def __init__(self, config: Config, *, no_auth: bool) -> None:
        self._callers: Mapping[bytes, Caller] | None = None if no_auth else _callers(config)

    def identify(self, headers: MultiMapping[str]) -> Caller:
        """Return the caller whose key is in a request's headers. Raises Failure."""
        callers = self._callers
        if callers is None:
            return NOBODY
        keys = set(_keys(headers))
        digest = hashlib.sha256(keys.pop().encode()).digest() if len(keys) == 1 else b""
        caller = callers.get(digest)
        # The look-up is by a hash that nobody can aim; the comparison takes as long wherever the two part.
        if caller is None or not hmac.compare_digest(caller.digest, digest):
            said = "give a key: Authorization: Bearer ..., api-key or x-api-key"
            if digest:
                said = "no such key"
            elif keys:
                said = "two different keys were given; give one"
            raise Failure(401, said, INVALID, "invalid_api_key", headers={"www-authenticate": "Bearer"}, close=True)
        return caller

    def known(self, digest: bytes) -> Caller | None:
        """The caller whose key has this SHA-256, as long as the configuration has it."""
        return NOBODY if self._callers is None else self._callers.get(digest)


def _keys(headers: MultiMapping[str]) -> list[str]:
    """Return the keys of a request: at most one of each header, and of each scheme but Bearer none."""
    keys = []
    for name in KEY_HEADERS:
        given = headers.getall(name, ())
        if not given or len(given) != 1 or not given[0].isascii():
            continue
        scheme, _, key = given[0].partition(" ") if name == "authorization" else ("bearer", "", given[0])
        key = key.lstrip(" ")  # any number of spaces stands between the two (RFC 9110, 11.4)
        if scheme.lower() == "bearer" and 0 < len(key) <= _LONGEST:
            keys.append(key)
    return keys


def _callers(config: Config) -> dict[bytes, Caller]:
    found: dict[bytes, Caller] = {}
    if config.general.master_key is not None:
        digest = hashlib.sha256(config.general.master_key.encode()).digest()
        found[digest] = Caller(name="master", digest=digest)
    for key in config.keys:
        digest = bytes.fromhex(key.sha256)
        models = None if key.models is None else frozenset(key.models)
        found[digest] = Caller(name=key.name, digest=digest, models=models, limits=key if key.limited else None)
    return found
