"""What came in: a JSON body or a form, read strictly and within bounds, as a call's arguments."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, suppress

import attrs
from aiohttp import web

from impasto import File, InvalidRequest, Operation, Problem
from impasto.ext import printable
from impasto_plugins.gateway.errors import Failure
from impasto_plugins.gateway.http.body import (
    CONTENT_TYPES,
    JSON,
    MOST_VALUES,
    check_coding,
    chunks_of,
    field_text,
    holds_too_much,
    parse_json,
    unsupported_content_type,
)
from impasto_plugins.gateway.http.memory_budget import Share
from impasto_plugins.gateway.http.multipart import Head, NotAForm, Parts, boundary_of
from impasto_plugins.gateway.http.spool import Upload

MOST_PARTS = 64
MOST_UPLOADS = 20
"""Uploaded files that a call may name: OpenAI's 16 images, and a mask."""


_COPIES = 4
"""How often a JSON body is in memory: its bytes, its text, its values, and its pictures decoded."""

_PICTURES = {"image": "image", "images": "image", "mask": "mask"}
"""What a form may call its pictures; brackets may follow."""

_NESTED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,8})")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_INDEX = re.compile(r"[0-9]{0,3}")

_TEXTS = ("prompt", "user")
"""OpenAI's words that take any text, "null" too."""

_NUMBERS = ("n", "output_compression", "partial_images")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,40})?")
_NO_URL = "must be a data: URI, or an object with file_id; a URL is never fetched here, so send the image itself"


@attrs.define(kw_only=True)
class Asked:
    """A call's arguments: ``given`` are those besides ``model`` and ``stream``. None of them is None.

    ``form``: it came as a form, where numbers are text.
    """

    model: object
    stream: object
    given: dict[str, object]
    form: bool

    @classmethod
    def of(cls, body: dict[str, object], *, form: bool) -> Asked:
        """Take a body's fields apart. Raises Failure."""
        given = _merged(body)
        stream = given.pop("stream", None)
        model = given.pop("model", None)
        return cls(
            model=None if form and model == "null" else model,
            stream=_flag(stream) if form else stream,
            given=given,
            form=form,
        )

    @classmethod
    def of_json(cls, body: dict[str, object]) -> Asked:
        """Take a JSON body's fields apart. Raises Failure."""
        asked = cls.of(body, form=False)
        if "images" in asked.given:
            if "image" in asked.given:
                raise Failure(400, "image and images are the same; give one", code="invalid_value", param="images")
            asked.given["image"] = asked.given.pop("images")
        return asked

    @property
    def reads_disk(self) -> bool:
        """Return True if the content of its files is not in memory."""
        for value in self.given.values():
            for each in value if isinstance(value, list) else (value,):
                if isinstance(each, File) and each.on_disk:
                    return True
        return False

    def uploads(self) -> dict[str, str]:
        """Return the ids of uploaded files that the call names, each with its argument. Raises Failure."""
        found: dict[str, str] = {}
        for word, value in self.given.items():
            for each in value if isinstance(value, list) else (value,):
                if (id := _file_id(each)) is None:
                    continue
                if not isinstance(id, str):
                    raise Failure(400, f"{word}: file_id must be text", code="invalid_image", param=word)
                found[id] = word
                if len(found) > MOST_UPLOADS:
                    said = f"{word}: a call may name {MOST_UPLOADS} files"
                    raise Failure(400, said, code="invalid_image", param=word)
        return found

    def place(self, files: Mapping[str, File]) -> None:
        """Put uploaded files in the places of their ids."""
        for word, value in self.given.items() if files else ():
            if isinstance(value, list):
                self.given[word] = [_placed(each, files) for each in value]
            else:
                self.given[word] = _placed(value, files)

    def arguments(self, operation: Operation) -> dict[str, object]:
        """The arguments for one model: its pictures as files, a form's numbers as numbers. Raises InvalidRequest."""
        problems: list[Problem] = []
        given = _pictured(_typed(self.given, operation) if self.form else self.given, operation, problems)
        if problems:
            raise InvalidRequest(problems)
        return given


