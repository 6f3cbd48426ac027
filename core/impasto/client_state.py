"""State shared by a client and its ``with_options`` siblings: plugins, connections, call slots and the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol, cast

import attrs

from .deadline import DeadlineScheduler
from .errors import BrokenPlugin, ClientClosedError, ConfigError, LoopMismatchError
from .hooks import hookimpl
from .interrupts import finish, pass_interrupt
from .options import Options, default_concurrency, identity
from .plugin_boundary import is_cancelled, plugin_boundary
from .provider import account_of
from .redact import describe_error
from .registry import MIDDLEWARE, TRANSPORTS, Registry
from .route import Route
from .spend_limit import Spend, reserve_in_state
from .states import open_store, state_of

if TYPE_CHECKING:
    from .call import Call
    from .client import Client
    from .operation import Operation
    from .provider import Account
    from .records import Result
    from .states import StateStore

_log = logging.getLogger("impasto")

BUILT_IN = ("retry", "limit")
"""The middleware of every route: one owner of retries, one of rates."""


class Transport(Protocol):
    """A transport plugin: has a ``send`` hook and owns its connections. Constructed with the client's options.

    Set ``base_url`` if it answers for every provider itself (recorded answers), or have
    ``async emulate(operation, registry) -> str``, which returns the base URL of the model's stand-in; no key is
    needed then. ``aclose`` must work for a transport that was never opened, or only in part.
    """

    def __init__(self, options: Options) -> None: ...
    async def open(self) -> None:
        """Open what the transport needs before its first request."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class ClientState:
    """The state of one event loop in one process, from the first use to ``aclose``."""

    def __init__(self, registry: Registry, options: Options) -> None:
        self.registry = registry
        self.routes: dict[tuple[str | Operation, tuple[object, ...]], Route] = {}
        self.spend = Spend()
        self.deadlines = DeadlineScheduler()
        self._options = options
        self.call_slots = asyncio.Semaphore(options.max_concurrency or default_concurrency())
        self._transports: dict[object, object] = {}
        self._emulator_urls: dict[tuple[object, Operation], str | None] = {}
        self._layers: dict[str, object] = {}
        self._identity_holders: list[object] = []
        """Plugins whose identity is part of a route's key. Held here so that no other object gets the same identity."""
        self._store: StateStore | None = None
        self._store_users = 0
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self.is_closed = False

    def check(self, *, is_closing: bool = False) -> None:
        """Raise ClientClosedError or LoopMismatchError if the client can't be used here."""
        if self.is_closed and not is_closing:
            raise ClientClosedError("the client is closed; make a new one")
        if self._pid != os.getpid():
            raise LoopMismatchError("the client was made before a fork; make one in this process")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise LoopMismatchError("the client belongs to another event loop; make one in this loop")

    async def open(self, model: str | Operation, options: Options) -> Route:
        """Open a route. A model's module is imported in a thread, since imports may take long."""
        await self.open_state()
        async with self._opening:
            self.check()
            key = (model, options.layers)  # siblings with equal layers share a route, whatever their keys
            if (route := self.routes.get(key)) is not None:
                return route
            operation = await asyncio.to_thread(self.registry.operation, model) if isinstance(model, str) else model
            if options.providers:
                await asyncio.to_thread(self.registry.check_settings, options.providers, operation)
            transport = await self._transport(operation, options)
            await self._start_emulator(transport, operation, options)
            names = (*BUILT_IN, *options.middleware)
            layers = await asyncio.to_thread(lambda: [self._middleware(layer) for layer in names])
            route = Route.open(operation, transport, layers[1:], retries=layers[0])
            self._identity_holders += (options.transport, *options.middleware)
            self.routes[key] = route
            return route

    @asynccontextmanager
    async def state_store(self) -> AsyncIterator[StateStore]:
        """Yield the store of the client's state, one for all who use it. Raises ConfigError without a usable one.

        If it is away, its operations say so. It stays open for those who use it, whose calls end while the client
        closes: they record their ends in it.
        """
        store = await self._open_store()
        self._store_users += 1
        try:
            yield store
        finally:
            self._store_users -= 1
            if self.is_closed:
                await self._close_store()

    async def open_state(self) -> None:
        """Open the store of a URL before anything is sent, also if no call will need it. Raises ConfigError."""
        self.check()
        if isinstance(self._options.state, str):
            await self._open_store()

    async def _open_store(self) -> StateStore:
        address = self._options.state
        if address is None:
            raise ConfigError('the client has no state: give Client(state="machine"), or the path of a folder')
        if not isinstance(address, str | Path):
            return address  # the caller's own
        async with self._opening:
            self.check()
            if self._store is None:
                store = await asyncio.to_thread(state_of, os.fspath(address), self.registry)
                try:
                    await open_store(store)
                except BaseException:
                    await finish(_close("the state", store.aclose))  # it may be opened in part
                    raise
                self._store = store
            return self._store

    async def _close_store(self) -> None:
        if self._store is not None and not self._store_users:
            store, self._store = self._store, None
            await _close("the state", store.aclose)

    @asynccontextmanager
    async def reserve(self, call: Call, limit: float) -> AsyncIterator[Callable[[Result], None]]:
        """Reserve money for a call, see ``Spend.reserve``; clients with a state share it."""
        if self._options.state is None:
            with self.spend.reserve(call, limit) as settle:
                yield settle
        else:
            async with self.state_store() as store, reserve_in_state(store, call, limit) as settle:
                yield settle

    def emulator_url(self, operation: Operation, options: Options) -> str | None:
        """Return the base URL of what stands in for a model's provider, or None if the provider itself is called."""
        return self._emulator_urls.get((options.layers[0], operation))

    def new_account(self, operation: Operation, options: Options, *, region: str) -> Account:
        """Return the key and address of a model; ``region``: that of an ARN, or empty. Raises ConfigError."""
        provider = operation.provider
        settings = {**options.settings(provider.name), "arn_region": region or None}
        account = account_of(provider, settings, emulator_url=self.emulator_url(operation, options))
        if options.rate_limit is not None:
            account = attrs.evolve(account, rate_limit=options.rate_limit)
        least, chosen = provider.poll_interval, options.poll_interval
        if chosen is not None and chosen < least and provider.is_own_host(account.base_url):
            raise ConfigError(f"poll_interval must be at least {least:g} s against {provider.name}'s own host")
        return account

    async def _start_emulator(self, transport: object, operation: Operation, options: Options) -> None:
        key = options.layers[0], operation
        emulate = getattr(transport, "emulate", None)
        if emulate is None:
            self._emulator_urls[key] = getattr(transport, "base_url", None)
            return
        with plugin_boundary(f"the emulator of {operation.provider.name} failed", awaits=True):
            self._emulator_urls[key] = await emulate(operation, self.registry)

    async def aclose(self) -> None:
        """Cancel all calls and close all transports. Calling it again does nothing. Raises LoopMismatchError."""
        self.check(is_closing=True)
        self.is_closed = True
        self.deadlines.close()
        # Calls first: each then reports by its own evidence if it may have been charged. The lock waits for a
        # transport that is being opened, which is then closed too.
        async with self._opening:
            self.routes.clear()
            await self._stack.aclose()
            await self._close_store()

    async def _transport(self, operation: Operation, options: Options) -> object:
        chosen = options.transport if options.transport is not None else operation.provider.transport
        if not isinstance(chosen, str):
            return self._transports.setdefault(identity(chosen), chosen)  # the caller's own, who closes it
        if (cached := self._transports.get(chosen)) is not None:
            return cached
        factory = await asyncio.to_thread(self.registry.load, TRANSPORTS, chosen, type)
        with plugin_boundary(f"transport {chosen!r} can't be opened", awaits=True):
            transport = cast("Transport", factory(self._options))
            self._close_later(f"transport {chosen!r}", transport.aclose)  # first: it may be opened in part
            await transport.open()
        self._transports[chosen] = transport
        return transport

    def _middleware(self, layer: object) -> object:
        if isinstance(layer, str):
            return self._layers.get(layer) or self._create_middleware(layer)
        if hasattr(layer, "middleware"):
            return layer
        if callable(layer):
            return SimpleNamespace(middleware=hookimpl(lambda: layer))
        raise BrokenPlugin(f"invalid middleware {layer!r}; give a name, a plugin or a function (wire, next)")

    def _create_middleware(self, name: str) -> object:
        """Create a middleware by name: a class once, with the client's options.

        If it has ``use_state``, it gets the client's store, and if it has ``aclose``, it is closed with the client.
        """
        plugin = self.registry.load(MIDDLEWARE, name, object)
        with plugin_boundary(f"middleware {name!r} can't be made"):
            middleware = plugin(self._options) if isinstance(plugin, type) else plugin
            if self._options.state is not None and (use_state := getattr(middleware, "use_state", None)) is not None:
                use_state(self.state_store)
        if middleware is not plugin and (aclose := getattr(middleware, "aclose", None)) is not None:
            self._close_later(f"middleware {name!r}", aclose)
        self._layers[name] = middleware
        return middleware

    def _close_later(self, plugin: str, aclose: Callable[[], Awaitable[object]]) -> None:
        """Close a plugin with the client."""
        self._stack.push_async_callback(_close, plugin, aclose)


def shared_state(client: Client) -> Callable[[], AbstractAsyncContextManager[StateStore]] | None:
    """Return a function that opens the store of the client's state; None if that is a folder, or if it has none."""
    own, shared = client._options, client._shared  # noqa: SLF001 - the parts of a client are the core's
    return None if isinstance(own.state, Path | None) else shared.state_store


async def _close(plugin: str, aclose: Callable[[], Awaitable[object]]) -> None:
    """Close a plugin. If it fails at that, the results of the calls before must not be lost."""
    try:
        await aclose()
    except GeneratorExit:
        raise
    except BaseException as error:  # a plugin may raise anything
        pass_interrupt(error)
        if is_cancelled(error):
            raise
        _log.error("%s could not be closed: %s", plugin, describe_error(error))
