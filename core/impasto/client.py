"""The client: opens transports, limits calls in flight, fans out n, closes everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Self, Unpack

import attrs

from .call import Call
from .client_state import ClientState
from .costs import Cost
from .errors import ConfigError
from .fanout import check_job, check_n, fan_out, run_single
from .model_names import resolve_model
from .options import SHARED, Options, Settings, check_names, check_seconds
from .params import NO_PARAMS, close_files
from .policy import Retry
from .records import Partial, Request, Result
from .registry import OPERATIONS, Registry
from .route import Route

if TYPE_CHECKING:
    from types import TracebackType

    from . import BatchOptions, Outcome, StabilityAccount
    from .describe import Description
    from .operation import Operation
    from .provider import Account


class Client:
    """A client for all installed models. One per event loop; use ``async with``, or call ``aclose()`` at the end.

    All settings are optional keywords, see ``Settings``: ``timeout`` (seconds for a whole call from the moment it gets
    its slot, retries and polls included; 300), ``connect_timeout`` (10), ``poll_interval`` (the provider's own; 10 for
    Stability), ``max_concurrency`` (calls in flight; by default as many as the limit of open files allows),
    ``rate_limit``, ``retry``, ``middleware``, ``spend_limit_usd``, ``transport`` (``"emulator"``), ``plugins`` (the
    distributions whose plugins may be used beside impasto's own; ``"none"``), ``state`` (``"machine"``, a folder, a
    store or its URL: processes share limits and keys), ``proxy``, ``ssl`` (a CA file or SSLContext), keys, addresses.

    Raises ConfigError.
    """

    def __init__(self, *, registry: Registry | None = None, **settings: Unpack[Settings]) -> None:
        check_names(settings)
        self._options = options = Options(**settings)
        if registry is not None and options.plugins is not None:
            raise ConfigError("plugins can't be combined with registry; give Registry(allow=...)")
        self._registry = registry
        self._shared = ClientState(registry or Registry(allow=options.plugins), options)
        self._accounts: dict[tuple[Operation, str], Account] = {}

    def with_options(self, **settings: Unpack[Settings]) -> Client:
        """Return a client that shares connections and limits with this one, with other keys, limits or times.

        What is not named stays, in ``providers`` too: there None takes away a provider's setting, or all of them.
        Raises ConfigError for settings of the shared connections; these can't differ between siblings.
        """
        check_names(settings)
        if fixed := sorted(SHARED & settings.keys()):
            raise ConfigError(f"{fixed[0]} is shared by both clients and can't change; make another Client")
        sibling = object.__new__(Client)
        sibling._options, sibling._accounts = self._options.changed(settings), {}
        sibling._registry, sibling._shared = self._registry, self._shared
        return sibling

    def __reduce__(self) -> tuple[Callable[[], Client], tuple[()]]:
        """Return the settings. A key from the environment is not among them: another process reads its own."""
        if self._registry is not None:
            raise TypeError("a client with its own registry can't be pickled; make it in the other process")
        return partial(Client, **{name: getattr(self._options, name) for name in attrs.fields_dict(Options)}), ()

    async def __aenter__(self) -> Self:
        await self._shared.open_state()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel every call and close every connection, those of ``with_options`` siblings too.

        A call whose request was sent raises ChargeUnknown (with a job's ``id``), any other ClientClosedError.
        """
        await self._shared.aclose()

    async def run(
        self,
        model: str,
        /,
        *,
        n: int = 1,
        timeout: float | None = None,
        retry: Retry | None = None,
        base_model: str | None = None,
        idempotency_key: str | None = None,
        **params: object,
    ) -> Result:
        """Run a model with the provider's own fields. ``n`` images are ``n`` calls side by side (1 to 10).

        ``idempotency_key`` (with a ``state``): the same key and request joins the running call or gets its result for a
        day. Raises InvalidRequest before anything is sent, with every problem; otherwise ``impasto.errors``.
        """
        return await self.invoke(
            model, params, n=n, timeout=timeout, retry=retry, base_model=base_model, idempotency_key=idempotency_key
        )

    def stream(
        self,
        model: str,
        /,
        *,
        timeout: float | None = None,
        retry: Retry | None = None,
        base_model: str | None = None,
        **params: object,
    ) -> AsyncGenerator[Partial | Result]:
        """Run a model as ``run`` does, and yield partial results while it runs, then the result, which alone is paid.

        A provider without streams yields just its result. Leaving early cancels the call; it may have been charged.
        """
        from .streaming import stream_call

        return stream_call(self, model, params, timeout=timeout, retry=retry, base_model=base_model)

    async def resume(
        self, model: str, id: str, /, *, n: int = 1, timeout: float | None = None, call: Callable[..., Call] = Call
    ) -> Result:
        """Fetch the result of a job that was accepted earlier, with the key that started it. This costs nothing.

        ``n``: the images that it was asked for. ``timeout`` in seconds; ``call`` as for ``invoke``. Raises
        InvalidRequest if ``id`` can't be a job's, PollExpired, and the errors of a call.
        """
        check_job(id, n, model)
        route = await self._route(resolve_model(model)[0])
        request = Request(operation=model, params=NO_PARAMS, target=route.operation.target, job=id, count=n)
        return await run_single(n, request, lambda each: self._run_once(route, each, timeout, None, call))

    async def invoke(
        self,
        model: str,
        params: Mapping[str, object] | Request,
        *,
        n: int = 1,
        timeout: float | None = None,
        retry: Retry | None = None,
        base_model: str | None = None,
        user: str | None = None,
        idempotency_key: str | None = None,
        call: Callable[..., Call] = Call,
    ) -> Result:
        """Run a model as ``run`` does, with its parameters as a mapping. ``user``: the end user's id for the provider.

        ``params`` may be a request that ``operation.request`` has checked already; its files are closed here.
        ``call``: a Call subclass (or a factory with the same arguments) that records progress, without an idempotency
        key. Raises ConfigError if ``retry`` is not a Retry, and the errors of ``run``.
        """
        if retry is not None and not isinstance(retry, Retry):
            raise ConfigError(f"retry must be an impasto.Retry, not {type(retry).__name__}")
        name, address = resolve_model(model, base_model)
        route = self._cached_route(name) or await self._route(name)
        operation = route.operation
        if isinstance(params, Request):
            if type(n) is not int or n != 1:
                check_n(n, model)
            request = params
        elif any(params.get(name) is not None for name in operation.file_fields):  # a few bytes hold many pixels
            request = await asyncio.to_thread(operation.request, model, params, user, n=n)
        else:
            request = operation.request(model, params, user, n=n)
        if address is not None:
            request = attrs.evolve(request, target=address)
        try:
            if idempotency_key is not None:
                from . import run_idempotent

                state, settings = self._shared.state_store, (n, timeout, retry, base_model)
                return await run_idempotent(self, self._options, state, idempotency_key, model, request, *settings)
            if n == 1 and operation.native_n is None:
                return await self._run_once(route, request, timeout, retry, call)
            return await fan_out(n, request, operation, lambda each: self._run_once(route, each, timeout, retry, call))
        finally:
            if operation.file_fields:
                close_files(request.params)

    async def estimate(self, model: str, /, n: int = 1, **params: object) -> Cost | None:
        """Return what ``run`` with these arguments would cost, or None if the price is unknown. Sends nothing.

        Raises InvalidRequest and RegistryError.
        """
        operation = await self.operation(model)
        request = await asyncio.to_thread(operation.request, model, params, n=n)
        close_files(request.params)
        return None if (price := operation.cost(request)) is None else price.times(n)

    def batch(
        self,
        requests: Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]],
        **options: Unpack[BatchOptions],
    ) -> AsyncGenerator[Outcome]:
        """Run many requests side by side, and yield each image's outcome as it comes.

        A request is a row of a manifest: ``{"id": ..., "model": ..., **fields}``, or OpenAI's form. An invalid one is
        an outcome too. With ``out``, a folder or ``s3://bucket/prefix``, images and a ledger are stored, and images in
        the ledger are not requested again; ``BatchOptions`` lists the other options. Leaving early cancels requests in
        flight.
        """
        from . import run_batch

        return run_batch(self, requests, **options)

    async def operation(self, model: str, *, base_model: str | None = None) -> Operation:
        """Return the plugin behind a model, to check a request before ``invoke``. Raises RegistryError."""
        return (await self._route(resolve_model(model, base_model)[0])).operation

    async def account(self, model: str, *, base_model: str | None = None) -> Account:
        """Return the key and address that a model is called with. Raises ConfigError if there is no usable key."""
        operation = await self.operation(model, base_model=base_model)
        return self._account(operation, resolve_model(model, base_model)[1] or operation.target)

    async def address(self, operation: Operation) -> str:
        """Return an operation's base URL, or the transport that stands in for it. Raises ConfigError without a key."""
        await self._route(operation)
        chosen, account = self._options.transport, self._account(operation, operation.target)
        if account.base_url != self._shared.emulator_url(operation, self._options):
            return account.base_url
        return chosen if isinstance(chosen, str) else type(chosen).__name__

    async def warm(self, *models: str) -> None:
        """Import models and open their transports before the first call."""
        for model in models:
            await self._route(resolve_model(model)[0])

    def models(self) -> list[str]:
        """Return the names of all installed models, from metadata alone."""
        return self._shared.registry.names(OPERATIONS)

    def describe(self, model: str) -> Description:
        """Return a model's parameters with types, limits and defaults, its rules and its price."""
        from .describe import describe

        return describe(model, self._shared.registry.operation(resolve_model(model)[0]))

    @property
    def stability(self) -> StabilityAccount:
        """The account at Stability AI: ``balance()``, ``account()``, ``engines()``."""
        from . import StabilityAccount  # a plugin's, reached as the drop-in functions are

        return StabilityAccount(self)

    async def _route(self, model: str | Operation) -> Route:
        return self._cached_route(model) or await self._shared.open(model, self._options)

    def _cached_route(self, model: str | Operation) -> Route | None:
        shared = self._shared
        shared.check()
        return shared.routes.get((model, self._options.layers))

    async def _run_once(
        self,
        route: Route,
        request: Request,
        timeout: float | None,
        retry: Retry | None,
        make: Callable[..., Call],
    ) -> Result:
        options, shared, operation = self._options, self._shared, route.operation
        call = make(
            request,
            self._account(operation, request.target),
            timeout=options.timeout if timeout is None else check_seconds("timeout", timeout),
            retry=retry or options.retry,
            watch=shared.deadlines,
        )
        call.price = operation.cost(request)
        turns, limit = shared.call_slots, options.spend_limit_usd if request.job is None else None
        await turns.acquire()  # spelled out: ``async with`` has two more coroutines
        try:
            if shared.is_closed:  # while the call waited
                shared.check()
            if limit is None:
                result = await route(call, poll_interval=options.poll_interval)
            else:
                async with shared.reserve(call, limit) as settle:
                    result = await route(call, poll_interval=options.poll_interval)
                    settle(result)
        finally:
            turns.release()
        return result

    def _account(self, operation: Operation, target: str) -> Account:
        key = (operation, target.split(":")[3] if target.startswith("arn:") else "")
        if (account := self._accounts.get(key)) is None:
            account = self._accounts[key] = self._shared.new_account(operation, self._options, region=key[1])
        return account
