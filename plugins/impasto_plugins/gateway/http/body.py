"""A request's body: its kind, its size limits, its pieces, and strict JSON."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Sequence
from typing import Self

from aiohttp import HttpVersion11, web

from impasto_plugins.gateway.errors import Failure

from .connection import TooSlow
from .memory_budget import Share
from .multipart import Head

LONGEST_FIELD = 256 * 1024
"""Bytes of a form's text field."""

MOST_VALUES = 50_000
"""Values of a JSON body, by the marks that stand between them: a prompt's commas count, and are far fewer."""

JSON = "application/json"

CONTENT_TYPES = (JSON, "multipart/form-data")


def check_kind(request: web.BaseRequest) -> None:
    """Refuses a body that is no JSON or form: a web page can send text to any address. Raises Failure."""
    if request.body_exists and "content-type" in request.headers and request.content_type not in CONTENT_TYPES:
        raise unsupported_content_type()


def check_coding(request: web.BaseRequest) -> None:
    """Refuse a body that is compressed: what it comes to is not known. Raises Failure."""
    codings = ",".join(request.headers.getall("content-encoding", ())).lower()
    if codings and any(coding.strip(" 	") not in ("", "identity") for coding in codings.split(",")):  # may be empty
        raise Failure(415, "a compressed body is not taken; send it as it is", code="unsupported_encoding", close=True)


def unsupported_content_type() -> Failure:
    """Return the refusal of a body that is neither JSON nor a form."""
    said = "Content-Type must be application/json or multipart/form-data"
    return Failure(415, said, code="unsupported_content_type", close=True)


async def chunks_of(request: web.BaseRequest, most: int) -> AsyncIterator[bytes]:
    """A body's pieces as they come, which are asked for where the caller waits for that. Raises Failure."""
    chunks = _Chunks(request, most)
    if request.version >= HttpVersion11 and request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return chunks


class _Chunks:
    """A body's pieces as they come, of at most so many bytes in all. Raises Failure, before it reads too much."""

    def __init__(self, request: web.BaseRequest, most: int) -> None:
        if (request.content_length or 0) > most:
            raise _too_large(most)
        self._content = request.content
        self._most = most
        self._size = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._content.at_eof():
            raise StopAsyncIteration
        try:
            chunk = await self._content.readany()
        except TooSlow as error:
            raise Failure(408, str(error), code="request_timeout", close=True) from None
        except (web.RequestPayloadError, ConnectionError):  # damaged framing, or a caller who left
            raise Failure(400, "the body is damaged or cut short", code="invalid_body", close=True) from None
        self._size += len(chunk)
        if self._size > self._most:
            raise _too_large(self._most)
        return chunk


def _too_large(most: int) -> Failure:
    return Failure(413, f"a request may have {most:,} bytes", code="request_too_large", close=True)


def holds_too_much(body: bytes | bytearray) -> bool:
    """Return True if JSON has more values than there may be: each would be a hundred times its bytes in memory."""
    return len(body) > MOST_VALUES and sum(body.count(mark) for mark in b",[{") > MOST_VALUES


def parse_json(body: bytes) -> object:
    """JSON as its standard has it: no NaN, no name twice, nothing that overflows. Raises Failure."""
    if body.startswith(codecs.BOM_UTF8):  # RFC 8259, 8.1: nobody may send it; most editors do not show it
        raise Failure(400, "the body begins with a byte order mark; send it without that mark", code="invalid_json")
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        said = "the body is no UTF-8"
    except RecursionError:
        said = "the body is nested too deeply"
    except ValueError as error:  # JSONDecodeError, a number of too many digits, and what is raised below
        said = f"the body is no sound JSON: {error.msg}" if isinstance(error, json.JSONDecodeError) else _said(error)
    raise Failure(400, said, code="invalid_json")


class _Unsound(ValueError):
    """Its message is fit for the caller."""


def _said(error: ValueError) -> str:
    return f"the body is no sound JSON: {error}" if isinstance(error, _Unsound) else "a number has too many digits"


def _refuse(word: str) -> None:
    raise _Unsound(f"{word} is no JSON")


class _Tiny(float):
    """What no float can hold and is not 0: whichever field it stands in refuses it, as it is within no bounds."""

    def __repr__(self) -> str:
        return "a number that is too small"


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _Unsound("a number is too large")
    if not number and set(text.lower().partition("e")[0]) & set("123456789"):
        return _Tiny("nan")
    return number


def _without_twins(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Unsound("a name is given twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_without_twins)


async def field_text(head: Head, body: AsyncIterator[bytes], share: Share) -> str:
    """A form's text field. Raises Failure."""
    data = bytearray()
    async for piece in body:
        data += piece
        if len(data) > LONGEST_FIELD:
            said = f"a field may have {LONGEST_FIELD:,} bytes"
            raise Failure(413, said, code="request_too_large", param=head.name[:60], close=True)
    share.take(len(data))
    try:
        return data.decode(head.charset)
    except UnicodeDecodeError:
        said = f"is not text in {head.charset}; if it is a file, give its part a filename or a Content-Type"
        raise Failure(400, said, code="invalid_form", param=head.name[:60], close=True) from None
