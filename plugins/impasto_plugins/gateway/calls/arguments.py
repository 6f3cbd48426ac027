"""Arguments of a call from a JSON body or a form, read strictly and within limits."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress

import attrs
from aiohttp import web

from impasto import File, InvalidRequest, Operation, Problem
from impasto.ext import convert_files, field_at, printable
from impasto.fields import LISTS, Field
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.http.body import (
    CONTENT_TYPES,
    JSON,
    MAX_VALUES,
    check_content_encoding,
    content_type_error,
    has_too_many_values,
    parse_json,
    read_chunks,
    read_small,
    read_text_field,
)
from impasto_plugins.gateway.http.memory_budget import MemoryReservation
from impasto_plugins.gateway.http.multipart import FormReader, InvalidForm, PartHead, parse_boundary
from impasto_plugins.gateway.http.spool import UploadSpool

MAX_PARTS = 64
MAX_UPLOADS = 20
"""Uploaded files that a call may name: OpenAI's 16 images, and a mask."""


_COPIES = 4
"""Copies of a JSON body in memory: its bytes, its text, its values, and its decoded images."""

_IMAGE_FIELDS = {"image": "image", "images": "image", "mask": "mask"}
"""Names of images in a form; brackets may follow."""

_NESTED_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,8})")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_INDEX = re.compile(r"[0-9]{0,3}")

_TEXT_FIELDS = ("prompt", "user")
"""OpenAI's words that take any text, "null" too."""

_NUMERIC_FIELDS = ("n", "output_compression", "partial_images")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,40})?")
_MAX_LABEL_LENGTH = 80
_URL_NOT_ALLOWED = (
    "must be a data: URI, or an object with file_id; a URL is never fetched here, so send the image itself"
)


@attrs.define(kw_only=True)
class CallArguments:
    """A call's arguments: ``for_operation`` without ``model`` and ``stream``. None of them is None.

    ``is_form``: they came as a form, where numbers are text.
    """

    model: object
    stream: object
    params: dict[str, object]
    is_form: bool

    @classmethod
    def from_fields(cls, body: dict[str, object], *, form: bool) -> CallArguments:
        """Parse the fields of a body. Raises APIError."""
        params = {name: value for name, value in body.items() if value is not None}
        if "extra_body" in params:
            _merge_extra_body(params)
        stream = params.pop("stream", None)
        model = params.pop("model", None)
        for name, value in (("stream", stream), ("model", model)):
            if isinstance(value, _Repeated):
                raise APIError(400, f"{name} was given twice", code="invalid_value", param=name, close=True)
        return cls(
            model=None if form and model == "null" else model,
            stream=_parse_flag(stream) if form and stream is not None else stream,
            params=params,
            is_form=form,
        )

    @classmethod
    def from_json(cls, body: dict[str, object]) -> CallArguments:
        """Parse the fields of a JSON body. Raises APIError."""
        call_args = cls.from_fields(body, form=False)
        if "images" in call_args.params:
            if "image" in call_args.params:
                raise APIError(
                    400,
                    "image and images have the same meaning; give one of them",
                    code="invalid_value",
                    param="images",
                )
            call_args.params["image"] = call_args.params.pop("images")
        return call_args

    @property
    def has_disk_files(self) -> bool:
        """Return True if the content of its files is not in memory."""
        return any(isinstance(each, File) and each.on_disk for _, each in self._leaves())

    def uploaded_file_ids(self) -> dict[str, str]:
        """Return the ids of uploaded files that the call names, each with its argument. Raises APIError."""
        file_ids: dict[str, str] = {}
        for word, each in self._leaves():
            if (id := _file_id(each)) is None:
                continue
            if not isinstance(id, str):
                raise APIError(400, f"{word}: file_id must be text", code="invalid_image", param=word)
            file_ids[id] = word
            if len(file_ids) > MAX_UPLOADS:
                message = f"{word}: a call may name at most {MAX_UPLOADS} files"
                raise APIError(400, message, code="invalid_image", param=word)
        return file_ids

    def resolve_uploads(self, files: Mapping[str, File]) -> None:
        """Replace ids of uploaded files with the files."""
        for word, value in self.params.items() if files else ():
            self.params[word] = _resolve_uploads(value, files)

    def _leaves(self) -> Iterator[tuple[str, object]]:
        """Yield the values in lists and nested objects, each with its argument."""
        for word, value in self.params.items():
            if isinstance(value, list | dict):
                yield from ((word, each) for each in _leaves(value))
            else:
                yield word, value

    def for_operation(self, operation: Operation) -> dict[str, object]:
        """Return the arguments for one model: its images as files, a form's numbers as numbers.

        Raises InvalidRequest.
        """
        problems: list[Problem] = []
        params = _convert_types(self.params, operation, problems) if self.is_form else self.params
        try:  # text would be taken for a path
            params = convert_files(params, operation.file_arguments, _check_image)
        except InvalidRequest as error:
            problems += error.problems
        if problems:
            raise InvalidRequest(problems)
        return params


