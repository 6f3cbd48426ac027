"""One request on its way through the gateway, and the services that it uses."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Protocol

import attrs
from aiohttp import web

from impasto import File
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.runtime import Setup
from impasto_plugins.gateway.errors import sign
from impasto_plugins.gateway.http.memory_budget import Flow
from impasto_plugins.gateway.idempotency.coordinator import Repeats
from impasto_plugins.gateway.storage.database import Data


class Services(Protocol):
    """The parts of a running gateway that endpoints and batches use. ``App`` is the one implementation."""

    data: Data
    flow: Flow
    repeats: Repeats
    draining: bool
    setup: Setup
    """The configuration of this moment: a reload replaces it."""

    @property
    def own_url(self) -> str:
        """The start of the URLs of images."""
        ...

    async def open_upload(self, id: str, owner: bytes, param: str) -> File:
        """Return the image that a key has uploaded, for its caller to close; ``param`` names it. Raises Failure."""
        ...

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Start work that goes on after its request is answered."""
        ...


@attrs.frozen(kw_only=True, eq=False)
class Exchange:
    """A request, its id, its caller, and the configuration it began with."""

    request: web.BaseRequest
    id: str
    caller: Caller
    setup: Setup
    services: Services
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Headers of the answer, whatever it is."""
    tail: str = ""
    """The name at the end of the path: a model's, a file's."""

    @property
    def has_body(self) -> bool:
        """Return False for HEAD: the answer's head is all that is asked for."""
        return self.request.method != "HEAD"

    async def begin(self, response: web.StreamResponse) -> None:
        """Send a response's head. Raises ConnectionError if the caller left."""
        sign(response, self.id)
        response.headers.update(self.headers)
        if self.services.draining:
            response.force_close()
        await response.prepare(self.request)
