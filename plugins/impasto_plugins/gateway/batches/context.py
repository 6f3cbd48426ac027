"""A request to the endpoints of files and batches."""

from __future__ import annotations

import attrs

from impasto_plugins.gateway.api.context import RequestContext

from .scheduler import BatchScheduler


@attrs.frozen(kw_only=True, eq=False)
class BatchRequestContext(RequestContext):
    """A request with the batches of this worker."""

    scheduler: BatchScheduler
