"""One request in the gateway, and the services that it uses."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Protocol

import attrs
from aiohttp import web

from impasto import File
from impasto.ext import StateStore
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.runtime import Runtime
from impasto_plugins.gateway.errors import add_response_headers
from impasto_plugins.gateway.http.memory_budget import MemoryBudget
from impasto_plugins.gateway.idempotency.coordinator import IdempotencyCoordinator
from impasto_plugins.gateway.storage.late_writes import LateWrites


class Services(Protocol):
    """The parts of a running gateway that endpoints and batches use. ``App`` is the one implementation."""

    state: StateStore
    late_writes: LateWrites
    memory: MemoryBudget
    idempotency: IdempotencyCoordinator
    is_draining: bool
    runtime: Runtime
    """The current configuration. A reload replaces it."""

    @property
    def images_base_url(self) -> str:
        """The base of image URLs."""
        ...

    async def open_upload(self, id: str, owner: bytes, param: str) -> File:
        """Return an uploaded image of a key; the caller closes it. ``param`` names it in errors. Raises APIError."""
        ...

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Start work that continues after its request is answered."""
        ...


@attrs.frozen(kw_only=True, eq=False)
class RequestContext:
    """A request, its id, its caller, and the configuration it began with."""

    request: web.BaseRequest
    id: str
    caller: Caller
    runtime: Runtime
    services: Services
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Headers of the response, whatever it is."""
    path_name: str = ""
    """The name at the end of the path: a model's, a file's."""

    @property
    def wants_body(self) -> bool:
        """False for HEAD, which asks for the head of the response alone."""
        return self.request.method != "HEAD"

    async def begin(self, response: web.StreamResponse) -> None:
        """Send a response's head. Raises ConnectionError if the caller left."""
        add_response_headers(response, self.id)
        response.headers.update(self.headers)
        if self.services.is_draining:
            response.force_close()
        await response.prepare(self.request)
