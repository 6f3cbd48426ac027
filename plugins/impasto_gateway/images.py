"""``images/generations``, ``images/edits`` and ``images/variations``; ``audio/generations`` and ``3d/generations``."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from functools import partial
from itertools import zip_longest

import attrs
from aiohttp import HttpVersion11, web

from impasto.operation import Makes

from . import incoming, outgoing
from .budgets import Purse
from .calls import Checked, Done, run
from .deployments import Model
from .errors import Failure
from .exchange import Exchange
from .flow import PICTURE_BYTES, Share
from .identity import Identity
from .incoming import Asked
from .large import Answers
from .repeats import Make, Part
from .seen import OTHER, SEEN
from .segments import Made, Picture
from .store import NotKept, keep_all

_MOST_PARTIAL = 3

_log = logging.getLogger("impasto.gateway")


@attrs.frozen(kw_only=True)
class Kind:
    """What sort of call a path is for. ``event``: the name of its stream's event, None where it has no stream."""

    name: str
    edit: bool
    vary: bool = False
    makes: Makes = "image"
    event: str | None


GENERATIONS = Kind(name="generations", edit=False, event="image_generation.completed")
EDITS = Kind(name="edits", edit=True, event="image_edit.completed")
VARIATIONS = Kind(name="variations", edit=True, vary=True, event=None)
SOUNDS = Kind(name="audio", edit=False, makes="audio", event=None)
MODELS_3D = Kind(name="3d", edit=False, makes="3d", event=None)


async def images(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Reads a call, makes it, and answers with its pictures. Raises Failure."""
    setup, request = exchange.setup, exchange.request
    with exchange.flow.share() as share, ExitStack() as files:
        asked = await incoming.read(request, setup.most_bytes, share, files)
        model = _model(exchange, asked)
        if setup.config.general.log_prompts and isinstance(prompt := asked.given.get("prompt"), str):
            request[SEEN].prompt = prompt
        streamed = _streamed(asked, kind)
        identity = await Identity.of(request, exchange.caller, kind.name, asked)
        async with (
            aclosing(setup.calls.fitting(model, asked, edit=kind.edit, vary=kind.vary, makes=kind.makes)) as fitting,
            exchange.repeats.part(identity) as part,
        ):
            first = await anext(fitting)
            share.take(first.n * PICTURE_BYTES)
            answers = Answers(share, alone=_is_alone(first, request))
            part.holds.callback(answers.close)
            making = _shown(exchange, first, part, partial(_made, exchange, first, fitting, answers), share)
            if streamed and kind.event is not None:
                return await outgoing.stream(exchange, making, answers, kind.event)
            return await outgoing.answer(exchange, making, answers)


def _is_alone(checked: Checked, request: web.BaseRequest) -> bool:
    """Whether one picture is the answer, and the answer may have a length that is not known when it begins."""
    return checked.n == 1 and checked.response_format == "b64_json" and request.version >= HttpVersion11


async def _made(exchange: Exchange, first: Checked, others: AsyncGenerator[Checked], answers: Answers) -> Done:
    """Makes the call. Raises Failure."""
    done = await run(first, others, Purse(exchange.data, exchange.caller).pay, answers)
    return await _named(exchange, done) if first.response_format == "url" else done


async def _shown(exchange: Exchange, first: Checked, part: Part, make: Make, share: Share) -> Made:
    """What the caller is shown of the call's outcome. Raises Failure."""
    done = await part.outcome(make)
    share.settle(sum(len(artifact.data) for artifact in done.artifacts))
    if part.replayed and first.response_format == "url":
        done = await _named(exchange, done)
    store = exchange.setup.store
    try:
        urls = [await store.url(name, exchange.base_url) for name in done.names]
    except NotKept as error:
        done, urls = _nameless(exchange, done, error), []
    pictures = [await Picture.of(artifact, url) for artifact, url in zip_longest(done.artifacts, urls)]
    return Made(done, pictures, part.replayed)


async def _named(exchange: Exchange, done: Done) -> Done:
    """The same with its pictures kept for URLs, if they are not."""
    store = exchange.setup.store
    try:
        if done.names and all([await store.holds(name) for name in done.names]):
            return done
        return attrs.evolve(done, names=tuple(await keep_all(store, done.artifacts)))
    except NotKept as error:
        return _nameless(exchange, done, error)


def _nameless(exchange: Exchange, done: Done, error: NotKept) -> Done:
    """The same without URLs: what was paid for is delivered all the same."""
    _log.error("request %s: a picture could not be kept for its URL: %s", exchange.id, error)
    said = "the picture could not be kept for a URL and is in b64_json"
    return attrs.evolve(done, warnings=(*done.warnings, said), names=())


def _model(exchange: Exchange, asked: Asked) -> Model:
    name = asked.model
    if not isinstance(name, str) or not name:
        code = "missing_required_parameter" if name in (None, "") else "invalid_value"
        raise Failure(400, "model: required, the name of one of GET /v1/models", code=code, param="model")
    model, seen = exchange.setup.models.get(name), exchange.request[SEEN]
    seen.model = OTHER if model is None else model.name
    if model is None or not exchange.caller.may_use(name):
        said = "there is no such model, or this key may not use it; see GET /v1/models"
        raise Failure(404, said, code="model_not_found", param="model")
    return model


def _streamed(asked: Asked, kind: Kind) -> bool:
    stream, partial = asked.stream, asked.partial_images
    if stream is not None and not isinstance(stream, bool):
        raise Failure(400, "stream: must be true or false", code="invalid_value", param="stream")
    if stream and kind.event is None:
        raise Failure(400, "stream: this path has none; leave it out", code="invalid_value", param="stream")
    if partial is not None and (type(partial) is not int or not 0 <= partial <= _MOST_PARTIAL):
        said = f"partial_images: must be a whole number from 0 to {_MOST_PARTIAL}"
        raise Failure(400, said, code="invalid_value", param="partial_images")
    if partial and not stream:
        raise Failure(400, "partial_images: goes with stream", code="invalid_value", param="partial_images")
    return stream is True
