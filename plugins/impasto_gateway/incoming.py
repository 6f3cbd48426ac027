"""What came in: a JSON body or a form, read strictly and within bounds, as a call's arguments."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Self

import attrs
from aiohttp import HttpVersion11, web

from impasto import File, InvalidRequest, Operation, Problem

from .connections import TooSlow
from .errors import Failure
from .flow import Share
from .multipart import Head, NotAForm, Parts, boundary_of
from .spool import Upload

MOST_PARTS = 64
LONGEST_FIELD = 256 * 1024
"""Bytes of a form's text field."""

MOST_VALUES = 50_000
"""Values of a JSON body, by the marks that stand between them: a prompt's commas count, and are far fewer."""

_COPIES = 4
"""How often a JSON body is in memory: its bytes, its text, its values, and its pictures decoded."""

_PICTURES = {"image": "image", "images": "image", "mask": "mask"}
"""What a form may call its pictures; brackets may follow."""

_NESTED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,8})")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_INDEX = re.compile(r"[0-9]{0,3}")

_JSON = "application/json"
_KINDS = (_JSON, "multipart/form-data")
_NUMBERS = ("n", "output_compression", "partial_images")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,40})?")
_NO_URL = "must be a data: URI; a URL is never fetched here, so send the picture itself"


@attrs.define(kw_only=True)
class Asked:
    """A call as it was asked for: ``given`` are its arguments but for these three.

    ``form``: it came as a form, where numbers are text.
    """

    model: object
    stream: object
    partial_images: object
    given: dict[str, object]
    form: bool

    @classmethod
    def of(cls, given: dict[str, object], *, form: bool) -> Asked:
        """Takes a body's fields apart."""
        partial = given.pop("partial_images", None)
        stream = given.pop("stream", None)
        return cls(
            model=given.pop("model", None),
            stream=_flag(stream) if form else stream,
            partial_images=_number(partial, whole=True) if form else partial,
            given=given,
            form=form,
        )

    @classmethod
    def of_json(cls, given: dict[str, object]) -> Asked:
        """Takes a JSON body's fields apart. Raises Failure."""
        if "images" in given:
            if "image" in given:
                raise Failure(400, "image and images are the same; give one", code="invalid_value", param="images")
            given["image"] = given.pop("images")
        return cls.of(given, form=False)

    def arguments(self, operation: Operation) -> dict[str, object]:
        """The arguments for one model: its pictures as files, a form's numbers as numbers. Raises InvalidRequest."""
        problems: list[Problem] = []
        given = _pictured(_merged(self.given, problems), operation, problems)
        if problems:
            raise InvalidRequest(problems)
        return _numbered(given, operation) if self.form else given


def check_kind(request: web.BaseRequest) -> None:
    """Refuses a body that is no JSON or form: a web page can send text to any address. Raises Failure."""
    if request.body_exists and "content-type" in request.headers and request.content_type not in _KINDS:
        raise _unsupported()


def check_coding(request: web.BaseRequest) -> None:
    """Refuses a body that is compressed: what it comes to is not known. Raises Failure."""
    if any(coding.lower() != "identity" for coding in request.headers.getall("content-encoding", [])):
        raise Failure(415, "a compressed body is not taken; send it as it is", code="unsupported_encoding", close=True)


def _unsupported() -> Failure:
    said = "Content-Type must be application/json or multipart/form-data"
    return Failure(415, said, code="unsupported_content_type", close=True)


