"""``images/generations``, ``images/edits`` and ``images/variations``; ``audio/generations`` and ``3d/generations``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import TypeVar

import attrs
from aiohttp import HttpVersion11, web

from impasto import File
from impasto.ext import Makes
from impasto_plugins.gateway.calls import arguments
from impasto_plugins.gateway.calls.arguments import Asked
from impasto_plugins.gateway.calls.budgets import Purse
from impasto_plugins.gateway.calls.deployments import Model
from impasto_plugins.gateway.calls.execution import Checked, Done, Fitting, prepare, run
from impasto_plugins.gateway.calls.provider_jobs import Accepted
from impasto_plugins.gateway.calls.streamed_answers import Answers
from impasto_plugins.gateway.errors import Failure
from impasto_plugins.gateway.http.memory_budget import PICTURE_BYTES, Share
from impasto_plugins.gateway.idempotency.coordinator import About, Begun, Part
from impasto_plugins.gateway.idempotency.fingerprint import Identity
from impasto_plugins.gateway.idempotency.store import Row
from impasto_plugins.gateway.telemetry.request_record import OTHER, SEEN

from . import jobs, responses
from .context import Exchange
from .delivery import addressed, shown, shown_again
from .response_body import Made

T = TypeVar("T")


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
    """Reads a call, makes it, and answers with its pictures, or with the job that it is. Raises Failure."""
    if jobs.is_asked_for(exchange.request):
        return await jobs.start(exchange, partial(_as_job, exchange, kind))
    return await _read(exchange, kind, partial(_answered, exchange, kind))


async def _answered(exchange: Exchange, kind: Kind, sound: _Sound) -> web.StreamResponse:
    answers = Answers(sound.share, exchange.setup.unread, alone=_is_alone(sound.first, exchange.request))
    sound.part.holds.callback(answers.close)
    making = _shown(exchange, sound, answers)
    if sound.streamed and kind.event is not None:
        return await responses.stream(exchange, making, answers, kind.event)
    return await responses.answer(exchange, making, answers)


@attrs.frozen(kw_only=True, eq=False)
class _Sound:
    """A call that can be made: ``first`` is how, ``others`` are elsewhere."""

    first: Checked
    others: Fitting
    part: Part
    share: Share
    about: About
    streamed: bool


async def _read(exchange: Exchange, kind: Kind, work: Callable[[_Sound], Awaitable[T]]) -> T:
    """Reads a call, checks all of it, and does with it what is to be done. Raises Failure."""
    setup, request = exchange.setup, exchange.request
    with exchange.services.flow.share() as share, ExitStack() as files:
        asked = await arguments.read(request, setup.most_bytes, share, files)
        model = _model(exchange, asked)
        if uploads := asked.uploads():
            await _open_uploads(exchange, asked, uploads, files)
        if setup.config.general.log_prompts and isinstance(prompt := asked.given.get("prompt"), str):
            request[SEEN].prompt = prompt
        streamed = _streamed(asked, kind)
        identity = await Identity.of(request, exchange.caller, kind.name, asked)
        check = partial(prepare, asked=asked, share=share, edit=kind.edit, vary=kind.vary, makes=kind.makes)
        others = Fitting(model, check)
        async with exchange.services.repeats.part(identity, share) as part:
            first = await others.next()
            assert first is not None  # noqa: S101 - the first is given, or all are refused
            share.take(first.n * PICTURE_BYTES)
            sound = _Sound(
                first=first,
                others=others,
                part=part,
                share=share,
                about=About(model.name, first.response_format),
                streamed=streamed,
            )
            return await work(sound)


async def _open_uploads(exchange: Exchange, asked: Asked, uploads: Mapping[str, str], files: ExitStack) -> None:
    """Open the uploaded files that a call names; they live as long as ``files``. Raises Failure."""
    opened: dict[str, File] = {}
    for id, word in uploads.items():
        opened[id] = await exchange.services.open_upload(id, exchange.caller.digest, word)
        files.callback(opened[id].close)
    asked.place(opened)


def _is_alone(checked: Checked, request: web.BaseRequest) -> bool:
    """Whether one picture is the answer, and the answer may have a length that is not known when it begins."""
    return checked.n == 1 and checked.response_format == "b64_json" and request.version >= HttpVersion11


async def _shown(exchange: Exchange, sound: _Sound, answers: Answers) -> Made:
    """Makes the call, if it is to be made, for its caller to be shown. Raises Failure."""

    async def make(row: Row | None) -> Done:
        done = await _made(exchange, sound, answers, row)
        return await addressed(exchange, done) if sound.about.response_format == "url" else done

    done, row = await sound.part.outcome(make, sound.about)
    sound.share.settle(sum(len(artifact.data) for artifact in done.artifacts))
    return await shown(done) if row is None else await shown_again(exchange, row, done)


async def _as_job(exchange: Exchange, kind: Kind, begun: Begun) -> None:
    """Makes the call for whoever asks for it later. Raises Failure before it begins."""

    async def work(sound: _Sound) -> None:
        if sound.streamed:
            said = "stream: a job has none; leave it out, or Prefer: respond-async"
            raise Failure(400, said, code="invalid_value", param="stream")
        with closing(Answers(sound.share, exchange.setup.unread, alone=False)) as answers:
            await sound.part.job(partial(make, sound, answers), sound.about, begun)

    async def make(sound: _Sound, answers: Answers, row: Row) -> Done:
        def told() -> None:
            if not begun.done():  # it may be made elsewhere after that
                begun.set_result((row, False))

        answers.on_attempt = told
        return await _made(exchange, sound, answers, row, patient=True)

    await _read(exchange, kind, work)


async def _made(exchange: Exchange, sound: _Sound, answers: Answers, row: Row | None, *, patient: bool = False) -> Done:
    """Makes the call. ``patient``: where the provider takes longer than a call may, that is waited for."""
    accepted: Accepted | None = None

    async def on_job(checked: Checked, account: str) -> None:
        nonlocal accepted
        accepted = Accepted.of(checked, account, answers.jobs, answers.created)
        if row is not None:
            await exchange.services.repeats.kept.accept(row, accepted.json())

    try:
        return await run(sound.first, sound.others, Purse(exchange.services.data, exchange.caller).pay, answers, on_job)
    except Failure as failure:
        if not patient or accepted is None or failure.code != "charge_unknown":
            raise
        return await accepted.fetch(exchange.setup)


def _model(exchange: Exchange, asked: Asked) -> Model:
    """Return the model that the path or the body names, or the default one. Raises Failure."""
    seen, setup = exchange.request[SEEN], exchange.setup
    if exchange.tail:  # Azure's paths name it; what the body names too means nothing there
        asked.model = exchange.tail
    if asked.model:
        seen.model = OTHER
    model = setup.model(asked.model, exchange.caller)
    asked.model = seen.model = model.name
    return model


def _streamed(asked: Asked, kind: Kind) -> bool:
    stream = asked.stream
    if stream is not None and not isinstance(stream, bool):
        raise Failure(400, "stream: must be true or false", code="invalid_value", param="stream")
    if stream and kind.event is None:
        raise Failure(400, "stream: this path has none; leave it out", code="invalid_value", param="stream")
    return stream is True
