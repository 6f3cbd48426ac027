"""One request on its way through the gateway."""

from __future__ import annotations

import attrs
from aiohttp import web

from .auth import Caller
from .data import Data
from .flow import Flow
from .setup import Setup


@attrs.frozen(kw_only=True, eq=False)
class Exchange:
    """A request, its id, who asks, and the configuration it began with. ``base_url`` is the gateway's own."""

    request: web.BaseRequest
    id: str
    caller: Caller
    setup: Setup
    flow: Flow
    data: Data
    base_url: str
    tail: str = ""
    """What of the path is a name: a model's, a file's."""
