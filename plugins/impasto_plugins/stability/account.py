"""The account behind a Stability AI key: balance, owner, engines. These calls are free."""

from __future__ import annotations

import json
from typing import TypeVar

import attrs
import cattrs

from impasto import (
    Account,
    Artifact,
    ChargeUnknown,
    Client,
    ImpastoError,
    InvalidRequest,
    Operation,
    Problem,
    Request,
    Result,
    TransportError,
    WireRequest,
    WireResponse,
)
from impasto.ext import ask, printable
from impasto.fields import text

from .provider import USD_PER_CREDIT, stability
from .refusals import refusal

T = TypeVar("T")

_reader = cattrs.Converter()
"""Reads known fields only; the vendor may add others."""


@attrs.frozen(kw_only=True)
class Balance:
    """The credits left. The vendor updates it with a delay: the price of one call can't be read from it."""

    credits: float

    @property
    def usd(self) -> float:
        """The credits in USD."""
        return round(self.credits * USD_PER_CREDIT, 6)


@attrs.frozen(kw_only=True)
class Organization:
    """One of the owner's organizations. The default one pays if a call names none."""

    id: str
    name: str
    role: str
    is_default: bool


@attrs.frozen(kw_only=True)
class Owner:
    """The owner of the key."""

    id: str
    email: str
    organizations: tuple[Organization, ...]
    profile_picture: str | None = None


@attrs.frozen(kw_only=True)
class Engine:
    """A model of the vendor's API version 1, which impasto does not call."""

    id: str
    name: str
    description: str
    type: str


@attrs.frozen(kw_only=True)
class _Nothing:
    """No parameters."""


@attrs.frozen(kw_only=True)
class _OfOrganization:
    """The organization to ask about."""

    organization: str | None = text(1, 256, description="ID of the organization; without it, the default one is meant.")


@attrs.frozen
class _AccountDialect:
    """The dialect of these calls: a GET, answered with JSON."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        organization = getattr(request.params, "organization", None)
        if organization is not None and not (organization.isascii() and organization.isprintable()):
            raise InvalidRequest([Problem("organization", "must be an organization's id: printable ASCII characters")])
        headers = {"organization": organization} if organization is not None else {}
        return WireRequest(target=request.target, method="GET", headers=headers)

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        if response.status == 200 and response.media_type == "application/json":
            return None
        media_type = printable(response.media_type[:60]) or "no media type"
        return refusal(response) or ChargeUnknown(
            f"HTTP {response.status} ({media_type}) is not the provider's own answer", status=response.status
        )

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        return Result(
            artifacts=(Artifact(data=response.body, media_type=response.media_type),), request_id=response.request_id
        )


def _call(name: str, target: str, params: type[attrs.AttrsInstance]) -> Operation:
    return Operation(
        id=f"stability.{name}", title=name, params=params, target=target, provider=stability, dialect=_AccountDialect()
    )


_BALANCE = _call("balance", "/v1/user/balance", _OfOrganization)
_ACCOUNT = _call("account", "/v1/user/account", _Nothing)
_ENGINES = _call("engines", "/v1/engines/list", _OfOrganization)


class StabilityAccount:
    """``client.stability``. Each call raises the errors of any other call; none is ever billed."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def balance(self, *, organization: str | None = None) -> Balance:
        """Return the credits left, of the default organization or the one with this id."""
        return await self._fetch(_BALANCE, Balance, organization=organization)

    async def account(self) -> Owner:
        """Return the owner of the key and their organizations."""
        return await self._fetch(_ACCOUNT, Owner)

    async def engines(self, *, organization: str | None = None) -> tuple[Engine, ...]:
        """Return the models of API version 1 that the key may use. None of impasto's models is among them."""
        return await self._fetch(_ENGINES, tuple[Engine, ...], organization=organization)

    async def _fetch(self, call: Operation, expected: type[T], **params: object) -> T:
        answer = await ask(self._client, call, params)
        try:
            return _reader.structure(json.loads(answer.artifacts[0].data), expected)
        except (ValueError, RecursionError, TypeError, cattrs.BaseValidationError):
            pass
        raise TransportError(f"{call.id}: the answer has an unexpected form", request_id=answer.request_id)
