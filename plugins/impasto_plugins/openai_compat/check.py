"""The second half of a translation: opens files, converts the mask, and checks everything against the model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from impasto import File, InvalidRequest, Operation, Problem, Request
from impasto.ext import close_files, files_of

from .translate import Translation

_CONDITION = re.compile(r"(required|not allowed) when (\w+) is ")
"""The begin of the messages of ``Needs`` and ``Excludes``, with the field that is their reason."""

_DECODERS = ThreadPoolExecutor(2, thread_name_prefix="impasto-images")
"""Large images are decoded one at a time; those that wait must not take the threads that other work needs."""


async def check(operation: Operation, model: str, translation: Translation) -> tuple[Request, tuple[str, ...]]:
    """Run ``check_request``, in a thread if it reads a disk or decodes a mask."""
    if any(name in translation.params for name in operation.file_fields):
        work = partial(check_request, operation, model, translation)
        return await asyncio.get_running_loop().run_in_executor(_DECODERS, work)
    return check_request(operation, model, translation)


async def bytes_to_decode(operation: Operation, translation: Translation) -> int:
    """Return the bytes of memory that ``check`` needs for a moment to decode masks."""
    masks = [translation.params[name] for name in operation.roles.get("mask", ()) if name in translation.params]
    return await asyncio.to_thread(lambda: sum(map(_bytes_to_decode, masks))) if masks else 0


def _bytes_to_decode(value: object) -> int:
    from impasto_plugins.images.masks import bytes_to_decode

    try:
        mask = File.of(value)
    except ValueError:  # reported by checked_request
        return 0
    try:
        return bytes_to_decode(mask)
    finally:
        if mask is not value:
            mask.close()


def check_request(operation: Operation, model: str, translation: Translation) -> tuple[Request, tuple[str, ...]]:
    """Return the request, whose files the caller owns, and all warnings. Sends nothing.

    Raises InvalidRequest with every problem of the call, each under the name that the caller used.
    """
    params = dict(translation.params)
    problems = list(translation.problems)
    if (
        translation.params.get("partial_images")
        and operation.streams
        and not (translation.stream and translation.n == 1)
    ):
        problems.append(Problem("partial_images", "needs stream and n=1; leave it out"))
    masks = [name for name in operation.roles.get("mask", ()) if name in params]
    for name in masks:
        try:
            params[name] = _mask(params[name], operation.fields[name].mask_area)
        except ValueError as error:
            problems.append(Problem(translation.words[name], str(error)))
            del params[name]
    try:
        request = operation.request(model, params, translation.user, n=translation.n)
    except InvalidRequest as error:
        reported = {problem.field for problem in problems}
        problems += [each for each in _in_callers_words(operation, translation, error) if each.field not in reported]
    else:
        if not problems:
            return request, (*translation.warnings, *_mask_warnings(operation, request, masks))
        close_files(request.params)
    refused = InvalidRequest(problems)
    refused.operation = model
    raise refused


def _mask(value: object, area: str) -> File:
    original = File.of(value)
    if area == "transparent":  # as OpenAI's own
        return original
    from impasto_plugins.images.masks import to_provider  # Pillow: only for masks

    converted = to_provider(original, is_black_edited=area == "black")
    if converted is not original:
        original.close()
    return converted


def _in_callers_words(operation: Operation, translation: Translation, error: InvalidRequest) -> Iterator[Problem]:
    """Return the model's problems under the caller's names: ``init_image`` was passed as ``image``."""
    words = {**_usual_words(operation), **translation.words}

    for problem in error.problems:
        message = problem.message
        if (begin := _CONDITION.match(message)) is not None and (reason := words.get(begin[2], begin[2])) != begin[2]:
            message = f"{begin[1]} when {reason} (this model's {begin[2]}) is {message[begin.end() :]}"
        word = words.get(problem.field, problem.field)
        is_same = word == problem.field
        yield Problem(word, message if is_same else f"{message} (it is this model's {problem.field})")


def _usual_words(operation: Operation) -> dict[str, str]:
    """Return OpenAI's argument names for the fields that have a role: the first of each."""
    return {names[0]: role for role, names in operation.roles.items()}


def _mask_warnings(operation: Operation, request: Request, masks: list[str]) -> Iterator[str]:
    if not masks:
        return
    from impasto_plugins.images.size import size_of

    images = operation.roles.get("image")
    image = next(files_of(getattr(request.params, images[0])), None) if images else None
    for name in masks:
        mask = getattr(request.params, name)
        try:
            sizes = None if image is None else (size_of(mask), size_of(image))
        except (OSError, ValueError):  # a type that the model's author declares, such as image/gif
            continue
        if sizes is not None and sizes[0] != sizes[1]:
            (width, height), (wide, high) = sizes
            yield f"the mask is {width}x{height} pixels and the image {wide}x{high}: the provider fits it to the image"
