"""Authentication: keys in one of three headers, stored as SHA-256 alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from .config.model import Config, KeyConfig
from .errors import INVALID, APIError

if TYPE_CHECKING:
    from multidict import MultiMapping

KEY_HEADERS = ("authorization", "api-key", "x-api-key")
"""Headers with a key: OpenAI's clients use the first, Azure's the second, many others the third."""

_MAX_KEY_LENGTH = 4096


@attrs.frozen(kw_only=True)
class Caller:
    """The owner of a key. ``digest`` is the key's SHA-256; ``models`` None means all, ``limits`` None no limits."""

    name: str
    digest: bytes = attrs.field(default=b"", repr=False)
    models: frozenset[str] | None = None
    limits: KeyConfig | None = None

    def may_use(self, model: str) -> bool:
        """Return True if the key may use a model."""
        return self.models is None or model in self.models


ANONYMOUS = Caller(name="anyone")


class Authenticator:
    """The keys of a configuration."""

    def __init__(self, config: Config, *, no_auth: bool) -> None:
        self._callers: Mapping[bytes, Caller] | None = None if no_auth else _load_callers(config)

    def authenticate(self, headers: MultiMapping[str]) -> Caller:
        """Return the caller whose key is in a request's headers. Raises APIError."""
        callers = self._callers
        if callers is None:
            return ANONYMOUS
        keys = set(_read_keys(headers))
        digest = hashlib.sha256(keys.pop().encode()).digest() if len(keys) == 1 else b""
        caller = callers.get(digest)
        # The look-up is by a hash that nobody can aim; the comparison takes as long wherever the two part.
        if caller is None or not hmac.compare_digest(caller.digest, digest):
            message = "no API key; send one as Authorization: Bearer KEY, api-key or x-api-key"
            if digest:
                message = "the API key is invalid"
            elif keys:
                message = "the request has two different API keys; send one"
            raise APIError(401, message, INVALID, "invalid_api_key", headers={"www-authenticate": "Bearer"}, close=True)
        return caller

    def find(self, digest: bytes) -> Caller | None:
        """Return the caller whose key has this SHA-256, or None if the configuration no longer has it."""
        return ANONYMOUS if self._callers is None else self._callers.get(digest)


def _read_keys(headers: MultiMapping[str]) -> list[str]:
    """Return the keys of a request: at most one for each header, and for each scheme only Bearer."""
    keys = []
    for name in KEY_HEADERS:
        values = headers.getall(name, ())
        if not values or len(values) != 1 or not values[0].isascii():
            continue
        scheme, _, key = values[0].partition(" ") if name == "authorization" else ("bearer", "", values[0])
        key = key.lstrip(" ")  # any number of spaces stands between the two (RFC 9110, 11.4)
        if scheme.lower() == "bearer" and 0 < len(key) <= _MAX_KEY_LENGTH:
            keys.append(key)
    return keys


def _load_callers(config: Config) -> dict[bytes, Caller]:
    callers: dict[bytes, Caller] = {}
    if config.general.master_key is not None:
        digest = hashlib.sha256(config.general.master_key.encode()).digest()
        callers[digest] = Caller(name="master", digest=digest)
    for key in config.keys:
        digest = bytes.fromhex(key.sha256)
        models = None if key.models is None else frozenset(key.models)
        callers[digest] = Caller(name=key.name, digest=digest, models=models, limits=key if key.has_limits else None)
    return callers
