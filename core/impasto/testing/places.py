"""The content of a request by its places, and the value that a field must have at its place.

A place is the name of a form's part, or the path of a value in JSON with dots (``parameters.seed``, ``images.0.data``).
``header:NAME``, ``query:NAME`` and ``path`` are places outside the body.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import attrs

from impasto import File, Operation
from impasto.ext import convert_files
from impasto.fields import Field

from .recorder import RecordedRequest

TRANSPORT_HEADERS = frozenset(
    {
        *("host", "user-agent", "accept-encoding", "connection", "content-type", "content-length"),
        *("transfer-encoding", "expect", "date", "x-amz-date", "x-amz-content-sha256", "amz-sdk-invocation-id"),
        *("x-amz-security-token", "amz-sdk-request"),
    }
)
"""Headers that a transport writes, not a dialect."""

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
MISSING = object()


@attrs.frozen
class SentPart:
    """A part of a multipart form. ``filename`` is None for a field."""

    content: bytes
    filename: str | None


class Content:
    """The body, the query and the headers of a request, by place."""

    def __init__(self, request: RecordedRequest) -> None:
        self._request, self.raw = request, request.body
        self.is_form = request.header("content-type").startswith("multipart/form-data")
        self.body: Any = {}
        """JSON as it was parsed, or the parts of a form: a part, or a list if a name repeats."""
        if self.is_form:
            self.body = _form(request)
        elif request.header("content-type").startswith("application/x-www-form-urlencoded"):
            self.body = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        elif request.body:
            self.body = json.loads(request.body)

    def at(self, place: str) -> object:
        """Return the value at a place, or ``MISSING``."""
        kind, _, name = place.partition(":")
        if kind == "header" and name:
            return self._request.header(name.lower()) or MISSING
        if kind == "query" and name:
            return dict(parse_qsl(urlsplit(self._request.target).query, keep_blank_values=True)).get(name, MISSING)
        if place == "path":
            return self._request.target
        if self.is_form:
            return self.body.get(place, MISSING)
        value = self.body
        for step in place.split("."):
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                return MISSING
        return value

    def undeclared(self, places: Sequence[str]) -> Iterator[str]:
        """Yield the places in use that are neither among these nor below one of them."""
        for place in (*_leaves(self.body, is_form=self.is_form), *self._outside()):
            if not any(place == each or place.startswith(f"{each}.") for each in places):
                yield place

    def _outside(self) -> Iterator[str]:
        for name, _ in parse_qsl(urlsplit(self._request.target).query, keep_blank_values=True):
            yield f"query:{name}"
        for name, _ in self._request.headers:
            if name.lower() not in TRANSPORT_HEADERS:
                yield f"header:{name.lower()}"


def _form(request: RecordedRequest) -> dict[str, SentPart | list[SentPart]]:
    match = _BOUNDARY.search(request.header("content-type"))
    boundary = b"\r\n--" + (match[1].encode() if match is not None else b"")
    form: dict[str, SentPart | list[SentPart]] = {}
    for piece in (b"\r\n" + request.body).split(boundary)[1:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = next(
            (each for each in head.split(b"\r\n") if each.lower().startswith(b"content-disposition")), b""
        )
        name, filename = (re.search(rb'[; ]%s="([^"]*)"' % key, disposition) for key in (b"name", b"filename"))
        part = SentPart(content, filename[1].decode() if filename is not None else None)
        key = name[1].decode() if name is not None else ""
        before = form.get(key)
        form[key] = part if before is None else [*(before if isinstance(before, list) else [before]), part]
    return form


def _leaves(value: object, place: str = "", *, is_form: bool = False) -> Iterator[str]:
    """Yield the places of all values that hold no others."""
    if is_form and isinstance(value, Mapping):
        yield from value
    elif isinstance(value, Mapping) and (value or not place):
        for name, each in value.items():
            yield from _leaves(each, f"{place}.{name}" if place else name)
    elif isinstance(value, list) and value:
        for index, each in enumerate(value):
            yield from _leaves(each, f"{place}.{index}" if place else f"{index}")
    else:
        yield place


def content_of(field: Field, value: object) -> object:
    """Return a value that a caller passes as plain data: a file as its bytes, several as a list of them."""
    if field.kind == "file":
        with File.of(value).open() as source:
            return source.read()
    if field.kind in ("files", "groups") and isinstance(value, list | tuple):
        return [content_of(field.item or Field(kind="file"), each) for each in value]
    if field.kind == "group" and not isinstance(value, str):  # one of its choices
        own = field.fields
        content = value if isinstance(value, Mapping) else {name: getattr(value, name, None) for name in own}
        return {name: content_of(own[name], each) for name, each in content.items() if each is not None}
    return value


def on_disk(operation: Operation, folder: Path, params: Mapping[str, object]) -> dict[str, object]:
    """Return parameters with their files as paths, written to a folder."""

    def write(file: object) -> Path:
        content = cast(bytes, content_of(Field(kind="file"), file))
        path = folder / f"{hashlib.sha256(content).hexdigest()}.bin"
        path.write_bytes(content)
        return path

    return convert_files(params, operation.file_arguments, write)


def matches(found: object, value: object, *, data_url: bool = False) -> bool:
    """Return True if what is at a place is this value, with its JSON type, or as a form's part."""
    match found, value:
        case SentPart(), list() | tuple():
            return len(value) == 1 and matches(found, value[0])
        case SentPart(content=content, filename=filename), bytes():
            return filename is not None and content == value
        case SentPart(content=content, filename=filename), _:
            return filename is None and text_matches(content.decode("utf-8", "replace"), value)
        case list(), list() | tuple():
            return len(found) == len(value) and all(
                matches(one, other, data_url=data_url) for one, other in zip(found, value, strict=True)
            )
        case dict(), Mapping():
            return found.keys() == value.keys() and all(
                matches(found[name], each, data_url=data_url) for name, each in value.items()
            )
        case str(), bytes():
            encoded = base64.b64encode(value).decode()
            return found.startswith("data:") and found.endswith(f";base64,{encoded}") if data_url else found == encoded
        case int() | float(), float() if not isinstance(found, bool):
            return found == value
    return type(found) is type(value) and found == value


def text_matches(found: object, value: object) -> bool:
    """Return True if a text outside the body, or a form's field, is this value."""
    if isinstance(value, bool):
        return found == ("true" if value else "false")
    if isinstance(value, int | float):
        is_number = isinstance(found, str) and _PLAIN_NUMBER.fullmatch(found) is not None
        return is_number and Decimal(str(found)) == Decimal(repr(value))
    return found == value


def all_fields(fields: Mapping[str, Field], within: str = "") -> Iterator[tuple[str, Field]]:
    """Yield each field with its name, and those of nested objects as ``group.field``."""
    for name, field in fields.items():
        yield f"{within}{name}", field
        yield from all_fields(field.fields, f"{within}{name}.")
