"""Free requests that belong to no model, such as one for a balance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .call import Call
from .errors import ChargeUnknown, TransportError
from .records import Result

if TYPE_CHECKING:
    from .client import Client
    from .operation import Operation


async def ask(
    client: Client, operation: Operation, params: Mapping[str, object] | None = None, *, timeout: float | None = None
) -> Result:
    """Send a free GET with the client's key. ``timeout`` in seconds. Raises the errors of a call."""
    route = await client._route(operation)  # noqa: SLF001 - a method of the client, but for its few callers
    request = operation.request(operation.id, params or {})
    try:
        return await client._run_once(route, request, timeout, None, Call)  # noqa: SLF001 - as above
    except ChargeUnknown as error:  # so a transport says it of whatever broke off
        failure = TransportError("no usable answer; this request is free, so send it again")
        failure.operation, failure.request_id, failure.retryable = operation.id, error.request_id, True
        raise failure from error
