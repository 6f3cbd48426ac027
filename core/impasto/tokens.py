"""Tokens that expire, for the hook ``authorize``."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import NamedTuple
from weakref import WeakKeyDictionary

import attrs

from .errors import ImpastoError
from .provider import Account


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
    that call's time; if the caller is cancelled, the next one fetches. Its error reaches everybody who waits for it.

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
            token = await self._fetch(account)
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
