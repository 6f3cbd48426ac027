"""The hook specifications of plugins. Each model's route calls its own small set of plugins.

Only ``send`` may use the network, and ``authorize`` for its token; the other hooks are plain functions that can be
tested without a loop. Hooks and arguments are only ever added; a plugin takes the arguments that it uses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

import pluggy

from .errors import ImpastoError
from .records import EventOutcome, Middleware, Pending, Request, Result
from .server_events import ServerEvent
from .wire import WireRequest, WireResponse

if TYPE_CHECKING:
    from .operation import Operation
    from .provider import Account

hookspec = pluggy.HookspecMarker("impasto")
hookimpl = pluggy.HookimplMarker("impasto")


class Specs:
    """The hook specifications. Arguments are passed by name; take only those you use."""

    @hookspec(firstresult=True)
    def transform_request(self, request: Request, account: Account) -> WireRequest | Pending | None:
        """Convert a checked request to the provider's form. ``account`` has the settings of the call.

        If ``request.job`` is set, return the GET that fetches that job's result.

            @hookimpl
            def transform_request(self, request: Request) -> WireRequest:
                return WireRequest(target=request.target, fields={"prompt": request.params.prompt})
        """

    @hookspec(firstresult=True)
    def authorize(self, account: Account, refused: bool) -> Awaitable[Mapping[str, str]] | None:
        """Return the headers that authorize a request, such as a token that expires. Implement it in a Provider.

        Called before each request that is not anonymous, so keep a token (``impasto.dialects.TokenCache``). After a 401
        that was not charged it is called once more with ``refused``, and the request is sent again for free.

            class Cloud(Provider):
                @hookimpl
                async def authorize(self, account: Account, refused: bool) -> Mapping[str, str]:
                    return {"authorization": f"Bearer {await tokens.get(account, refused=refused)}"}
        """

    @hookspec(firstresult=True)
    def sign(
        self, account: Account, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Mapping[str, str] | None:
        """Return the headers that sign a request, of which these are the bytes. Implement it in a Provider.

        Called by the transport for each request that is not anonymous, again for each retry, just before it is sent:
        with the whole address, the headers that a plugin set and the content type. In a thread if there are files.

            class Signing(Provider):
                @hookimpl
                def sign(self, account: Account, method: str, url: str, body: bytes) -> Mapping[str, str]:
                    text = f"{method} {url} {sha256(body).hexdigest()}".encode()
                    return {"x-signature": hmac.new((account.key or "").encode(), text, sha256).hexdigest()}
        """

    @hookspec(firstresult=True)
    def send(self, wire: WireRequest) -> Awaitable[WireResponse] | None:
        """Send one request, once. The only hook that may use the network.

        Make the exchange within ``wire.call.sending(paid=...)``, and report there when the headers leave and when the
        whole request was written. Raise NotSent if nothing was sent, ChargeUnknown if something was, and never retry.

            @hookimpl
            async def send(self, wire: WireRequest) -> WireResponse:
                with wire.call.sending(paid=wire.method == "POST") as evidence:
                    evidence.headers_sent()
                    evidence.body_sent()
                    return WireResponse(status=200, headers={"content-type": "image/png"}, body=PNG)
        """

    @hookspec(firstresult=True)
    def classify_error(self, request: Request, response: WireResponse) -> ImpastoError | None:
        """Return the error that an answer means, or None if it is a success. The body was read to its end.

        @hookimpl
        def classify_error(self, response: WireResponse) -> ImpastoError | None:
            if response.status == 429:
                return RateLimited("too many requests", status=429)
            return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}")
        """

    @hookspec(firstresult=True)
    def is_artifact_body(self, request: Request, response: WireResponse) -> bool | None:
        """Return True if the response body is the artifact itself, or JSON that contains it.

        Called with status and headers only. If True, a caller with a spool (``Call.spool``) keeps large bodies on disk
        and may stream those that are not JSON to its own client; ``normalize_response`` then gets ``response.file``.
        Without this hook the body is held in memory.

        @hookimpl
        def is_artifact_body(self, response: WireResponse) -> bool:
            return response.status == 200 and response.media_type == "image/png"
        """

    @hookspec(firstresult=True)
    def normalize_event(self, request: Request, event: ServerEvent) -> EventOutcome | tuple[EventOutcome, ...] | None:
        """Return what an event of a stream means: a partial result, the result, a count of tokens, or None.

        A Usage has the tokens of the whole answer so far: that after the last image wins over those of the results.
        A tuple has several of them.

        Called for each event of a successful answer of the type ``text/event-stream``; ``normalize_response`` is not.
        Only the last result is paid for. Raise the error that an error event means, with its ``billed``. If
        ``request.stream`` is set, ``transform_request`` asks for a stream.

        @hookimpl
        def normalize_event(self, event: ServerEvent) -> Partial | Result | None:
            artifact = Artifact(data=b64decode(json.loads(event.data)["image"]), media_type="image/png")
            return Partial(artifact) if event.event == "preview" else Result(artifacts=(artifact,))
        """

    @hookspec(firstresult=True)
    def normalize_response(self, request: Request, response: WireResponse, account: Account) -> Result | Pending | None:
        """Return the result of a successful answer, or a Pending for an accepted job. Raise UnusableResult.

        ``account`` is the address and key of the call: a URL in the answer is only followed to that host.

        @hookimpl
        def normalize_response(self, response: WireResponse) -> Result:
            return Result(artifacts=(Artifact(data=response.body, media_type=response.media_type),))
        """

    @hookspec
    def middleware(self, operation: Operation) -> Middleware | None:
        """Return a middleware for every exchange of a model, or None. Called once, when the model's route opens.

        @hookimpl
        def middleware(self, operation: Operation) -> Middleware:
            async def log(wire: WireRequest, next: Handler) -> WireResponse:
                response = await next(wire)
                print(operation.title, response.status)
                return response
            return log
        """
