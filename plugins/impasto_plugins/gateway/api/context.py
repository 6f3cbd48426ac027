"""One request on its way through the gateway."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import attrs
from aiohttp import web

from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.runtime import Setup
from impasto_plugins.gateway.errors import sign
from impasto_plugins.gateway.http.memory_budget import Flow
from impasto_plugins.gateway.idempotency.coordinator import Repeats
from impasto_plugins.gateway.storage.database import Data

if TYPE_CHECKING:
    from impasto_plugins.gateway.batches.scheduler import Batches


@attrs.frozen(kw_only=True, eq=False)
class Exchange:
    """A request, its id, who asks, and the configuration it began with. ``base_url`` is the gateway's own."""

    request: web.BaseRequest
    id: str
    caller: Caller
    setup: Setup
    flow: Flow
    data: Data
    repeats: Repeats
    batches: Batches
    base_url: str
    draining: Callable[[], bool]
    spawn: Callable[[Coroutine[object, object, None]], object]
    """Begins work that goes on when the request is answered."""
    tail: str = ""
    """What of the path is a name: a model's, a file's."""

    @property
    def has_body(self) -> bool:
        """Whether the answer is asked for, and not its head alone."""
        return self.request.method != "HEAD"

    async def begin(self, response: web.StreamResponse) -> None:
        """Sends a response's head. Raises ConnectionError where the caller left."""
        sign(response, self.id)
        if self.draining():
            response.force_close()
        await response.prepare(self.request)
