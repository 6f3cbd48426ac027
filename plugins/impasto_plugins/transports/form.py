"""multipart/form-data in the form that providers accept. Files are sent while they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal

import attrs

from impasto import BrokenPlugin, File, InvalidRequest, Problem, Request, WireRequest
from impasto.ext import EXTENSIONS, files_of, kind_in_words, printable
from impasto_plugins.concurrency import to_thread_shielded

from .request_body import Piece, RequestBody

_SCALARS = (str, int, float)


async def open_form(wire: WireRequest, files: ExitStack) -> RequestBody:
    """Return the form of one attempt. Files on disk are opened in a thread. Raises InvalidRequest or BrokenPlugin."""
    if not any(file.on_disk for _, file in wire.files):
        return make_form(wire, files)
    # Shielded: if the caller is cancelled, the readers are in ``files`` all the same, which the caller closes.
    return await to_thread_shielded(make_form, wire, files)


def make_form(wire: WireRequest, files: ExitStack) -> RequestBody:
    """Return the form of one attempt; ``files`` closes its readers.

    Raises InvalidRequest or BrokenPlugin before anything is sent.
    """
    boundary = os.urandom(16).hex()
    pieces: list[Piece] = []
    text = ""
    for name, value in wire.fields.items():
        for each in (value,) if isinstance(value, _SCALARS) else _values_of_list(name, value):
            text += f"{_part(boundary, name, 'text/plain; charset=utf-8')}\r\n\r\n{decimal_text(each)}\r\n"
    for name, file in wire.files:
        filename = _quoted(f"{name.removesuffix('[]')}{EXTENSIONS.get(file.media_type, '.bin')}")
        text += f'{_part(boundary, name, file.media_type)}; filename="{filename}"\r\n\r\n'
        try:
            reader = files.enter_context(file.open())
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problem = Problem(parameter_of(wire, file, name), f"can't be read again: {reason}")
            raise InvalidRequest([problem]) from None
        pieces += [text.encode(), (reader, file.size)]
        text = "\r\n"
    pieces.append(f"{text}--{boundary}--\r\n".encode())
    form = RequestBody(f"multipart/form-data; boundary={boundary}", pieces)
    if wire.max_bytes is not None and form.size > wire.max_bytes:
        raise too_large(wire, form.size, wire.files)
    return form


def _values_of_list(name: str, value: object) -> Iterator[str | int | float]:
    """Yield the values of a list, each of which repeats the field's name. Raises BrokenPlugin."""
    is_list = isinstance(value, list | tuple)
    for index, each in enumerate(value if isinstance(value, list | tuple) else (value,)):
        if not isinstance(each, _SCALARS):
            place = f"{name}[{index}]" if is_list else name
            advice = "give text, a number, true or false, or a list of them; or set encoding='json'"
            raise BrokenPlugin(f"the form field {printable(place)!r} of a plugin is {kind_in_words(each)}; {advice}")
        yield each


def parameter_of(wire: WireRequest, file: File, name: str) -> str:
    """Return the caller's parameter that holds a file, or the file's name in the request if the plugin made it."""
    request: Request | None = getattr(wire.call, "request", None)  # no call: the request was made for a check
    values = {} if request is None else attrs.asdict(request.params, recurse=False)
    return next((each for each, value in values.items() if any(own is file for own in files_of(value))), name)


def too_large(wire: WireRequest, size: int, files: Sequence[tuple[str, File]]) -> InvalidRequest:
    """Return the error for a request whose size is above its limit; it names the largest file."""
    problem = f"the whole request may have {wire.max_bytes:,} bytes and has {size:,}"
    name, file = max(files, key=lambda each: each[1].size, default=("prompt", None))
    largest = name if file is None else parameter_of(wire, file, name)
    return InvalidRequest([Problem(largest, f"{problem}; give a smaller {largest}")])


def _part(boundary: str, name: str, media_type: str) -> str:
    disposition = f'Content-Disposition: form-data; name="{_quoted(name)}"'
    return f"--{boundary}\r\nContent-Type: {media_type}\r\n{disposition}"


def _quoted(name: str) -> str:
    """Return a name escaped as browsers do in a form."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def decimal_text(value: str | float) -> str:
    """Return a field's value as text: numbers as decimals without an exponent, true or false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        return format(Decimal(text), "f") if "e" in text else text
    return str(value)
