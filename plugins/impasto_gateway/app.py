"""The way of every request: its route, who asks, the endpoint, and an error in OpenAI's shape where one comes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import unquote

from aiohttp import web

from impasto.provider import is_loopback

from . import listing, served
from .auth import NOBODY
from .connections import UNSOUND, no_http
from .data import Data
from .errors import SERVER, Failure, new_id
from .exchange import Exchange
from .flow import Flow
from .images import EDITS, GENERATIONS, VARIATIONS, images
from .repeats import Repeats
from .setup import Setup

Endpoint = Callable[[Exchange], Awaitable[web.StreamResponse]]

_log = logging.getLogger("impasto.gateway")

_API: Mapping[str, Mapping[str, Endpoint]] = {
    "/images/generations": {"POST": partial(images, kind=GENERATIONS)},
    "/images/edits": {"POST": partial(images, kind=EDITS)},
    "/images/variations": {"POST": partial(images, kind=VARIATIONS)},
    "/models": {"GET": listing.models},
}
_ROUTES = {prefix + path: methods for path, methods in _API.items() for prefix in ("", "/v1")}
_BELOW: Mapping[str, Endpoint] = {"/v1/models/": listing.model, "/models/": listing.model}
_OPEN: Mapping[str, Endpoint] = {"/v1/images/files/": served.file, "/images/files/": served.file}
"""Paths that need no key: what they serve has names that nobody guesses."""

_LOCAL_NAMES = ("localhost", "0.0.0.0")  # noqa: S104 - a name that callers write, as the usual examples do
_LONGEST_TAIL = 300


class App:
    """A gateway's one handler. ``setup`` is replaced as a whole when the configuration is read again."""

    def __init__(self, setup: Setup, data: Data, repeats: Repeats, *, local: bool) -> None:
        self.setup = setup
        self.data = data
        self.repeats = repeats
        self.local = local
        """Whether it is served on loopback only."""
        self.flow = Flow(setup.config.general.max_bytes_in_flight)
        self.base_url = ""
        self.draining = False
        self.running = 0
        self._idle = asyncio.Event()

    def take_up(self, setup: Setup) -> None:
        """Serves by another configuration from the next request on."""
        self.setup = setup
        self.flow.most = setup.config.general.max_bytes_in_flight

    def connection_ended(self, why: str) -> None:
        """A connection ended before its time."""

    async def idle(self) -> None:
        """Waits until no request runs."""
        while self.running:
            self._idle.clear()
            await self._idle.wait()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        id = new_id()
        self.running += 1
        try:
            return await self._answered(request, id)
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()

    async def _answered(self, request: web.BaseRequest, id: str) -> web.StreamResponse:
        try:
            response = await self._endpoint(request, id)
        except Failure as failure:
            response = failure.response()
        except ConnectionError:  # the caller left while the request was read or answered
            raise
        except Exception:  # noqa: BLE001 - a bug here must be an answer there, without its text
            _log.exception("request %s failed", id)
            response = Failure(500, "the gateway failed; its log says why", SERVER, "internal_error").response()
        if not response.prepared:
            response.headers["x-request-id"] = id
            if self.draining:
                response.force_close()
        return response

    async def _endpoint(self, request: web.BaseRequest, id: str) -> web.StreamResponse:
        if (problem := request.get(UNSOUND)) is not None:
            raise no_http(problem)
        path = request.rel_url.raw_path
        if path.startswith("/health/"):  # whatever it is called by: a balancer asks by address
            return self._health(path)
        self._check_host(request)
        endpoint, tail, needs_key = _routed(request.method, path)
        setup = self.setup
        caller = setup.keys.identify(request.headers.getall("authorization", [])) if needs_key else NOBODY
        if self.draining and request.method == "POST":
            raise Failure(503, "the gateway is stopping", SERVER, "stopping", retry_after=1, should_retry=True)
        return await endpoint(
            Exchange(
                request=request,
                id=id,
                caller=caller,
                setup=setup,
                flow=self.flow,
                data=self.data,
                repeats=self.repeats,
                draining=lambda: self.draining,
                base_url=setup.config.general.public_url or self.base_url,
                tail=tail,
            )
        )

    def _check_host(self, request: web.BaseRequest) -> None:
        """Refuses names that are not this gateway's: a web page's own may point at it."""
        named = request.headers.get("host", "")
        host = named.rpartition(":")[0] if named.rpartition(":")[2].isdigit() else named
        host = host.strip("[]").lower()
        if host in self.setup.config.allowed_hosts or (self.local and (host in _LOCAL_NAMES or is_loopback(host))):
            return
        raise Failure(421, "this is not that host's gateway", code="host_not_allowed", close=True)

    def _health(self, path: str) -> web.Response:
        match path:
            case "/health/liveliness":
                status, told = 200, "alive"
            case "/health/readiness":
                status, told = (503, "stopping") if self.draining else (200, "ready")
            case _:
                raise _unknown()
        return web.Response(status=status, body=json.dumps({"status": told}).encode(), content_type="application/json")


def _routed(method: str, path: str) -> tuple[Endpoint, str, bool]:
    """The endpoint of a path, the name at its end, and whether it needs a key. Raises Failure."""
    methods, tail, needs_key = _ROUTES.get(path), "", True
    for paths, key in ((_BELOW, True), (_OPEN, False)):
        for start, below in paths.items():
            if methods is None and path.startswith(start):
                methods, tail, needs_key = {"GET": below}, unquote(path[len(start) :][:_LONGEST_TAIL]), key
    if methods is None:
        raise _unknown()
    if (endpoint := methods.get(method)) is None:
        allowed = ", ".join(methods)
        raise Failure(
            405, f"this path takes {allowed}", code="method_not_allowed", headers={"allow": allowed}, close=True
        )
    return endpoint, tail, needs_key


def _unknown() -> Failure:
    return Failure(404, "there is no such path; see GET /v1/models", code="unknown_url", close=True)
