"""The web application: what every request passes through, whichever provider it is for."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
from aiohttp import web

from impasto_plugins.emulator.faults.kinds import FILTERED, count, respond
from impasto_plugins.emulator.faults.rules import Faults
from impasto_plugins.emulator.providers import bedrock, stability
from impasto_plugins.emulator.providers.backend import Desk
from impasto_plugins.emulator.settings import Settings
from impasto_plugins.emulator.state.charges import Account, Record, fingerprint
from impasto_plugins.emulator.state.jobs import Jobs

from . import admin_api
from .exchange import Answer, Endpoint, Exchange, Refusal

PROVIDERS = (stability.routes, bedrock.routes)
"""Each gives the routes of one provider, for a desk."""


@attrs.define(eq=False)
class State:
    """All that an emulator remembers."""

    settings: Settings
    account: Account
    jobs: Jobs
    faults: Faults

    @classmethod
    def new(cls, settings: Settings) -> State:
        return cls(settings, Account(settings), Jobs(settings), Faults())

    def reset(self) -> None:
        """Forgets everything."""
        self.account.reset()
        self.jobs.reset()
        self.faults.reset()


def make_app(state: State) -> web.Application:
    """The application. Imports the operations' modules: not for the loop's thread."""
    app = web.Application()
    admin_api.add_routes(app.router, state)
    desk = Desk(state.settings, state.account, state.jobs, _random(state.settings))
    for routes in PROVIDERS:
        for method, path, endpoint in routes(desk):
            app.router.add_route(method, path, _handler(state, endpoint))
    app.router.add_route("*", "/{path:.*}", _handler(state, stability.Unknown(desk)))
    return app


def _random(settings: Settings) -> random.Random:
    return random.SystemRandom() if settings.seed is None else random.Random(settings.seed)  # noqa: S311 - no secret


def _handler(state: State, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        count(request)
        exchange = _opened(state, request, endpoint)
        record = exchange.record
        began = time.monotonic()
        try:
            body, refused = await _read(endpoint, exchange)
            if endpoint.counts and (seconds := state.account.rates.locked(record.key)) is not None:
                return respond(record, endpoint.locked_out(exchange, seconds))
            fault = state.faults.take(record)
            if fault is None:
                return respond(record, refused or await _answered(endpoint, exchange, body))
            record.fault = fault.kind
            exchange.book, exchange.filtered = fault.charged, fault.kind == FILTERED
            answer = refused
            if answer is None and fault.needs_answer:
                answer = await _answered(endpoint, exchange, body)
            return await fault.apply(request, record, answer, partial(endpoint.refuse, exchange))
        finally:
            record.seconds = time.monotonic() - began

    return handle


def _opened(state: State, request: web.Request, endpoint: Endpoint) -> Exchange:
    headers = {name.lower(): value for name, value in request.headers.items()}
    key = endpoint.key(headers.pop("authorization", ""))
    record = Record(
        id=secrets.token_hex(16),
        method=request.method,
        target=request.path,
        key=fingerprint(key) if key else None,
        headers=headers,
        id_header=endpoint.id_header,
    )
    return Exchange(request=request, record=state.account.open(record), key=key)


async def _read(endpoint: Endpoint, exchange: Exchange) -> tuple[object, Answer | None]:
    try:
        return await endpoint.read(exchange), None
    except Refusal as refusal:
        return None, refusal.answer


async def _answered(endpoint: Endpoint, exchange: Exchange, body: object) -> Answer:
    try:
        return await endpoint.answer(exchange, body)
    except Refusal as refusal:
        return refusal.answer
