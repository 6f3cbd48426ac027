"""The path of every request: its route, its caller, the endpoint, and errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Coroutine
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

from aiohttp import web

from impasto import File, ImpastoError
from impasto.ext import StateStore, is_loopback, pass_interrupt, printable

from .auth import ANONYMOUS
from .batches.context import BatchRequestContext
from .batches.scheduler import BatchScheduler
from .calls.queue_timeout import max_queue_wait, read_max_queue_wait
from .calls.runtime import Runtime
from .errors import SERVER, APIError, add_response_headers, new_request_id, plugin_error, to_api_error
from .http import cors
from .http.body import check_content_type
from .http.memory_budget import MemoryBudget
from .idempotency.coordinator import IdempotencyCoordinator
from .routes import UNVERSIONED, match_route, method_not_allowed, normalize_path, options_response
from .storage.contents import StoreError
from .telemetry.instrumentation import Observer
from .telemetry.metrics import IN_FLIGHT
from .telemetry.request_record import CLIENT_CLOSED_REQUEST, RequestRecord

_log = logging.getLogger("impasto.gateway")

_HEALTH_STATES = {"/health/liveliness": "alive", "/health/readiness": "ready"}
_LOCAL_NAMES = ("localhost", "0.0.0.0")  # noqa: S104 - a name that callers write, as the usual examples do


class _Host(NamedTuple):
    """The host in a ``Host`` header, without its port."""

    name: str
    is_local: bool
    is_address: bool


_PORT = re.compile(r":[0-9]*\Z")  # it may be empty (RFC 3986, 3.2.3)


@lru_cache(maxsize=256)
def _parse_host(header: str) -> _Host:
    host = _PORT.sub("", header).strip("[]").lower().removesuffix(".")  # a last dot is the root of all names
    return _Host(host, host in _LOCAL_NAMES or is_loopback(host), _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _origin_error(request: web.BaseRequest) -> APIError:
    origin = printable(request.headers["origin"][:120])
    message = (
        f"pages of {origin} may not call this gateway; to allow it, add the origin to general_settings.cors_origins"
    )
    return APIError(403, message, code="origin_not_allowed", close=True)


def _error_response(error: BaseException, record: RequestRecord) -> web.Response:
    """Return the response to a request that failed. Raises the error again if it ends the request's task."""
    if isinstance(error, APIError | ImpastoError):
        failure = to_api_error(error) if isinstance(error, ImpastoError) else error
        record.code = failure.code
        return failure.to_response()
    if isinstance(error, Exception):
        _log.error("request %s failed", record.id, exc_info=error)
        return APIError(500, "the gateway failed; its log has the reason", SERVER, "internal_error").to_response()
    pass_interrupt(error)  # what follows comes of a plugin: SystemExit, a panic in Rust, or a cancellation
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    _log.error("request %s failed in a plugin", record.id, exc_info=error)
    record.code = "plugin_error"
    return plugin_error().to_response()


