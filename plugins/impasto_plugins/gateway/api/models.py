"""``list_models`` and ``models/{id}``: the models, with every parameter."""

from __future__ import annotations

import json

import attrs
from aiohttp import web

from impasto_plugins.gateway.calls.deployments import Model
from impasto_plugins.gateway.errors import APIError

from .context import RequestContext


async def list_models(context: RequestContext) -> web.StreamResponse:
    """Respond with the models that the key may use."""
    visible_models = [model for name, model in context.runtime.models.items() if context.caller.may_use(name)]
    return _json_response({"object": "list", "data": [_model_payload(model) for model in visible_models]})


async def get_model(context: RequestContext) -> web.StreamResponse:
    """Respond with one model. Raises APIError."""
    model = context.runtime.models.get(context.path_name)
    if model is None or not context.caller.may_use(model.name):
        raise APIError(404, "unknown model, or this key may not use it", code="model_not_found", param="model")
    return _json_response(_model_payload(model))


def _model_payload(model: Model) -> dict[str, object]:
    deployment = model.deployments[0]
    description = deployment.description
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": description.provider,
        "mode": deployment.config.mode,
        "title": description.title,
        "parameters": [attrs.asdict(field) for field in description.fields],
        "rules": description.rules,
        "price": description.price,
    }


def _json_response(body: object) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), content_type="application/json")
