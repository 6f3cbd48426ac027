"""``models`` and ``models/{id}``: what may be called, with every parameter."""

from __future__ import annotations

import json

import attrs
from aiohttp import web

from impasto_plugins.gateway.calls.deployments import Model
from impasto_plugins.gateway.errors import Failure

from .context import Exchange


async def models(exchange: Exchange) -> web.StreamResponse:
    """The models that the key may use."""
    allowed = [model for name, model in exchange.setup.models.items() if exchange.caller.may_use(name)]
    return _answer({"object": "list", "data": [_told(model) for model in allowed]})


async def model(exchange: Exchange) -> web.StreamResponse:
    """One of them. Raises Failure."""
    found = exchange.setup.models.get(exchange.tail)
    if found is None or not exchange.caller.may_use(found.name):
        raise Failure(404, "there is no such model, or this key may not use it", code="model_not_found", param="model")
    return _answer(_told(found))


def _told(model: Model) -> dict[str, object]:
    deployment = model.deployments[0]
    about = deployment.description
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": about.provider,
        "mode": deployment.entry.mode,
        "title": about.title,
        "parameters": [attrs.asdict(field) for field in about.fields],
        "rules": about.rules,
        "price": about.price,
    }


def _answer(body: object) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), content_type="application/json")