class App:
    """The one handler of a gateway. ``runtime`` is replaced as a whole when the configuration is reloaded."""

    def __init__(
        self,
        runtime: Runtime,
        state: StateStore,
        idempotency: IdempotencyCoordinator,
        observer: Observer,
        *,
        is_local: bool,
    ) -> None:
        self.runtime = runtime
        self.observer = observer
        self.state = state
        self.idempotency = idempotency
        self.late_writes = idempotency.store.late_writes
        self.batches = BatchScheduler(self)
        self.is_local = is_local
        """True if it listens on loopback only."""
        self.memory = MemoryBudget(runtime.config.general.max_bytes_in_flight)
        self.base_url = ""
        self.is_draining = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self.reload(runtime)

    def reload(self, runtime: Runtime) -> None:
        """Use another configuration from the next request on."""
        self.runtime = runtime
        self.observer.log_requests = runtime.config.general.access_log
        self.memory.max_bytes = runtime.config.general.max_bytes_in_flight

    @property
    def images_base_url(self) -> str:
        """The base of image URLs."""
        return self.runtime.config.general.public_url or self.base_url

    @property
    def running_count(self) -> int:
        """The number of requests and jobs that run."""
        return len(self._tasks)

    async def wait_idle(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            self._idle.clear()
            await self._idle.wait()

    async def open_upload(self, id: str, owner: bytes, param: str) -> File:
        """Return an uploaded image of a key; the caller closes it. ``param`` names it in errors. Raises APIError."""
        return await self.batches.open_upload(id, owner, param)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Start work that continues after its request is answered."""
        task = asyncio.create_task(work)
        self._add_task(task)
        task.add_done_callback(self._on_task_done)

    async def aclose(self) -> None:
        """Abandon everything that runs."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to one request."""
        record = self.observer.start_request(request, new_request_id())
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in one
        self._add_task(task)
        try:
            response = await self._dispatch(request, record)
        except ConnectionError:  # the caller left while the request was read or answered
            self.observer.end_request(request, CLIENT_CLOSED_REQUEST)
            raise
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - a bug here must be an answer there
            response = _error_response(error, record)
        finally:
            self._remove_task(task)
        if not response.prepared:
            add_response_headers(response, record.id)
            response.headers.update(cors.headers_for(request, self.runtime.config.cors_origins))
            if self.is_draining:
                response.force_close()
        return response

    def _add_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        self.observer.metrics.set(IN_FLIGHT, value=len(self._tasks))

    def _remove_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self.observer.metrics.set(IN_FLIGHT, value=len(self._tasks))
        if not self._tasks:
            self._idle.set()

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._remove_task(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("work that continues after its request failed", exc_info=error)

    async def _dispatch(self, request: web.BaseRequest, record: RequestRecord) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if "%" in path:
            path = normalize_path(path)
        asks_for_methods = request.method == "OPTIONS" and not cors.is_preflight(request)
        if path in UNVERSIONED:
            record.route = path
            if request.method not in ("GET", "HEAD") and not asks_for_methods:
                raise method_not_allowed(["GET"])
        if path in _HEALTH_STATES and not asks_for_methods:  # whatever it is called by: a balancer asks by address
            return await self._respond_health(path)
        check_content_type(request)
        if path == "/metrics" and not asks_for_methods:
            return await self._respond_metrics(request, record)
        self._check_host(request)
        if asks_for_methods:
            return options_response(path)
        max_queue_wait.set(read_max_queue_wait(request.headers, self.runtime.config.general.max_wait_seconds))
        route, path_name = match_route(path)
        record.route = route.path
        runtime, caller = self.runtime, ANONYMOUS
        origins = runtime.config.cors_origins
        if origins and cors.is_preflight(request):
            if not cors.is_allowed(request, origins):
                raise _origin_error(request)
            return cors.preflight_response(request, route.methods)
        endpoint = route.methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            raise method_not_allowed(route.methods)
        if not route.is_public:
            caller = runtime.auth.authenticate(request.headers)
            record.key = caller.name
            if caller is ANONYMOUS and cors.is_foreign(request) and not cors.is_allowed(request, origins):
                raise _origin_error(request)  # without keys any web page could have images made, with a form
        if self.is_draining and request.method == "POST":
            raise APIError(503, "the gateway is stopping", SERVER, "stopping", retry_after=1, should_retry=True)
        return await endpoint(
            BatchRequestContext(
                request=request,
                id=record.id,
                caller=caller,
                runtime=runtime,
                services=self,
                headers=cors.headers_for(request, origins) if origins else {},
                scheduler=self.batches,
                path_name=path_name,
            )
        )

    def _check_host(self, request: web.BaseRequest, *, by_address: bool = False) -> None:
        """Refuse host names that are not this gateway's: a web page's own name may resolve to it.

        ``by_address``: accept any address, since probes call a pod by its own.
        """
        if (header := request.headers.get("host")) is None:  # HTTP/1.0, which no browser speaks
            return
        host = _parse_host(header)
        if (self.is_local and host.is_local) or self.runtime.config.allows_host(host.name):
            return
        if by_address and host.is_address:  # a web page can point a name at this machine, but no address
            return
        name = printable(host.name[:80])
        message = f"the gateway is not served as {name!r}; add this host to general_settings.allowed_hosts"
        raise APIError(421, message, code="host_not_allowed", close=True)

    async def _respond_health(self, path: str) -> web.Response:
        """Respond to a health check.

        Liveness is always 200 while the event loop responds. A slow loop is not reported dead: restarting it would lose
        paid calls. Readiness needs the data directory too.
        """
        status, state = 200, _HEALTH_STATES[path]
        if state == "ready":
            if self.is_draining:
                status, state = 503, "stopping"
            elif not await self._is_storage_usable():
                status, state = 503, "no storage"
        return web.Response(status=status, body=json.dumps({"status": state}).encode(), content_type="application/json")

    async def _is_storage_usable(self) -> bool:
        with suppress(StoreError):
            await self.runtime.places.outcomes.check()
            return await self.state.is_usable()
        return False

    async def _respond_metrics(self, request: web.BaseRequest, record: RequestRecord) -> web.Response:
        self._check_host(request, by_address=True)
        if not self.is_local or self.runtime.config.allowed_hosts:  # with allowed_hosts others reach it through a proxy
            record.key = self.runtime.auth.authenticate(request.headers).name
        self.observer.update_gauges()
        body, media_type = await asyncio.to_thread(self.observer.metrics.render, request.headers.get("accept", ""))
        return web.Response(body=body, headers={"content-type": media_type})
