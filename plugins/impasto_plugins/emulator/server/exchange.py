"""The interface between the server and an emulated provider: an exchange in, an answer or a refusal out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
from aiohttp import web

from impasto_plugins.emulator.state.charges import LogEntry


@attrs.frozen(kw_only=True)
class Reply:
    """A complete HTTP answer."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""


def json_reply(body: object, status: int = 200, **headers: str) -> Reply:
    """Return an answer of JSON."""
    return Reply(status=status, headers={"content-type": "application/json", **headers}, body=json.dumps(body).encode())


class ErrorResponse(Exception):
    """A refusal in the provider's own form."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(answer.status)
        self.answer = answer


@attrs.define(kw_only=True)
class EmulatorExchange:
    """One request in progress. A fault may set that a success is not charged, or that its image is filtered."""

    request: web.Request
    record: LogEntry
    key: str | None = attrs.field(default=None, repr=False)
    is_booked: bool = True
    is_filtered: bool = False


Refuse = Callable[[int, str | None, Sequence[str]], Reply]
"""Returns a refusal in the provider's own form: status, name (None: the usual one), messages."""


class Endpoint(Protocol):
    """One path of a provider. ``read`` and ``answer`` raise ErrorResponse.

    ``id_header`` names the header of the request's id. ``counts_towards_rate`` is True if requests count towards the
    rate limit.
    """

    id_header: str
    counts_towards_rate: bool

    def key(self, authorization: str) -> str | None:
        """Return the caller's key in the authorization header."""
        ...

    async def read(self, exchange: EmulatorExchange) -> object:
        """Read and record the body."""
        ...

    async def answer(self, exchange: EmulatorExchange, body: object) -> Reply:
        """Validate the body and run the operation."""
        ...

    def refuse(self, exchange: EmulatorExchange, status: int, name: str | None, messages: Sequence[str]) -> Reply:
        """Return a refusal in the provider's own form."""
        ...

    def rate_limit_answer(self, exchange: EmulatorExchange, seconds: float) -> Reply:
        """Return the refusal of a request over the rate limit."""
        ...
