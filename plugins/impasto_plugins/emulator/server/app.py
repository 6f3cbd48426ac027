"""The web application: the handling of every request, for all providers."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
from aiohttp import web

from impasto_plugins.emulator.faults.kinds import FILTERED, count_request, respond
from impasto_plugins.emulator.faults.rules import FaultRules
from impasto_plugins.emulator.providers import bedrock, stability
from impasto_plugins.emulator.providers.backend import Backend
from impasto_plugins.emulator.settings import EmulatorSettings
from impasto_plugins.emulator.state.charges import ChargeLedger, LogEntry, fingerprint
from impasto_plugins.emulator.state.jobs import JobStore

from . import admin_api
from .exchange import EmulatorExchange, Endpoint, ErrorResponse, Reply

PROVIDERS = (stability.routes, bedrock.routes)
"""Functions that return the routes of one provider for a backend."""


@attrs.define(eq=False)
class EmulatorState:
    """The emulator's whole state."""

    settings: EmulatorSettings
    charges: ChargeLedger
    jobs: JobStore
    fault_rules: FaultRules

    @classmethod
    def create(cls, settings: EmulatorSettings) -> EmulatorState:
        """Return a new state with these settings."""
        return cls(settings, ChargeLedger(settings), JobStore(settings), FaultRules())

    def reset(self) -> None:
        """Return to the state at the start."""
        self.charges.reset()
        self.jobs.reset()
        self.fault_rules.reset()


def create_app(state: EmulatorState) -> web.Application:
    """Return the application. Imports the operations' modules: not for the loop's thread."""
    app = web.Application()
    admin_api.add_routes(app.router, state)
    backend = Backend(state.settings, state.charges, state.jobs, _random(state.settings))
    for routes in PROVIDERS:
        for method, path, endpoint in routes(backend):
            app.router.add_route(method, path, _handler(state, endpoint))
    app.router.add_route("*", "/{path:.*}", _handler(state, stability.NotFoundEndpoint(backend)))
    return app


def _random(settings: EmulatorSettings) -> random.Random:
    return random.SystemRandom() if settings.seed is None else random.Random(settings.seed)  # noqa: S311 - no secret


def _handler(state: EmulatorState, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        count_request(request)
        exchange = _open_exchange(state, request, endpoint)
        record = exchange.record
        started_at = time.monotonic()
        try:
            # A 429 comes first, then a fault, then the provider's own checks.
            body, refusal = await _read_body(endpoint, exchange)
            if endpoint.counts_towards_rate and (seconds := state.charges.rates.check(record.key)) is not None:
                return respond(record, endpoint.rate_limit_answer(exchange, seconds))
            fault = state.fault_rules.take(record)
            if fault is None:
                return respond(record, refusal or await _answer(endpoint, exchange, body))
            record.fault = fault.kind
            exchange.is_booked, exchange.is_filtered = fault.charged, fault.kind == FILTERED
            answer = refusal
            if answer is None and fault.needs_answer:
                answer = await _answer(endpoint, exchange, body)
            return await fault.apply(request, record, answer, partial(endpoint.refuse, exchange))
        finally:
            record.seconds = time.monotonic() - started_at

    return handle


def _open_exchange(state: EmulatorState, request: web.Request, endpoint: Endpoint) -> EmulatorExchange:
    headers = {name.lower(): value for name, value in request.headers.items()}
    key = endpoint.key(headers.pop("authorization", ""))
    record = LogEntry(
        id=secrets.token_hex(16),
        method=request.method,
        target=request.path,
        key=fingerprint(key) if key else None,
        headers=headers,
        id_header=endpoint.id_header,
    )
    return EmulatorExchange(request=request, record=state.charges.open(record), key=key)


async def _read_body(endpoint: Endpoint, exchange: EmulatorExchange) -> tuple[object, Reply | None]:
    try:
        return await endpoint.read(exchange), None
    except ErrorResponse as refusal:
        return None, refusal.answer


async def _answer(endpoint: Endpoint, exchange: EmulatorExchange, body: object) -> Reply:
    try:
        return await endpoint.answer(exchange, body)
    except ErrorResponse as refusal:
        return refusal.answer
