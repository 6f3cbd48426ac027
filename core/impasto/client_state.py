"""What a client and its ``with_options`` siblings share: plugins, connections, turns and the loop they belong to."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol, cast

from .deadline import Watch
from .errors import BrokenPlugin, ClientClosedError, ImpastoError, LoopMismatchError
from .interrupts import pass_interrupt
from .options import Options, default_concurrency, identity
from .policy import RetryBudget
from .redact import describe_error
from .registry import MIDDLEWARE, TRANSPORTS, Registry
from .route import Route
from .spend_limit import Spend

if TYPE_CHECKING:
    from .operation import Operation

_log = logging.getLogger("impasto")

BUILT_IN = ("retry", "limit")
"""The middleware that every route has: the one owner of retries, and the one of rates."""


class Transport(Protocol):
    """A transport plugin: has a ``send`` hook, owns its connections. Made with the client's options.

    ``base_url`` is set where it serves the provider itself (an emulator), and then needs no key. ``aclose`` must
    do for one that was never, or not wholly, opened.
    """

    def __init__(self, options: Options) -> None: ...
    async def open(self) -> None: ...
    async def aclose(self) -> None: ...


class Shared:
    """Belongs to one event loop of one process, from its first use to ``aclose``."""

    def __init__(self, registry: Registry, options: Options) -> None:
        self.registry = registry
        self.routes: dict[tuple[str | Operation, tuple[object, ...]], Route] = {}
        self.budget = RetryBudget()
        self.spend = Spend()
        self.watch = Watch()
        self._options = options
        self.turns = asyncio.Semaphore(options.max_concurrency or default_concurrency())
        self._transports: dict[object, object] = {}
        self._layers: dict[str, object] = {}
        self._in_use: list[object] = []
        """Plugins that routes are told apart by: nothing else may get the identity of one."""
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._closed = False

    def check(self, *, is_closing: bool = False) -> None:
        """Raise ClientClosedError, unless it is to be closed, or LoopMismatchError if it can't be used here."""
        if self._closed and not is_closing:
            raise _closed()
        if self._pid != os.getpid():
            raise LoopMismatchError("the client was made before a fork; make one in this process")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise LoopMismatchError("the client belongs to another event loop; make one in this loop")

    def begin(self) -> None:
        """A call got its turn. Raises ClientClosedError where the client was closed while it waited."""
        if self._closed:
            raise _closed()
        self.budget.request()

    async def open(self, model: str | Operation, options: Options) -> Route:
        """Opens a route: the module of a model's name is imported in a thread, as imports may take long."""
        async with self._opening:
            self.check()
            key = (model, options.layers)
            if (route := self.routes.get(key)) is not None:
                return route
            operation = await asyncio.to_thread(self.registry.operation, model) if isinstance(model, str) else model
            if options.providers:
                await asyncio.to_thread(self.registry.check_settings, options.providers, operation)
            transport = await self._transport(operation, options)
            layers = [await asyncio.to_thread(self._middleware, layer) for layer in (*BUILT_IN, *options.middleware)]
            route = Route.open(operation, transport, layers[1:], retries=layers[0])
            self._in_use += (options.transport, *options.middleware)
            self.routes[key] = route
            return route

    def stand_in(self, options: Options) -> str | None:
        """The base URL of the transport that serves the provider itself, where the options name one."""
        return cast("str | None", getattr(self._transports.get(options.layers[0]), "base_url", None))

    async def aclose(self) -> None:
        """Ends all calls and closes all transports; a second time it does nothing. Raises LoopMismatchError."""
        self.check(is_closing=True)
        self._closed = True
        self.watch.close()
        async with self._opening:  # a transport that is being opened is closed too
            self.routes.clear()
            await self._stack.aclose()

    async def _transport(self, operation: Operation, options: Options) -> object:
        chosen = options.transport if options.transport is not None else operation.provider.transport
        if not isinstance(chosen, str):
            return self._transports.setdefault(identity(chosen), chosen)  # the caller's own, who closes it
        if (known := self._transports.get(chosen)) is not None:
            return known
        factory = await asyncio.to_thread(self.registry.load, TRANSPORTS, chosen, type)
        try:
            opened = cast("Transport", factory(self._options))
            self._close_later(f"transport {chosen!r}", opened.aclose)  # first: it may be opened in part
            await opened.open()
        except (ImpastoError, GeneratorExit):
            raise
        except BaseException as error:  # a plugin may raise anything
            pass_interrupt(error)
            if _is_cancelled(error):
                raise
            raise BrokenPlugin(f"transport {chosen!r} can't be opened: {describe_error(error)}") from error
        self._transports[chosen] = opened
        return opened

    def _middleware(self, layer: object) -> object:
        if isinstance(layer, str):
            return self._layers.get(layer) or self._made(layer)
        if hasattr(layer, "middleware"):
            return layer
        if callable(layer):
            return _Bare(layer)
        raise BrokenPlugin(f"{layer!r} is no middleware: give a name, a plugin or a function (wire, next)")

    def _made(self, name: str) -> object:
        """A middleware by its name; a class is made with the client's options, once, and closed where it can be."""
        plugin = self.registry.load(MIDDLEWARE, name, object)
        try:
            made = plugin(self._options) if isinstance(plugin, type) else plugin
        except ImpastoError:
            raise
        except BaseException as error:  # a plugin may raise anything; no Ctrl-C, which is the main thread's
            raise BrokenPlugin(f"middleware {name!r} can't be made: {describe_error(error)}") from error
        if made is not plugin and (aclose := getattr(made, "aclose", None)) is not None:
            self._close_later(f"middleware {name!r}", aclose)
        self._layers[name] = made
        return made

    def _close_later(self, plugin: str, aclose: Callable[[], Awaitable[object]]) -> None:
        """Close a plugin with the client. If it fails at that, the results of the calls before must not be lost."""

        async def close() -> None:
            try:
                await aclose()
            except GeneratorExit:
                raise
            except BaseException as error:  # a plugin may raise anything
                pass_interrupt(error)
                if _is_cancelled(error):
                    raise
                _log.error("%s could not be closed: %s", plugin, describe_error(error))

        self._stack.push_async_callback(close)


def _is_cancelled(error: BaseException) -> bool:
    """Return True if somebody cancelled the running task; a plugin may raise CancelledError too."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _closed() -> ClientClosedError:
    return ClientClosedError("the client is closed; make a new one")


class _Bare:
    """A bare function made into a plugin."""

    def __init__(self, layer: object) -> None:
        from .hooks import hookimpl

        def middleware(operation_id: str) -> object:
            return layer

        self.middleware = hookimpl(middleware)
