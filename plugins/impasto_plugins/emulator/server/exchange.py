"""What passes between the server and the provider it plays: an exchange in, an answer or a refusal out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
from aiohttp import web

from impasto_plugins.emulator.state.charges import Record


@attrs.frozen(kw_only=True)
class Answer:
    """A complete HTTP answer."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""


def json_answer(body: object, status: int = 200, **headers: str) -> Answer:
    """An answer of JSON."""
    return Answer(
        status=status, headers={"content-type": "application/json", **headers}, body=json.dumps(body).encode()
    )


class Refusal(Exception):
    """The provider says no, in its own form."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@attrs.define(kw_only=True)
class Exchange:
    """One request on its way. A fault may say that a success is not booked, or that its picture is ``filtered``."""

    request: web.Request
    record: Record
    key: str | None = attrs.field(default=None, repr=False)
    book: bool = True
    filtered: bool = False


Refuse = Callable[[int, str | None, Sequence[str]], Answer]
"""Makes a refusal in the provider's own form: status, name (None: the usual one), messages."""


class Endpoint(Protocol):
    """One path of a provider's. ``read`` takes the body in and records it; ``answer`` checks it and works.

    ``key`` finds the caller's key in the authorization header. ``refuse`` spells a refusal, ``locked_out`` the one
    for asking too fast. ``read`` and ``answer`` raise Refusal. ``id_header`` is where the request's id goes out;
    ``counts`` says whether requests count towards the limit of rates.
    """

    id_header: str
    counts: bool

    def key(self, authorization: str) -> str | None: ...
    async def read(self, exchange: Exchange) -> object: ...
    async def answer(self, exchange: Exchange, body: object) -> Answer: ...
    def refuse(self, exchange: Exchange, status: int, name: str | None, messages: Sequence[str]) -> Answer: ...
    def locked_out(self, exchange: Exchange, seconds: float) -> Answer: ...