async def read(request: web.BaseRequest, most: int, share: Share, files: ExitStack) -> Asked:
    """Reads the body of a call. The uploads live as long as ``files``. Raises Failure."""
    headers = request.headers
    check_coding(request)
    kind = request.content_type if "content-type" in headers else ""
    if kind not in _KINDS:
        raise _unsupported()
    chunks = await chunks_of(request, most * 4 // 3 if kind == _JSON else most)  # JSON has its pictures in base64
    if kind == _JSON:
        return await _json(chunks, share)
    return await _form(chunks, headers["content-type"], share, files)


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


async def _json(chunks: AsyncIterator[bytes], share: Share) -> Asked:
    body = bytearray()
    async for chunk in chunks:
        share.take(len(chunk) * _COPIES)
        body += chunk
    if holds_too_much(body):
        raise Failure(400, f"the body has more than {MOST_VALUES:,} values", code="invalid_json")
    given = parse_json(bytes(body))
    if not isinstance(given, dict):
        raise Failure(400, "the body must be a JSON object", code="invalid_json")
    return Asked.of_json(given)


def holds_too_much(body: bytes | bytearray) -> bool:
    """Whether JSON has more values than there may be: each would be a hundred times its bytes in memory."""
    return sum(body.count(mark) for mark in b",[{") > MOST_VALUES


def parse_json(body: bytes) -> object:
    """JSON as its standard has it: no NaN, no name twice, nothing that overflows. Raises Failure."""
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


async def _form(chunks: AsyncIterator[bytes], content_type: str, share: Share, files: ExitStack) -> Asked:
    given: dict[str, object] = {}
    try:
        parts = Parts(chunks, boundary_of(content_type))
        for _ in range(MOST_PARTS):
            if (head := await parts.head()) is None:
                return Asked.of(given, form=True)
            if head.filename is None:
                value: object = await field_text(head, parts.body(), share)
            else:
                value = await _upload(head, head.filename, parts.body(), share, files)
            _add(given, head.name, value)
    except NotAForm as error:
        raise Failure(400, f"the body is no sound form: {error}", code="invalid_form", close=True) from None
    raise Failure(413, f"a form may have {MOST_PARTS} parts", code="request_too_large", close=True)


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
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Failure(400, "is no UTF-8 text", code="invalid_form", param=head.name[:60], close=True) from None


async def _upload(head: Head, filename: str, body: AsyncIterator[bytes], share: Share, files: ExitStack) -> File:
    spool = Upload(filename or head.name, share)
    files.callback(spool.close)
    async for piece in body:
        await spool.write(piece)
    return await spool.finish()


def _add(given: dict[str, object], name: str, value: object) -> None:
    """Places a form's field. Brackets in its name are lists and objects, as SDKs write them: ``opts[a][]``."""
    found = _NESTED.fullmatch(name)
    word, *path = (found[1], *_BRACKETS.findall(found[2])) if found is not None else (name,)
    word = _PICTURES.get(word, word)
    if word in _PICTURES.values() and isinstance(value, File) and (not path or _INDEX.fullmatch(path[0])):
        path = [""] if word == "image" else []  # several images come in any of these ways; there is one mask
    if not _put(given, word, path, value):
        raise Failure(400, f"{word[:60]} is given twice", code="invalid_value", param=word[:60], close=True)


def _put(place: dict[str, object], key: str, path: Sequence[str], value: object) -> bool:
    """Puts a value there, or below there; False where something else stands."""
    if not path:
        return key not in place and place.setdefault(key, value) is value
    if path[0] == "" and len(path) == 1:
        values = place.setdefault(key, [])
        if isinstance(values, list):
            values.append(value)
        return isinstance(values, list)
    below = place.setdefault(key, {})
    return isinstance(below, dict) and _put(below, path[0], path[1:], value)


def _merged(given: Mapping[str, object], problems: list[Problem]) -> dict[str, object]:
    """The arguments with those of ``extra_body`` among them, as SDKs in other languages send it."""
    extra = given.get("extra_body")
    if isinstance(extra, str):  # a form has nothing but text
        with suppress(Failure):
            extra = parse_json(extra.encode())
    merged = {name: value for name, value in given.items() if name != "extra_body"}
    if extra is None:
        return merged
    if not isinstance(extra, dict):
        problems.append(Problem("extra_body", "must be an object of names and values"))
        return merged
    for name, value in extra.items():
        if name in merged or name in ("model", "stream", "partial_images"):
            problems.append(Problem(name[:60], "was given both beside extra_body and in it; leave one out"))
        else:
            merged[name] = value
    return merged


def _pictured(given: Mapping[str, object], operation: Operation, problems: list[Problem]) -> dict[str, object]:
    """The arguments with nothing but files where a model takes files: text would be taken for a path."""
    made = dict(given)
    for word in operation.file_words & made.keys():
        value = made[word]
        each = value if isinstance(value, list) and word == "image" else [value]
        try:
            pictures = [_picture(one) for one in each if one is not None]
        except ValueError as error:
            problems.append(Problem(word, str(error)))
            continue
        made[word] = pictures if isinstance(value, list) else next(iter(pictures), None)
    return made


def _picture(value: object) -> object:
    """A file, or a ``data:`` URI that becomes one. Raises ValueError."""
    if isinstance(value, dict):
        if set(value) == {"file_id"}:
            raise ValueError("file_id is not taken: no files are kept here; send image_url with a data: URI")
        if set(value) != {"image_url"}:
            raise ValueError("must be an object with image_url, a data: URI")
        value = value["image_url"]
    if isinstance(value, File) or (isinstance(value, str) and value[:5].lower() == "data:"):
        return value
    raise ValueError(_NO_URL)


def _numbered(given: Mapping[str, object], operation: Operation) -> dict[str, object]:
    """A form's arguments with numbers where the model takes numbers. What is no number stays text, and is refused."""
    made = dict(given)
    for name, value in given.items():
        field = operation.fields.get(operation.also.get(name, name))
        kind = "integer" if name in _NUMBERS else field.kind if field is not None else "other"
        if kind in ("integer", "number"):
            made[name] = _number(value, whole=kind == "integer")
    return made


def _number(value: object, *, whole: bool) -> object:
    if not isinstance(value, str) or (found := _DECIMAL.fullmatch(value)) is None:
        return value
    if found[2] is None:
        return int(value)
    return value if whole else float(value)


def _flag(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
