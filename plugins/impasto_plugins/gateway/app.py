"""The way of every request: its route, who asks, the endpoint, and an error in OpenAI's shape where one comes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Coroutine
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

from aiohttp import web

from impasto import File, ImpastoError
from impasto.ext import is_loopback, pass_interrupt, printable

from .auth import NOBODY, Caller
from .batches.context import BatchExchange
from .batches.scheduler import Batches
from .calls.queue_timeout import patience, patience_of
from .calls.runtime import Setup
from .errors import SERVER, Failure, failure_of, new_id, plugin_error, sign
from .http import cors
from .http.body import check_kind
from .http.memory_budget import Flow
from .idempotency.coordinator import Repeats
from .routes import UNVERSIONED, not_allowed, options_response, routed
from .storage.database import Data
from .telemetry.instrumentation import Observer
from .telemetry.metrics import IN_FLIGHT
from .telemetry.request_record import LEFT, Seen

_log = logging.getLogger("impasto.gateway")

_HEALTH = {"/health/liveliness": "alive", "/health/readiness": "ready"}
_LOCAL_NAMES = ("localhost", "0.0.0.0")  # noqa: S104 - a name that callers write, as the usual examples do


class _Host(NamedTuple):
    """The host of a ``Host`` header, without its port."""

    name: str
    is_local: bool
    is_address: bool


_PORT = re.compile(r":[0-9]*\Z")  # it may be empty (RFC 3986, 3.2.3)


@lru_cache(maxsize=256)
def _host(named: str) -> _Host:
    host = _PORT.sub("", named).strip("[]").lower().removesuffix(".")  # a last dot is the root of all names
    return _Host(host, host in _LOCAL_NAMES or is_loopback(host), _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _wrong_origin(request: web.BaseRequest) -> Failure:
    origin = printable(request.headers["origin"][:120])
    said = f"pages of {origin} may not call this gateway; add that origin to general_settings.cors_origins"
    return Failure(403, said, code="origin_not_allowed", close=True)


class App:
    """A gateway's one handler. ``setup`` is replaced as a whole when the configuration is read again."""

    def __init__(self, setup: Setup, data: Data, repeats: Repeats, observer: Observer, *, local: bool) -> None:
        self.setup = setup
        self.observer = observer
        self.data = data
        self.repeats = repeats
        self.batches = Batches(self)
        self.local = local
        """Whether it is served on loopback only."""
        self.flow = Flow(setup.config.general.max_bytes_in_flight)
        self.base_url = ""
        self.draining = False
        self._running: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self.take_up(setup)

    def take_up(self, setup: Setup) -> None:
        """Serves by another configuration from the next request on."""
        self.setup = setup
        self.observer.log_requests = setup.config.general.access_log
        self.flow.most = setup.config.general.max_bytes_in_flight

    @property
    def own_url(self) -> str:
        """What the URLs of pictures begin with."""
        return self.setup.config.general.public_url or self.base_url

    @property
    def running(self) -> int:
        """How many requests are answered, and jobs are made."""
        return len(self._running)

    async def idle(self) -> None:
        """Waits until nothing runs."""
        while self._running:
            self._idle.clear()
            await self._idle.wait()

    async def open_upload(self, id: str, owner: bytes, param: str) -> File:
        """Return the image that a key has uploaded, for its caller to close; ``param`` names it. Raises Failure."""
        return await self.batches.open_upload(id, owner, param)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Begins work that goes on when its request is answered."""
        task = asyncio.create_task(work)
        self._begins(task)
        task.add_done_callback(self._ended)

    async def aclose(self) -> None:
        """Gives up what runs."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = self.observer.begin(request, new_id())
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in one
        self._begins(task)
        try:
            return await self._answered(request, seen)
        except ConnectionError:  # the caller left while the request was read or answered
            self.observer.end(request, LEFT)
            raise
        finally:
            self._ends(task)

    def _begins(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        self.observer.metrics.set(IN_FLIGHT, value=self.running)

    def _ends(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self.observer.metrics.set(IN_FLIGHT, value=self.running)
        if not self._running:
            self._idle.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ends(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("work failed that goes on behind a request", exc_info=error)

    async def _answered(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        try:
            response = await self._endpoint(request, seen)
        except (Failure, ImpastoError) as error:
            failure = failure_of(error) if isinstance(error, ImpastoError) else error
            seen.code = failure.code
            response = failure.response()
        except (ConnectionError, GeneratorExit):
            raise
        except Exception:  # noqa: BLE001 - a bug here must be an answer there, without its text
            _log.exception("request %s failed", seen.id)
            response = Failure(500, "the gateway failed; its log says why", SERVER, "internal_error").response()
        except BaseException as error:  # of a plugin: SystemExit, what a panic in Rust becomes, or a cancellation
            pass_interrupt(error)
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            _log.exception("request %s failed in a plugin", seen.id)
            seen.code = "plugin_error"
            response = plugin_error().response()
        if not response.prepared:
            sign(response, seen.id)
            response.headers.update(cors.headers_for(request, self.setup.config.cors_origins))
            if self.draining:
                response.force_close()
        return response

    async def _endpoint(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        path = request.rel_url.raw_path
        asks_for_methods = request.method == "OPTIONS" and not cors.is_preflight(request)
        if path in UNVERSIONED:
            seen.route = path
            if request.method not in ("GET", "HEAD") and not asks_for_methods:
                raise not_allowed(["GET"])
        if path in _HEALTH and not asks_for_methods:  # whatever it is called by: a balancer asks by address
            return self._health(path)
        check_kind(request)
        if path == "/metrics" and not asks_for_methods:
            return await self._metrics(request, seen)
        self._check_host(request)
        if asks_for_methods:
            return options_response(path)
        patience.set(patience_of(request.headers, self.setup.config.general.max_wait_seconds))
        route, tail = routed(path)
        seen.route = route.path
        setup, caller = self.setup, NOBODY
        origins = setup.config.cors_origins
        if origins and cors.is_preflight(request):
            if not cors.is_allowed(request, origins):
                raise _wrong_origin(request)
            return cors.preflight_response(request, route.methods)
        endpoint = route.endpoint(request.method)
        if not route.open:
            caller = self._caller(request, seen)
            if caller is NOBODY and cors.is_foreign(request) and not cors.is_allowed(request, origins):
                raise _wrong_origin(request)  # without keys any web page could have images made, with a form
        if self.draining and request.method == "POST":
            raise Failure(503, "the gateway is stopping", SERVER, "stopping", retry_after=1, should_retry=True)
        return await endpoint(
            BatchExchange(
                request=request,
                id=seen.id,
                caller=caller,
                setup=setup,
                services=self,
                headers=cors.headers_for(request, origins),
                batches=self.batches,
                tail=tail,
            )
        )

    def _check_host(self, request: web.BaseRequest, *, by_address: bool = False) -> None:
        """Refuse names that are not this gateway's: a web page's own may point at it.

        ``by_address``: any address will do, as probes call a pod by its own.
        """
        if (named := request.headers.get("host")) is None:  # HTTP/1.0, which no browser speaks
            return
        host = _host(named)
        if (self.local and host.is_local) or self.setup.config.allows_host(host.name):
            return
        if by_address and host.is_address:  # a web page can point a name at this machine, but no address
            return
        name = printable(host.name[:80])
        said = f"the gateway is not served as {name!r}; add this host to general_settings.allowed_hosts"
        raise Failure(421, said, code="host_not_allowed", close=True)

    def _caller(self, request: web.BaseRequest, seen: Seen) -> Caller:
        caller = self.setup.keys.identify(request.headers)
        seen.key = caller.name
        return caller

    def _health(self, path: str) -> web.Response:
        """Alive is whoever answers: a loop that is held up does not. Late it is not, as its calls are paid for."""
        status, told = 200, _HEALTH[path]
        if self.draining and told == "ready":
            status, told = 503, "stopping"
        return web.Response(status=status, body=json.dumps({"status": told}).encode(), content_type="application/json")

    async def _metrics(self, request: web.BaseRequest, seen: Seen) -> web.Response:
        self._check_host(request, by_address=True)
        if not self.local or self.setup.config.allowed_hosts:  # with allowed_hosts others reach it through a proxy
            self._caller(request, seen)
        self.observer.sample()
        told, media_type = await asyncio.to_thread(self.observer.metrics.told, request.headers.get("accept", ""))
        return web.Response(body=told, headers={"content-type": media_type})
