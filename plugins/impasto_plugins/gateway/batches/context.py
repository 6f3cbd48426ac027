"""A request to the endpoints of files and batches."""

from __future__ import annotations

import attrs

from impasto_plugins.gateway.api.context import Exchange

from .scheduler import Batches


@attrs.frozen(kw_only=True, eq=False)
class BatchExchange(Exchange):
    """A request with the batches of this worker."""

    batches: Batches
