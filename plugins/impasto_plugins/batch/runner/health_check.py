"""Whether a provider can be reached again, asked by what costs nothing: no picture is risked to find that out."""

from __future__ import annotations

import attrs

from impasto import (
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
from impasto_plugins.batch.tasks import Unit

SECONDS = 10.0
"""How long an answer is waited for."""


@attrs.frozen(kw_only=True)
class _Nothing:
    """No parameters."""


class _Any:
    """The dialect of a provider that is only to answer, whatever it says: a refusal comes from it too."""

    def pack(self, operation: Operation, request: Request) -> WireRequest:
        return WireRequest(target=request.target, method="GET")

    def classify(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        return ProviderFault("it is not well", status=response.status) if response.status >= 500 else None

    def unpack(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        return Result(artifacts=(Artifact(data=response.body, media_type=response.media_type),))


async def is_reached(client: Client, unit: Unit) -> bool:
    """Whether a unit's provider answers; taken for granted where it has nothing that is free."""
    operation = await client.operation(unit.model, base_model=unit.base_model)
    provider = operation.provider
    if provider.free is None:
        return True
    call = Operation(
        id=f"{provider.name}.probe",
        title="probe",
        params=_Nothing,
        target=provider.free,
        provider=provider,
        dialect=_Any(),
    )
    try:
        await client.ask(call, timeout=SECONDS)
    except ImpastoError:
        return False
    return True
