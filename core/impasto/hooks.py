"""The hooks of which every plugin is made. Each model's route asks its own small set of plugins.

Only ``send`` may touch the network; the others are plain functions that can be tested without a loop. Hooks and
arguments are only ever added, and their version grows with each: see ``HOOKS_VERSION`` in ``impasto.distributions``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

import pluggy

from .errors import ImpastoError
from .records import Middleware, Pending, Request, Result, WireRequest, WireResponse

if TYPE_CHECKING:
    from .operation import Operation
    from .provider import Account

hookspec = pluggy.HookspecMarker("impasto")
hookimpl = pluggy.HookimplMarker("impasto")


class Specs:
    """The hook specifications. Arguments are passed by name; take only those you use."""

    @hookspec(firstresult=True)
    def transform_request(self, request: Request) -> WireRequest | None:
        """Spells a checked request as the provider wants it on the wire.

        Where ``request.job`` is set, the answer is the GET that fetches that job's result.

            @hookimpl
            def transform_request(self, request: Request) -> WireRequest:
                return WireRequest(target=request.target, fields={"prompt": request.params.prompt})
        """

    @hookspec(firstresult=True)
    def send(self, wire: WireRequest) -> Awaitable[WireResponse] | None:
        """Carries one request out, once. The only hook that may touch the network.

        Calls ``wire.call.attempt()`` before a POST, ``wire.call.left()`` when its headers leave and
        ``wire.call.on_written()`` when all of a request went out. Raises NotSent where nothing left, ChargeUnknown
        where something did, and never retries.

            @hookimpl
            async def send(self, wire: WireRequest) -> WireResponse:
                wire.call.attempt()
                wire.call.left()
                return WireResponse(status=200, headers={"content-type": "image/png"}, body=PNG)
        """

    @hookspec(firstresult=True)
    def classify_error(self, request: Request, response: WireResponse) -> ImpastoError | None:
        """Names the failure that an answer is, or None where it is none. Its body was read to the end.

        @hookimpl
        def classify_error(self, response: WireResponse) -> ImpastoError | None:
            if response.status == 429:
                return RateLimited("too many requests", status=429)
            return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}")
        """

    @hookspec(firstresult=True)
    def passes_on(self, request: Request, response: WireResponse) -> bool | None:
        """Whether an answer, of which only the status and the headers are here, is the artifact, or JSON that holds it.

        Where it is, a caller with a spool (``Call.spool``) does not hold a large one in memory, and may pass on what
        is no JSON while it comes: ``normalize_response`` gets it as ``response.file``. Where no plugin says so it is
        held.

        @hookimpl
        def passes_on(self, response: WireResponse) -> bool:
            return response.status == 200 and response.media_type == "image/png"
        """

    @hookspec(firstresult=True)
    def normalize_response(self, request: Request, response: WireResponse, account: Account) -> Result | Pending | None:
        """Makes the result of a good answer, or says that a job was accepted. Raises UnusableResult.

        ``account`` says where and for whom it was asked: an address in the answer is followed to that host alone.

        @hookimpl
        def normalize_response(self, response: WireResponse) -> Result:
            return Result(artifacts=(Artifact(data=response.body, media_type=response.media_type),))
        """

    @hookspec
    def middleware(self, operation_id: str, operation: Operation) -> Middleware | None:
        """Gives what shall stand around every exchange of a model, or None. Asked once, when its route opens.

        ``operation_id`` is ``operation.id``, which was all that version 1 of the hooks gave.

        @hookimpl
        def middleware(self, operation: Operation) -> Middleware:
            async def log(wire: WireRequest, next: Handler) -> WireResponse:
                response = await next(wire)
                print(operation.title, response.status)
                return response
            return log
        """