async def read(request: web.BaseRequest, most: int, share: Share, files: ExitStack) -> Asked:
    """Reads the body of a call. The uploads live as long as ``files``. Raises Failure."""
    headers = request.headers
    check_coding(request)
    kind = request.content_type if "content-type" in headers else ""
    if kind not in CONTENT_TYPES:
        raise unsupported_content_type()
    chunks = await chunks_of(request, most * 4 // 3 if kind == JSON else most)  # JSON has its pictures in base64
    if kind == JSON:
        return await _json(chunks, share)
    return await _form(chunks, headers["content-type"], share, files)


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


async def _form(chunks: AsyncIterator[bytes], content_type: str, share: Share, files: ExitStack) -> Asked:
    given: dict[str, object] = {}
    count = 0
    try:
        parts = Parts(chunks, boundary_of(content_type))
        while (head := await parts.head()) is not None:
            count += 1
            if count > MOST_PARTS:
                raise Failure(413, f"a form may have {MOST_PARTS} parts", code="request_too_large", close=True)
            if head.filename is None:  # a form has no null: SDKs send a field that has no value as an empty one
                value: object = await field_text(head, parts.body(), share) or None
            else:
                value = await _upload(head, head.filename, parts.body(), share, files)
            if value is not None:
                _add(given, head.name, value)
    except NotAForm as error:
        raise Failure(400, f"the body is no sound form: {error}", code="invalid_form", close=True) from None
    return Asked.of(given, form=True)


async def _upload(head: Head, filename: str, body: AsyncIterator[bytes], share: Share, files: ExitStack) -> File | None:
    """Return the uploaded file; None for a web form's file input in which no file was chosen."""
    spool = Upload(filename or head.name, share)
    files.callback(spool.close)
    is_empty = True
    async for piece in body:
        is_empty = False
        await spool.write(piece)
    return None if is_empty and not filename else await spool.finish()


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


def _merged(body: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments that are not null, with those of ``extra_body``, which not every SDK merges itself.

    Raises Failure.
    """
    given = {name: value for name, value in body.items() if value is not None}
    extra = given.pop("extra_body", None)
    if isinstance(extra, str):  # a form has nothing but text
        with suppress(Failure):
            extra = parse_json(extra.encode())
    if extra is None:
        return given
    if not isinstance(extra, dict):
        said = "extra_body: must be an object of names and values"
        raise Failure(400, said, code="invalid_value", param="extra_body")
    for name, value in extra.items():
        if value is None:
            continue
        if name in given:
            said = f"{printable(name[:60])}: was given both beside extra_body and in it; leave one out"
            raise Failure(400, said, code="invalid_value", param=printable(name[:60]))
        given[name] = value
    return given


def _pictured(given: Mapping[str, object], operation: Operation, problems: list[Problem]) -> dict[str, object]:
    """The arguments with nothing but files where a model takes files: text would be taken for a path."""
    made = dict(given)
    for word in operation.file_words & made.keys():
        value = made[word]
        each = value if isinstance(value, list) and word == "image" else [value]
        try:
            pictures = [_picture(one) for one in each if not _is_null(one)]
        except ValueError as error:
            problems.append(Problem(word, str(error)))
            continue
        made[word] = pictures if isinstance(value, list) else next(iter(pictures), None)
    return made


def _is_null(value: object) -> bool:
    """Return True for null, and for an object of nothing but nulls, as clients write an image that is not given."""
    return value is None or (isinstance(value, dict) and bool(value) and all(each is None for each in value.values()))


def _file_id(value: object) -> object:
    """Return the ``file_id`` of an image, or None if it is given in another way."""
    if not isinstance(value, dict) or value.get("file_id") is None:
        return None
    return value["file_id"] if all(name == "file_id" or each is None for name, each in value.items()) else None


def _placed(value: object, files: Mapping[str, File]) -> object:
    id = _file_id(value)
    return files[id] if isinstance(id, str) else value


def _picture(value: object) -> object:
    """A file, or a ``data:`` URI that becomes one. Raises ValueError."""
    if isinstance(value, dict):
        value = {name: each for name, each in value.items() if each is not None}
        if set(value) != {"image_url"}:
            raise ValueError("must be an object with image_url, a data: URI, or with file_id")
        value = value["image_url"]
    if isinstance(value, File) or (isinstance(value, str) and value[:5].lower() == "data:"):
        return value
    raise ValueError(_NO_URL)


def _typed(given: Mapping[str, object], operation: Operation) -> dict[str, object]:
    """Return a form's arguments with the types that the model's fields have. Other text stays, and is refused.

    A browser's form writes null as the text "null", which means nothing to a field that does not take any text.
    """
    made: dict[str, object] = {}
    for name, value in given.items():
        field = operation.fields.get(operation.also.get(name, name))
        kind = "integer" if name in _NUMBERS else field.kind if field is not None else None
        if isinstance(value, list) and name in operation.file_words:
            value = [each for each in value if each != "null"] or None
        if value is None or (value == "null" and kind != "text" and name not in _TEXTS):
            continue
        if kind == "other":
            value = _flag(value)
        made[name] = _number(value, whole=kind == "integer") if kind in ("integer", "number", "other") else value
    return made


def _number(value: object, *, whole: bool) -> object:
    if not isinstance(value, str) or (found := _DECIMAL.fullmatch(value)) is None:
        return value
    if found[2] is None:
        return int(value)
    return value if whole else float(value)


def _flag(value: object) -> object:
    return {"true": True, "false": False, "null": None}.get(value, value) if isinstance(value, str) else value
