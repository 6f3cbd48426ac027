"""One model's way to the provider and back: its plugins in a small manager of their own, and the request loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import pluggy

from .errors import (
    BrokenPlugin,
    ChargeUnknown,
    ImpastoError,
    NotFound,
    NotSent,
    PollExpired,
    ProviderFault,
    RateLimited,
    ResponseError,
    TransportError,
    UnusableResult,
)
from .hooks import Specs
from .operation import Operation
from .records import Handler, Middleware, Pending, Request, Result, WireRequest, WireResponse
from .redact import redacted

if TYPE_CHECKING:
    from .call import Call

_ORDER: dict[str, int] = {"outer": 0, "retry": 1, "limit": 2, "inner": 3}


def _around(middleware: Middleware, inner: Handler) -> Handler:
    return lambda wire: middleware(wire, inner)


def _position(middleware: Middleware) -> int:
    return _ORDER[getattr(middleware, "position", "inner")]  # an unknown one is a KeyError: the plugin is broken


@attrs.frozen(eq=False)
class Route:
    """One operation bound to its transport and middleware, ready to call."""

    operation: Operation
    hook: pluggy.HookRelay
    send: Handler

    @classmethod
    def open(cls, operation: Operation, transport: object, middleware: Sequence[object] = ()) -> Route:
        """Registers the plugins and composes the middleware, once. Raises BrokenPlugin."""
        manager = pluggy.PluginManager("impasto")
        manager.add_hookspecs(Specs)
        try:
            for plugin in (transport, *middleware, operation):
                manager.register(plugin)
            manager.check_pending()
            layers = manager.hook.middleware(operation_id=operation.id)
        except Exception as error:  # pluggy's validation, or whatever a plugin's own middleware hook raises
            raise BrokenPlugin(f"{operation.id}: a plugin does not fit the hooks: {error}") from error
        hook = manager.hook

        async def transmit(wire: WireRequest) -> WireResponse:
            call = wire.call
            call.begin()
            response: WireResponse = await hook.send(wire=wire)
            if (stream := response.stream) is not None:
                call.body = stream
                response = attrs.evolve(response, body=await stream.collect(), stream=None)
            error = hook.classify_error(request=call.request, response=response)
            if error is not None:
                raise error
            return response

        send: Handler = transmit
        for layer in sorted(layers, key=_position, reverse=True):
            send = _around(layer, send)
        return cls(operation, hook, send)

    async def __call__(self, call: Call, *, poll_interval: float) -> Result:
        """One picture: transform, send, classify, normalize; a job is polled to its end, under the call's deadline."""
        try:
            with call.deadline:
                return await self._run(call, poll_interval)
        except TimeoutError:
            raise self._told(_timed_out(call), call) from None
        except asyncio.CancelledError as cancelled:
            if call.sent or call.job:
                cancelled.add_note(f"{self.operation.id}: {_unknown(call)}")
            raise
        except ImpastoError as error:
            self._told(error, call)
            raise
        except Exception as error:  # a plugin broke its contract: what may be paid must still be told
            raise self._told(_broken(error, call), call) from error

    async def _run(self, call: Call, poll_interval: float) -> Result:
        request = call.request
        wire: WireRequest = self.hook.transform_request(request=request)
        if request.job is None:
            response = await self.send(attrs.evolve(wire, call=call))
            outcome = self._normalize(request, response)
            if not isinstance(outcome, Pending):
                return outcome
        else:
            call.begin()
            outcome = Pending(id=request.job, poll=wire)
        call.accepted(outcome.id)
        return await self._poll(call, outcome, poll_interval)

    def _normalize(self, request: Request, response: WireResponse) -> Result | Pending:
        try:
            outcome: Result | Pending = self.hook.normalize_response(request=request, response=response)
        except ImpastoError:
            raise
        except Exception as error:  # whatever a plugin's code makes of a paid answer, its bytes are kept
            raise UnusableResult(
                f"the answer could not be read: {type(error).__name__}",
                raw=response.body,
                media_type=response.media_type,
            ) from error
        if not isinstance(outcome, Result | Pending):
            raise UnusableResult("the plugin made nothing of the answer", raw=response.body)
        return outcome

    async def _poll(self, call: Call, pending: Pending, interval: float) -> Result:
        """Asks for the result until it is there. Asking is free: only the end of the job or of the time ends it."""
        wire = attrs.evolve(pending.poll, call=call)
        accepted = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(interval)
            try:
                outcome = self._normalize(call.request, await self.send(wire))
            except NotFound as error:
                age = asyncio.get_running_loop().time() - accepted
                raise _gone(error, call, age, pending) from None
            except RateLimited:
                if call.remaining() < interval:
                    raise
            except (TransportError, ProviderFault):
                pass
            except ResponseError as error:
                error.billed = "unknown"
                raise
            else:
                if isinstance(outcome, Result):
                    return outcome

    def _told(self, error: ImpastoError, call: Call) -> ImpastoError:
        """The error with the model's name and the job's id, and without the key."""
        error.operation = error.operation or call.request.operation
        error.id = error.id or call.job
        error.message = redacted(error.message, call.account.secrets)
        error.args = (error.message,)
        if isinstance(error, ResponseError):
            error.messages = tuple(redacted(m, call.account.secrets) for m in error.messages)
            if isinstance(error, RateLimited) and call.job:
                error.billed = "unknown"
        return error


def _unknown(call: Call) -> str:
    if call.job:
        return f"job {call.job} goes on at the provider and may be charged; client.resume takes it up"
    return "the request had left; whether it was charged is not known"


def _timed_out(call: Call) -> ImpastoError:
    after = f"no result within {call.timeout:g} s"
    if call.sent or call.job:
        return ChargeUnknown(f"{after}; {_unknown(call)}", raw=call.body.received if call.body else b"")
    return NotSent(f"{after}; nothing was sent", retryable=False)


def _broken(error: Exception, call: Call) -> ImpastoError:
    cause = f"a plugin raised {type(error).__name__}"
    if call.sent or call.job:
        return ChargeUnknown(f"{cause}; {_unknown(call)}", raw=call.body.received if call.body else b"")
    return BrokenPlugin(f"{cause}: {error}")


def _gone(error: NotFound, call: Call, age: float, pending: Pending) -> ImpastoError:
    if call.request.job is not None:
        error.billed = "unknown"
        error.message = f"no result for job {pending.id}: unknown, older than it is kept, or started with another key"
        return error
    if pending.keeps is not None and age >= pending.keeps:
        return PollExpired(f"the result of job {pending.id} is no longer kept by the provider")
    return ChargeUnknown(f"the provider no longer knows job {pending.id}; whether it was charged is not known")
