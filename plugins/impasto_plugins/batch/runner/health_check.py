"""Free requests that show if a provider can be reached again: no image is risked to find out."""

from __future__ import annotations

import attrs

from impasto import (
    Account,
    Artifact,
    Client,
    ImpastoError,
    Operation,
    ProviderFault,
    Request,
    Result,
    WireRequest,
    WireResponse,
)
from impasto.ext import ask
from impasto_plugins.batch.tasks import ImageTask

SECONDS = 10.0
"""Seconds to wait for an answer."""


@attrs.frozen(kw_only=True)
class _NoFields:
    """No parameters."""


class _AnyAnswer:
    """The dialect of a health check: any answer will do, since a refusal comes from the provider too."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        return WireRequest(target=request.target, method="GET")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        return ProviderFault("the server reports an error", status=response.status) if response.status >= 500 else None

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        return Result(artifacts=(Artifact(data=response.body, media_type=response.media_type),))


async def is_reachable(client: Client, unit: ImageTask) -> bool:
    """Return True if a task's provider answers, or has no free request."""
    operation = await client.operation(unit.model, base_model=unit.base_model)
    provider = operation.provider
    if provider.health_path is None:
        return True
    call = Operation(
        id=f"{provider.name}.probe",
        title="probe",
        params=_NoFields,
        target=provider.health_path,
        provider=provider,
        dialect=_AnyAnswer(),
    )
    try:
        await ask(client, call, timeout=SECONDS)
    except ImpastoError:
        return False
    return True
