"""The drop-in functions: code written against LiteLLM's image functions runs with only its import changed."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, ParamSpec, Protocol, TypeAlias, cast

import attrs

from impasto import File, Problem
from impasto.ext import stream_call

from .background import run
from .call_options import take_arn, take_call_options, take_model
from .check import check
from .clients import client_of_this_loop
from .response import ImagesResponse
from .settings import split_settings
from .streams import AsyncFunction, BlockingFunction, events_of, iterate
from .translate import translate


class Reader(Protocol):
    """An open binary file, or an object that reads like one."""

    def read(self) -> bytes:
        """Return the rest of the content."""
        ...


class Timeout(Protocol):
    """An ``httpx.Timeout``: seconds for each step, of which ``read`` counts here."""

    @property
    def read(self) -> float | None:
        """Seconds to wait for the response, or None."""
        ...


Content: TypeAlias = bytes | bytearray | memoryview | Reader
ImageInput: TypeAlias = (
    Content | str | os.PathLike[str] | File | tuple[str | None, Content] | tuple[str | None, Content, str]
)
"""Bytes, a path, an open binary file, a ``data:`` URI, ``(name, bytes)`` or ``(name, bytes, type)``."""


P = ParamSpec("P")


Function: TypeAlias = Callable[P, Coroutine[Any, Any, ImagesResponse]]


def _streaming(function: Function[P]) -> AsyncFunction[P]:
    """Return the function with the type of its streams, which its own signature can't state."""
    return cast("AsyncFunction[P]", function)


