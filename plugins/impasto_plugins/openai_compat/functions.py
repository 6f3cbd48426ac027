"""The drop-in functions: code written against LiteLLM's image functions runs with only its import changed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from impasto import File

from .background import run
from .call_options import take_arn, take_call_options, take_model
from .check import check
from .clients import client_of_this_loop
from .response import ImagesResponse
from .settings import split_settings
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
R = TypeVar("R")


def _blocking(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Return the blocking form of a function, for code without a loop; it may be called inside a loop too."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return run(function(*args, **kwargs))

    call.__name__ = call.__qualname__ = function.__name__.removeprefix("a")
    return call


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
    **params: object,
) -> ImagesResponse:
    """Generate ``n`` images (1 to 10) from a prompt.

    ``params`` are the model's own fields, and LiteLLM's arguments that have a meaning here, such as ``num_retries``
    (whole further tries, for calls that cost nothing). None means not given. Every parameter is honoured, or refused by
    name with InvalidRequest before anything is sent; ``drop_params`` drops parameters that the model has no field for
    and adds a warning to the response's ``warnings``. ``timeout`` is in seconds, as a number, text, or an
    ``httpx.Timeout``, whose ``read`` counts for the whole call. Raises the errors of ``impasto``.
    """
    return await _answer(locals(), edit=False)


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
    **params: object,
) -> ImagesResponse:
    """Edit an image: as ``aimage_generation``, with ``image`` (a list if the model takes several).

    ``timeout`` is in seconds. A ``mask`` with any pixel that is not opaque is OpenAI's (transparent is edited) and is
    converted to the provider's (white is edited); an opaque one is the provider's own and is sent unchanged.
    """
    return await _answer(locals(), edit=True)


image_generation = _blocking(aimage_generation)


@_blocking
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
    **params: object,
) -> ImagesResponse:
    """Edit an image: the blocking ``aimage_edit``, with ``prompt`` before ``model``. ``timeout`` in seconds."""
    return await _answer(locals(), edit=True)


async def _answer(arguments: dict[str, Any], *, edit: bool) -> ImagesResponse:
    """Run one call from a function's arguments by name: its own, and the model's under ``params``."""
    arguments_of_call: dict[str, Any] = {**arguments.pop("params"), **arguments}
    base_model, extra_body, drop_params = (
        arguments_of_call.pop(name) for name in ("base_model", "extra_body", "drop_params")
    )
    model, base_model = take_arn(arguments_of_call, take_model(arguments_of_call), base_model)
    client = await client_of_this_loop()
    operation = await client.operation(model, base_model=base_model)
    options = take_call_options(arguments_of_call, model, operation.fields)
    settings, words = split_settings(operation, arguments_of_call)
    client = client.with_options(**settings)
    dropped = [name for name in options.dropped if words.pop(name, None) is not None]
    translation = translate(operation, words, extra_body=extra_body, drop_params=drop_params, edit=edit)
    request, warnings = await check(operation, model, translation)
    result = await client.invoke(
        model, request, n=translation.n, timeout=options.timeout, retry=options.retry, base_model=base_model
    )
    notes = (f"{name} was dropped: additional_drop_params names it" for name in dropped)
    return ImagesResponse(result, translation.response_format, (*notes, *warnings), options.hidden_params)
