"""Middleware that holds requests to the rate limit of their key, and pauses a key or a model after a 429."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from impasto import (
    Call,
    ChargeUnknown,
    Handler,
    Middleware,
    NotSent,
    RateLimited,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.ext import Options

from .gate import Gate, gate_of, model_pauses, raise_if_too_long, share

if TYPE_CHECKING:
    from .store_window import OpenStore, StoreWindow


class _Limit:
    position = "limit"

    def __init__(self, state: Path | None, window: StoreWindow | None) -> None:
        self._state = state
        self._window = window

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        if wire.anonymous:  # it has no key, so it neither counts in the key's rate nor waits for its pause
            return await next(wire)
        call = wire.call
        gate = gate_of(call.account)
        if self._state is not None and call.account.rate_limit is not None and not gate.is_shared:
            await share(gate, call.account, self._state)
        window = self._window
        while (wait := model_pauses.remaining(wire)) > 0:  # again: the pause may have become longer meanwhile
            raise_if_too_long(wait, call)
            await asyncio.sleep(wait)
        permit = await gate.acquire(call, window)
        counter = gate if window is None else window
        if permit is not None:
            call.on_written = functools.partial(counter.mark_written, permit)
        try:
            return await next(wire)
        except NotSent:
            if permit is not None:
                counter.release(permit)
            raise
        except RateLimited as error:
            # Without a time to wait each call backs off by itself, see the retry middleware: the key is not locked.
            if error.retry_after is not None and error.per_model:
                model_pauses.pause(wire, min(error.retry_after, call.retry.max_wait))
            elif not error.per_model:
                _pause(gate, window, call, error.retry_after or 0.0)
            raise
        except ChargeUnknown as error:
            if error.pause:  # a proxy's 429, which is not the provider's word but locks the key all the same
                _pause(gate, window, call, error.pause)
            raise
        finally:
            if permit is not None:
                counter.mark_arrived(permit)  # it was answered, or given up; changes nothing after a release


def _pause(gate: Gate, window: StoreWindow | None, call: Call, seconds: float) -> None:
    seconds = min(seconds, call.retry.max_wait)
    gate.pause(seconds)
    if window is not None:
        window.pause(call.account.fingerprint, seconds)


class LimitPlugin:
    """The plugin of the rate middleware. Each call's account has its limit."""

    def __init__(self, options: Options) -> None:
        self._state = options.state if isinstance(options.state, Path) else None
        self._window: StoreWindow | None = None

    def use_state(self, open_store: OpenStore) -> None:
        """Put the windows into the client's store, unless its state is a folder."""
        if self._state is None:
            from .store_window import StoreWindow  # only for those who give a store

            self._window = StoreWindow(open_store)

    @hookimpl
    def middleware(self) -> Middleware:
        """Return the middleware. The windows belong to the process, to the machine, or to all replicas."""
        return _Limit(self._state, self._window)

    async def aclose(self) -> None:
        """Send the last changes of a store's windows."""
        if self._window is not None:
            await self._window.aclose()


plugin = LimitPlugin