def _blocking(function: AsyncFunction[P]) -> BlockingFunction[P]:
    """Return the blocking form of a function, for code without a loop; it may be called inside a loop too."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> object:
        response: object = run(function(*args, **kwargs))
        return iterate(response) if isinstance(response, AsyncGenerator) else response

    call.__name__ = call.__qualname__ = function.__name__.removeprefix("a")
    return cast("BlockingFunction[P]", call)


@_streaming
async def aimage_generation(
    prompt: str | None = None,
    model: str | None = None,
    *,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    response_format: str | None = None,
    background: str | None = None,
    moderation: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    user: str | None = None,
    extra_body: Mapping[str, object] | None = None,
    drop_params: bool | None = None,
    timeout: float | str | Timeout | None = None,
    api_key: str | None = None,
    api_base: str | None = None,
    aws_region_name: str | None = None,
    aws_access_key_id: str | None = None,
    aws_secret_access_key: str | None = None,
    aws_session_token: str | None = None,
    aws_profile_name: str | None = None,
    aws_bedrock_runtime_endpoint: str | None = None,
    base_model: str | None = None,
    idempotency_key: str | None = None,
    stream: Literal[False] | None = None,
    **params: object,
) -> ImagesResponse:
    """Generate ``n`` images (1 to 10) from a prompt.

    ``params`` are the model's own fields, and LiteLLM's arguments that have a meaning here, such as ``num_retries``
    (whole further tries, for calls that cost nothing). None means not given. Every parameter is honoured, or refused by
    name with InvalidRequest before anything is sent; ``drop_params`` drops parameters that the model has no field for
    and adds a warning to the response's ``warnings``. ``timeout`` is in seconds, as a number, text, or an
    ``httpx.Timeout``, whose ``read`` counts for the whole call. ``idempotency_key``: the same key and request joins the
    running call, or returns its stored result for 24 hours, in all processes of this user on the machine. With
    ``stream=True`` the answer is an iterator of OpenAI's events: ``image_generation.partial_image`` where the provider
    sends them (``partial_images``), and ``image_generation.completed``. Raises the errors of ``impasto``.
    """
    return await _answer(locals(), edit=False)


@_streaming
async def aimage_edit(
    image: ImageInput | Sequence[ImageInput] | None = None,
    model: str | None = None,
    prompt: str | None = None,
    mask: ImageInput | None = None,
    *,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    response_format: str | None = None,
    background: str | None = None,
    moderation: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    user: str | None = None,
    extra_body: Mapping[str, object] | None = None,
    drop_params: bool | None = None,
    timeout: float | str | Timeout | None = None,
    api_key: str | None = None,
    api_base: str | None = None,
    aws_region_name: str | None = None,
    aws_access_key_id: str | None = None,
    aws_secret_access_key: str | None = None,
    aws_session_token: str | None = None,
    aws_profile_name: str | None = None,
    aws_bedrock_runtime_endpoint: str | None = None,
    base_model: str | None = None,
    idempotency_key: str | None = None,
    stream: Literal[False] | None = None,
    **params: object,
) -> ImagesResponse:
    """Edit an image: as ``aimage_generation``, with ``image`` (a list if the model takes several).

    ``timeout`` is in seconds. A ``mask`` with any pixel that is not opaque is OpenAI's (transparent is edited) and is
    converted to the provider's (white is edited); an opaque one is the provider's own and is sent unchanged.
    """
    return await _answer(locals(), edit=True)


image_generation = _blocking(aimage_generation)


@_blocking
@_streaming
async def image_edit(
    image: ImageInput | Sequence[ImageInput] | None = None,
    prompt: str | None = None,
    model: str | None = None,
    mask: ImageInput | None = None,
    *,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    response_format: str | None = None,
    background: str | None = None,
    moderation: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    user: str | None = None,
    extra_body: Mapping[str, object] | None = None,
    drop_params: bool | None = None,
    timeout: float | str | Timeout | None = None,
    api_key: str | None = None,
    api_base: str | None = None,
    aws_region_name: str | None = None,
    aws_access_key_id: str | None = None,
    aws_secret_access_key: str | None = None,
    aws_session_token: str | None = None,
    aws_profile_name: str | None = None,
    aws_bedrock_runtime_endpoint: str | None = None,
    base_model: str | None = None,
    idempotency_key: str | None = None,
    stream: Literal[False] | None = None,
    **params: object,
) -> ImagesResponse:
    """Edit an image: the blocking ``aimage_edit``, with ``prompt`` before ``model``. ``timeout`` in seconds."""
    return await _answer(locals(), edit=True)


async def _answer(arguments: dict[str, Any], *, edit: bool) -> ImagesResponse:
    """Run one call from a function's arguments by name: its own, and the model's under ``params``."""
    arguments_of_call: dict[str, Any] = {**arguments.pop("params"), **arguments}
    is_streamed = arguments_of_call.get("stream") is True
    if is_streamed:
        del arguments_of_call["stream"]
    base_model, extra_body, drop_params, idempotency_key = (
        arguments_of_call.pop(name) for name in ("base_model", "extra_body", "drop_params", "idempotency_key")
    )
    model, base_model = take_arn(arguments_of_call, take_model(arguments_of_call), base_model)
    client = await client_of_this_loop("machine" if idempotency_key is not None else None)
    operation = await client.operation(model, base_model=base_model)
    options = take_call_options(arguments_of_call, model, {*operation.fields, *operation.provider.settings})
    settings, words = split_settings(operation, arguments_of_call)
    client = client.with_options(**settings)
    dropped = [name for name in options.dropped if words.pop(name, None) is not None]
    translation = translate(
        operation, words, extra_body=extra_body, drop_params=drop_params, edit=edit, stream=is_streamed
    )
    if is_streamed:
        problems = [Problem("n", "must be 1 with stream")] if translation.n != 1 else []
        if translation.response_format != "b64_json":
            problems.append(Problem("response_format", "must be b64_json with stream"))
        if idempotency_key is not None:
            problems.append(Problem("idempotency_key", "can't be used with stream; leave one of them out"))
        translation = attrs.evolve(translation, problems=(*translation.problems, *problems))
    request, warnings = await check(operation, model, translation)
    warnings = (*(f"{name} was dropped: additional_drop_params names it" for name in dropped), *warnings)
    call: dict[str, Any] = {"timeout": options.timeout, "retry": options.retry, "base_model": base_model}
    if is_streamed:
        events = events_of(
            stream_call(client, model, request, **call), "image_edit" if edit else "image_generation", warnings
        )
        return cast("ImagesResponse", events)  # the function's type for stream=True has the events
    result = await client.invoke(model, request, n=translation.n, idempotency_key=idempotency_key, **call)
    return ImagesResponse(result, translation.response_format, warnings, options.hidden_params)
