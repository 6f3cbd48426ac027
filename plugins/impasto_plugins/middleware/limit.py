"""Middleware that holds requests to the rate limit of their key, and pauses a key or a model after a 429."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

from impasto import (
    ChargeUnknown,
    ConfigError,
    Handler,
    Middleware,
    NotSent,
    RateLimited,
    Registry,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.ext import Options

from .gate import gate_of, model_pauses, raise_if_too_long, share


class _Limit:
    position = "limit"

    def __init__(self, state: Path | None) -> None:
        self._state = state

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        if wire.anonymous:  # it has no key, so it neither counts in the key's rate nor waits for its pause
            return await next(wire)
        call = wire.call
        gate = gate_of(call.account)
        if self._state is not None and call.account.rate_limit is not None and not gate.is_shared:
            await share(gate, call.account, self._state)
        while (wait := model_pauses.remaining(wire)) > 0:  # again: the pause may have become longer meanwhile
            raise_if_too_long(wait, call)
            await asyncio.sleep(wait)
        permit = await gate.acquire(call)
        if permit is not None:
            call.on_written = functools.partial(gate.mark_written, permit)
        try:
            return await next(wire)
        except NotSent:
            if permit is not None:
                gate.release(permit)
            raise
        except RateLimited as error:
            # Without a time to wait each call backs off by itself, see the retry middleware: the key is not locked.
            if error.retry_after is not None and error.per_model:
                model_pauses.pause(wire, min(error.retry_after, call.retry.max_wait))
            elif not error.per_model:
                gate.pause(min(error.retry_after or 0.0, call.retry.max_wait))
            raise
        except ChargeUnknown as error:
            if error.pause:  # a proxy's 429, which is not the provider's word but locks the key all the same
                gate.pause(min(error.pause, call.retry.max_wait))
            raise
        finally:
            if permit is not None:
                gate.mark_arrived(permit)  # it was answered, or given up; changes nothing after a release


class LimitPlugin:
    """The plugin of the rate middleware. Each call's account has its limit."""

    def __init__(self, options: Options) -> None:
        if isinstance(options.state, str):
            from impasto_plugins.state import state_type  # only for those who give a URL

            store = state_type(options.state, Registry(allow=options.plugins))
            raise ConfigError(f'state: {store.__name__} shares no rate limits yet; give "machine" or a folder')
        self._state = options.state

    @hookimpl
    def middleware(self) -> Middleware:
        """Return the middleware. The windows belong to the process, or to the machine."""
        return _Limit(self._state)


plugin = LimitPlugin
