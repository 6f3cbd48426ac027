"""A request's body: content type, size limits, pieces, and strict JSON."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Sequence

from aiohttp import HttpVersion11, web

from impasto_plugins.gateway.errors import APIError

from .connection import BodyTimeout
from .memory_budget import MemoryReservation
from .multipart import PartHead

MAX_FIELD_BYTES = 256 * 1024
"""Bytes of a form's text field."""

MAX_VALUES = 50_000
"""Values of a JSON body, counted by separators: a prompt's commas count too, and are far fewer."""

JSON = "application/json"

_SMALL_BYTES = 64 * 1024

CONTENT_TYPES = (JSON, "multipart/form-data")


def check_content_type(request: web.BaseRequest) -> None:
    """Refuse a body that is neither JSON nor a form: a web page can send text to any address. Raises APIError."""
    if request.body_exists and "content-type" in request.headers and request.content_type not in CONTENT_TYPES:
        raise content_type_error()


def check_content_encoding(request: web.BaseRequest) -> None:
    """Refuse a compressed body, whose real size is unknown. Raises APIError."""
    codings = ",".join(request.headers.getall("content-encoding", ())).lower()
    if codings and any(coding.strip(" 	") not in ("", "identity") for coding in codings.split(",")):  # may be empty
        raise APIError(
            415,
            "a compressed body is not supported; send it without Content-Encoding",
            code="unsupported_encoding",
            close=True,
        )


def content_type_error() -> APIError:
    """Return the refusal of a body that is neither JSON nor a form."""
    message = "Content-Type must be application/json or multipart/form-data"
    return APIError(415, message, code="unsupported_content_type", close=True)


def read_small(request: web.BaseRequest) -> bytes | None:
    """Return a small body that has come whole with its head; None if it must be read."""
    content = request.content
    if not content.is_eof() or content.exception() is not None or content.total_bytes > _SMALL_BYTES:
        return None
    return content.read_nowait()


async def read_chunks(request: web.BaseRequest, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield a body's pieces as they arrive, after 100-continue if the caller waits for it. Raises APIError."""
    content, size = request.content, request.content_length or 0
    too_large = APIError(413, f"a request may have at most {max_bytes:,} bytes", code="request_too_large", close=True)
    if size > max_bytes:
        raise too_large
    if request.version >= HttpVersion11 and request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    size = 0
    while not content.at_eof():
        try:
            chunk = await content.readany()
        except BodyTimeout as error:
            raise APIError(408, str(error), code="request_timeout", close=True) from None
        except (web.RequestPayloadError, ConnectionError):  # damaged framing, or a caller who left
            raise APIError(400, "the body is damaged or cut short", code="invalid_body", close=True) from None
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        yield chunk


def has_too_many_values(body: bytes | bytearray) -> bool:
    """Return True if JSON has too many values: each would take a hundred times its bytes in memory."""
    return len(body) > MAX_VALUES and sum(body.count(mark) for mark in b",[{") > MAX_VALUES


def parse_json(body: bytes) -> object:
    """Return strict JSON: no NaN, no duplicate names, no overflow. Raises APIError."""
    if body.startswith(codecs.BOM_UTF8):  # RFC 8259, 8.1: nobody may send it; most editors do not show it
        raise APIError(400, "the body begins with a byte order mark; send it without that mark", code="invalid_json")
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        message = "the body is not valid UTF-8"
    except RecursionError:
        message = "the body is nested too deeply"
    except ValueError as error:  # JSONDecodeError, a number of too many digits, and what is raised below
        message = (
            f"the body is not valid JSON: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else _describe_error(error)
        )
    raise APIError(400, message, code="invalid_json")


class _MalformedJSON(ValueError):
    """Invalid JSON, with a message for the caller."""


def _describe_error(error: ValueError) -> str:
    return (
        f"the body is not valid JSON: {error}" if isinstance(error, _MalformedJSON) else "a number has too many digits"
    )


def _reject_constant(constant: str) -> None:
    raise _MalformedJSON(f"{constant} is not allowed in JSON")


class _Underflow(float):
    """A number that is not 0 and too small for a float: every field refuses it, since it is within no limits."""

    def __repr__(self) -> str:
        return "a number that is too small"


def _parse_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _MalformedJSON("a number is too large")
    if not number and set(text.lower().partition("e")[0]) & set("123456789"):
        return _Underflow("nan")
    return number


def _reject_duplicates(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _MalformedJSON("a name was given twice")
    return fields


_DECODER = json.JSONDecoder(
    parse_constant=_reject_constant, parse_float=_parse_float, object_pairs_hook=_reject_duplicates
)


async def read_text_field(head: PartHead, body: AsyncIterator[bytes], reservation: MemoryReservation) -> str:
    """Return a form's text field. Raises APIError."""
    data = bytearray()
    async for chunk in body:
        data += chunk
        if len(data) > MAX_FIELD_BYTES:
            message = f"a field may have at most {MAX_FIELD_BYTES:,} bytes"
            raise APIError(413, message, code="request_too_large", param=head.name[:60], close=True)
    reservation.reserve(len(data))
    try:
        return data.decode(head.charset)
    except UnicodeDecodeError:
        message = f"is not text in {head.charset}; if it is a file, give its part a filename or a Content-Type"
        raise APIError(400, message, code="invalid_form", param=head.name[:60], close=True) from None
