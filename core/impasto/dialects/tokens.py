"""Tokens that expire, for the hook ``authorize``."""

from __future__ import annotations

import asyncio
import copy
import math
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import NamedTuple
from weakref import WeakKeyDictionary

import attrs

from impasto.errors import BrokenPlugin, ImpastoError
from impasto.provider import Account


class Token(NamedTuple):
    """A token that expires, in seconds from now."""

    value: str
    expires_in: float


class _Stored(NamedTuple):
    value: str
    usable_until: float


@attrs.define(eq=False)
class _Fetching:
    """The fetches of one account's token in one loop, one at a time."""

    lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    attempts: int = 0
    failure: Exception | None = None


class TokenCache:
    """The tokens of a provider's accounts, for its hook ``authorize``. Each is fetched once for all calls that wait.

    ``fetch(account)`` returns a new ``Token``. It is called if there is none, if the last one is about to expire (in a
    tenth of its time, at most a minute), and if the provider has refused it. It runs in the task of a caller, under
    that call's time; if the caller is cancelled, the next one fetches. Its error reaches everybody who waits for it;
    BrokenPlugin if it returns anything else than a ``Token``.

        tokens = TokenCache(fetch)

        class Cloud(Provider):
            @hookimpl
            async def authorize(self, account: Account, refused: bool) -> Mapping[str, str]:
                return {"authorization": f"Bearer {await tokens.get(account, refused=refused)}"}
    """

    def __init__(self, fetch: Callable[[Account], Awaitable[Token]]) -> None:
        self._fetch = fetch
        self._tokens: dict[str, _Stored] = {}
        self._lock = threading.Lock()
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Fetching]] = WeakKeyDictionary()
        self._last: ContextVar[str] = ContextVar("_last")
        """The last token of the call that runs: if it was refused, another call may have fetched the next already."""

    async def get(self, account: Account, *, refused: bool = False) -> str:
        """Return the token of an account. ``refused``: the provider has refused the last one that this call got."""
        key = account.fingerprint
        value = self._usable(key, refused)
        if value is None:
            fetching = self._fetching(key)
            attempts = fetching.attempts
            async with fetching.lock:
                value = self._usable(key, refused)
                if (
                    value is None and fetching.attempts != attempts and fetching.failure is not None
                ):  # while this one waited
                    raise (
                        copy.copy(fetching.failure) if isinstance(fetching.failure, ImpastoError) else fetching.failure
                    )
                if value is None:
                    value = await self._fetch_once(account, fetching)
        self._last.set(value)
        return value

    async def _fetch_once(self, account: Account, fetching: _Fetching) -> str:
        try:
            token = _checked(await _awaitable(self._fetch(account)))
        except Exception as error:  # for the others that wait, each of which would wait as long for the same
            fetching.failure = error
            fetching.attempts += 1
            raise
        fetching.failure = None
        fetching.attempts += 1
        now = time.monotonic()
        self._tokens = {key: each for key, each in self._tokens.items() if each.usable_until > now}
        until = now + token.expires_in - min(60.0, token.expires_in / 10)
        self._tokens[account.fingerprint] = _Stored(token.value, until)
        return token.value

    def _usable(self, key: str, refused: bool) -> str | None:
        stored = self._tokens.get(key)
        if stored is None or stored.usable_until <= time.monotonic():
            return None
        return None if refused and self._last.get(stored.value) == stored.value else stored.value

    def _fetching(self, key: str) -> _Fetching:
        with self._lock:  # clients of several threads share a provider
            return self._loops.setdefault(asyncio.get_running_loop(), {}).setdefault(key, _Fetching())


_ADVICE = "fetch of a TokenCache must be async and return impasto.dialects.Token(value: str, expires_in: seconds)"


def _awaitable(returned: object) -> Awaitable[object]:
    if not isinstance(returned, Awaitable):
        raise BrokenPlugin(f"{_ADVICE}; it is not async and returned {type(returned).__name__}")
    return returned


def _checked(token: object) -> Token:
    """Return what ``fetch`` returned, if it is a usable token. Raises BrokenPlugin, which never holds the token."""
    if not isinstance(token, Token):
        raise BrokenPlugin(f"{_ADVICE}, not {type(token).__name__}")
    value: object = token.value
    seconds: object = token.expires_in
    if not isinstance(value, str) or not value:
        kind = "empty text" if value == "" else type(value).__name__
        raise BrokenPlugin(f"{_ADVICE}; its value is {kind}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        kind = "NaN" if isinstance(seconds, float) else type(seconds).__name__
        raise BrokenPlugin(f"{_ADVICE}; its expires_in is {kind}")
    return token