async def read_call_arguments(
    request: web.BaseRequest, max_bytes: int, reservation: MemoryReservation, files: ExitStack
) -> CallArguments:
    """Read the body of a call. Its uploads live as long as ``files``. Raises APIError."""
    headers = request.headers
    check_content_encoding(request)
    content_type = request.content_type if "content-type" in headers else ""
    if content_type not in CONTENT_TYPES:
        raise content_type_error()
    if content_type == JSON:
        if (small := read_small(request)) is not None:
            reservation.reserve(len(small) * _COPIES)
            return _parse_json(small)
        return await _read_json(read_chunks(request, max_bytes * 4 // 3), reservation)  # it has its images in base64
    return await _read_form(read_chunks(request, max_bytes), headers["content-type"], reservation, files)


async def _read_json(chunks: AsyncIterator[bytes], reservation: MemoryReservation) -> CallArguments:
    body = bytearray()
    async for chunk in chunks:
        reservation.reserve(len(chunk) * _COPIES)
        body += chunk
    return _parse_json(bytes(body))


def _parse_json(body: bytes) -> CallArguments:
    if has_too_many_values(body):
        raise APIError(400, f"the body has more than {MAX_VALUES:,} values", code="invalid_json")
    body_fields = parse_json(body)
    if not isinstance(body_fields, dict):
        raise APIError(400, "the body must be a JSON object", code="invalid_json")
    return CallArguments.from_json(body_fields)


async def _read_form(
    chunks: AsyncIterator[bytes], content_type: str, reservation: MemoryReservation, files: ExitStack
) -> CallArguments:
    fields: dict[str, object] = {}
    count = 0
    try:
        parts = FormReader(chunks, parse_boundary(content_type))
        while (head := await parts.read_head()) is not None:
            count += 1
            if count > MAX_PARTS:
                raise APIError(413, f"a form may have at most {MAX_PARTS} parts", code="request_too_large", close=True)
            if head.filename is None:  # a form has no null: SDKs send a field that has no value as an empty one
                value: object = await read_text_field(head, parts.read_body(), reservation) or None
            else:
                value = await _read_upload(head, head.filename, parts.read_body(), reservation, files)
            if value is not None:
                _add_field(fields, head.name, value)
    except InvalidForm as error:
        raise APIError(400, f"the body is not a valid form: {error}", code="invalid_form", close=True) from None
    return CallArguments.from_fields(fields, form=True)


async def _read_upload(
    head: PartHead, filename: str, body: AsyncIterator[bytes], reservation: MemoryReservation, files: ExitStack
) -> File | None:
    """Return the uploaded file; None for a web form's file input without a file."""
    spool = UploadSpool(printable((filename or head.name)[:_MAX_LABEL_LENGTH]) or "upload", reservation)
    files.callback(spool.close)
    is_empty = True
    async for piece in body:
        is_empty = False
        await spool.write(piece)
    return None if is_empty and not filename else await spool.finish()


def _add_field(fields: dict[str, object], name: str, value: object) -> None:
    """Add a form's field. Brackets in its name mean lists and objects, as SDKs write them: ``opts[a][]``."""
    match = _NESTED_NAME.fullmatch(name)
    word, *path = (match[1], *_BRACKETS.findall(match[2])) if match is not None else (name,)
    word = _IMAGE_FIELDS.get(word, word)
    if (
        word in _IMAGE_FIELDS.values()
        and isinstance(value, File)
        and len(path) < 2
        and all(map(_INDEX.fullmatch, path))
    ):
        path = [""] if word == "image" else []  # several images come in any of these ways; there is one mask
    if not _set_value(fields, word, path, value):
        raise APIError(400, f"{word[:60]} was given twice", code="invalid_value", param=word[:60], close=True)


class _Repeated(list[object]):
    """The values of a form's field that was given more than once: a list, if the model takes one."""


def _set_value(container: dict[str, object], key: str, path: Sequence[str], value: object) -> bool:
    """Set a value at a path; return False if something else is there."""
    if not path:
        earlier = container.get(key)
        if isinstance(earlier, _Repeated):
            earlier.append(value)
        elif key in container and isinstance(earlier, dict | list):
            return False
        else:
            container[key] = _Repeated([earlier, value]) if key in container else value
        return True
    if path[0] == "" and len(path) == 1:
        values = container.setdefault(key, [])
        if isinstance(values, list):
            values.append(value)
        return isinstance(values, list)
    below = container.setdefault(key, {})
    return isinstance(below, dict) and _set_value(below, path[0], path[1:], value)


def _merge_extra_body(params: dict[str, object]) -> None:
    """Replace ``extra_body`` by its arguments, as not every SDK does it. Raises APIError."""
    extra = params.pop("extra_body")
    if isinstance(extra, str):  # a form has nothing but text
        with suppress(APIError):
            extra = parse_json(extra.encode())
    if extra is None:
        return
    if not isinstance(extra, dict):
        message = "extra_body: must be an object of names and values"
        raise APIError(400, message, code="invalid_value", param="extra_body")
    for name, value in extra.items():
        if value is None:
            continue
        if name in params:
            message = f"{printable(name[:60])}: was given beside extra_body and in it; give it once"
            raise APIError(400, message, code="invalid_value", param=printable(name[:60]))
        params[name] = value


_MAX_DEPTH = 4
"""Levels of lists and nested objects in which a model's fields may have files."""


def _leaves(value: object, depth: int = 0) -> Iterator[object]:
    """Yield the values in lists and nested objects; an object that names an uploaded file is one value."""
    if depth == _MAX_DEPTH or not isinstance(value, list | dict) or _file_id(value) is not None:
        yield value
        return
    for each in value.values() if isinstance(value, dict) else value:
        yield from _leaves(each, depth + 1)


def _file_id(value: object) -> object:
    """Return the ``file_id`` of an image, or None if the image has another form."""
    if not isinstance(value, dict) or value.get("file_id") is None:
        return None
    return value["file_id"] if all(name == "file_id" or each is None for name, each in value.items()) else None


def _resolve_uploads(value: object, files: Mapping[str, File], depth: int = 0) -> object:
    id = _file_id(value)
    if isinstance(id, str):
        return files[id]
    if depth == _MAX_DEPTH or not isinstance(value, list | dict):
        return value
    if isinstance(value, list):
        return [_resolve_uploads(each, files, depth + 1) for each in value]
    return {name: _resolve_uploads(each, files, depth + 1) for name, each in value.items()}


def _check_image(value: object) -> object:
    """Return a file or a ``data:`` URI; None for null, as an object of nulls is too. Raises ValueError."""
    if value is None or (isinstance(value, dict) and value and all(each is None for each in value.values())):
        return None
    if isinstance(value, dict):
        value = {name: each for name, each in value.items() if each is not None}
        if set(value) != {"image_url"}:
            raise ValueError("must be an object with image_url, a data: URI, or with file_id")
        value = value["image_url"]
    if isinstance(value, File) or (isinstance(value, str) and value[:5].lower() == "data:"):
        return value
    raise ValueError(_URL_NOT_ALLOWED)


def _convert_types(params: Mapping[str, object], operation: Operation, problems: list[Problem]) -> dict[str, object]:
    """Return a form's arguments with the types that the model's fields have. Other text stays, and is refused.

    A browser's form writes null as the text "null", which means nothing to a field that does not take any text.
    """
    result: dict[str, object] = {}
    for name, value in params.items():
        field = operation.fields.get(name) or field_at(operation.fields, operation.aliases.get(name, name))
        kind = "integer" if name in _NUMERIC_FIELDS else field.kind if field is not None else None
        if isinstance(value, _Repeated) and name != "image" and kind not in LISTS:
            problems.append(Problem(printable(name[:60]), "was given twice; give it once"))
            continue
        if isinstance(value, list) and name in operation.file_arguments:
            value = [each for each in value if each != "null"] or None
        if value is None or (value == "null" and kind not in ("text", "texts") and name not in _TEXT_FIELDS):
            continue
        if name in _NUMERIC_FIELDS:
            result[name] = _parse_number(value, whole=True)
        else:
            result[name] = _with_type(value, field) if field is not None else value
    return result


def _with_type(value: object, field: Field) -> object:
    """Return a form's value with the type that a field has."""
    match field.kind:
        case "integer" | "number":
            return _parse_number(value, whole=field.kind == "integer")
        case "other":
            return _parse_number(_parse_flag(value), whole=False)
        case "boolean":
            return _parse_flag(value)
        case "files" | "texts" | "numbers" | "groups":
            return _list_with_types(value, field)
        case "group":
            if isinstance(value, str) and value not in field.choices:
                with suppress(APIError):
                    return parse_json(value.encode())
            if isinstance(value, dict):
                own = field.fields
                return {name: _with_type(each, own[name]) if name in own else each for name, each in value.items()}
    return value


def _list_with_types(value: object, field: Field) -> list[object]:
    """Return a form's values of a list: one, several of its name, or those of ``name[0]``, ``name[1]``."""
    values = value if isinstance(value, list) else [value]
    if isinstance(value, dict) and value and all(index and _INDEX.fullmatch(index) for index in value):
        values = [value[index] for index in sorted(value, key=int)]
    if field.kind == "groups" and len(values) == 1 and isinstance(values[0], str):
        with suppress(APIError):
            parsed = parse_json(values[0].encode())
            values = parsed if isinstance(parsed, list) else [parsed]
    item = field.item if field.kind in ("numbers", "groups") else None
    return values if item is None else [_with_type(each, item) for each in values]


def _parse_number(value: object, *, whole: bool) -> object:
    if not isinstance(value, str) or (match := _DECIMAL.fullmatch(value)) is None:
        return value
    if match[2] is None:
        return int(value)
    return value if whole else float(value)


def _parse_flag(value: object) -> object:
    return {"true": True, "false": False, "null": None}.get(value, value) if isinstance(value, str) else value
