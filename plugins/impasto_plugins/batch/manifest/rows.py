"""A row of a manifest as the requests of its images.

Two forms: OpenAI's, whose body is that of the drop-in functions, and a short one, that of ``client.run``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import cast

import attrs

from impasto import ConfigError, File, InvalidRequest, Operation, Problem
from impasto.ext import Makes, check_seconds, kind_in_words, requests_with_seeds, resolve_model
from impasto.fields import Field, format_value
from impasto_plugins.batch.filenames import wrong_id
from impasto_plugins.batch.tasks import ImageTask
from impasto_plugins.openai_compat.check import check_request
from impasto_plugins.openai_compat.translate import translate

from .records import RowFields

MAKES: Mapping[str, Makes] = {
    "/v1/images/generations": "image",
    "/v1/images/edits": "image",
    "/v1/audio/generations": "audio",
    "/v1/3d/generations": "3d",
}
"""The output of each path: OpenAI's paths, and the gateway's own."""

URLS = {url: url.endswith("/edits") for url in MAKES}
"""The paths, with True for edits."""

_ELSEWHERE = ("api_key", "api_base", "base_url", "retry")
"""Arguments about the call itself: they belong to the command or the client."""


@attrs.frozen(kw_only=True)
class ManifestRow:
    """A row's content: ``arguments`` are its model's fields or, if ``url`` is set, OpenAI's."""

    id: str
    model: str
    base_model: str | None
    arguments: RowFields = attrs.field(repr=lambda fields: str(list(fields)))
    n: object
    timeout: float | None
    url: str | None

    @property
    def is_edit(self) -> bool:
        """True if the row has OpenAI's form and its path is that of edits."""
        return self.url is not None and URLS[self.url]


def parse_row(row: RowFields) -> ManifestRow:
    """Parse a row. Raises InvalidRequest with every problem."""
    fields = dict(row)
    problems: list[Problem] = []
    is_openai = "custom_id" in fields or "body" in fields
    word = "custom_id" if is_openai else "id"
    id = fields.pop(word, None)
    if (wrong := wrong_id(id)) is not None:
        problems.append(Problem(word, wrong))
    url = None
    if is_openai:
        url, fields = _openai(fields, problems)
    model = fields.pop("model", None)
    if not isinstance(model, str) or not model:
        problems.append(Problem("model", "required: a provider and its model, as in stability/sd3.5-large"))
    base_model = fields.pop("base_model", None)
    if base_model is not None and not isinstance(base_model, str):
        problems.append(Problem("base_model", f"must be text, not {kind_in_words(base_model)}"))
    elif isinstance(model, str):
        try:
            name, address = resolve_model(model, base_model)
            base_model = name if address is not None else None
        except ConfigError as error:
            problems.append(Problem("base_model", error.message))
    timeout = _timeout(fields.pop("timeout", None), problems)
    n = fields.pop("n", None)
    problems += [
        Problem(name, "can't be in a manifest; pass it to the command, or set it in the environment")
        for name in _ELSEWHERE
        if fields.pop(name, None) is not None
    ]
    if problems:
        raise InvalidRequest(problems)
    return ManifestRow(
        id=cast(str, id),
        model=cast(str, model),
        base_model=cast("str | None", base_model),
        arguments={name: value for name, value in fields.items() if value is not None},
        n=n,
        timeout=timeout,
        url=url,
    )


def _openai(fields: RowFields, problems: list[Problem]) -> tuple[str | None, RowFields]:
    method, url, body = fields.pop("method", None), fields.pop("url", None), fields.pop("body", None)
    if method != "POST":
        problems.append(Problem("method", f"must be POST, not {format_value(method)}"))
    if not isinstance(url, str) or url not in URLS:
        problems.append(Problem("url", f"must be one of {', '.join(URLS)}, not {format_value(url)}"))
        url = None
    if not isinstance(body, dict):
        problems.append(Problem("body", "must be an object with the request's parameters"))
        body = {}
    problems += [
        Problem(name[:60], "is not a key of a row; put the request's parameters into its body")
        for name, value in fields.items()
        if value is not None
    ]
    return url, dict(body)


def _timeout(value: object, problems: list[Problem]) -> float | None:
    if value is None:
        return None
    try:
        return check_seconds("timeout", value)
    except ValueError as error:
        problems.append(Problem("timeout", str(error).removeprefix("timeout ")))
        return None


def tasks_of(
    row: ManifestRow,
    operation: Operation,
    folder: Path,
    *,
    drop_params: bool = False,
    line: bytes = b"",
    position: int = 0,
) -> list[ImageTask]:
    """Return the tasks of a row. Reads the files that it names. Raises InvalidRequest with every problem.

    ``folder``: the start of its relative paths. ``line``: the row as written; ``position``: its number.
    """
    arguments, files = _open_row_files(row, operation, folder)
    warnings: tuple[str, ...] = ()
    if row.url is None:
        n = 1 if row.n is None else row.n
        request = operation.request(row.model, arguments, n=n)
    else:
        words = {**arguments, "n": row.n}
        extra, drop = words.pop("extra_body", None), words.pop("drop_params", drop_params)
        translation = translate(
            operation, words, extra_body=extra, drop_params=drop, edit=row.is_edit, makes=MAKES[row.url]
        )
        request, warnings = check_request(operation, row.model, translation)
        n = translation.n
    count = cast(int, n)
    requests, warnings_of_seeds = (
        requests_with_seeds(count, request, operation.fields.get("seed")) if count > 1 else ([request], ())
    )
    sha256, mark = digest(row, files), mark_of(line, row.arguments, operation.file_argument_names, folder)
    content = {"model": row.model, **row.arguments, **{word: _labels(each) for word, each in files.items()}}
    return [
        ImageTask(
            id=row.id,
            index=index,
            n=count,
            model=row.model,
            base_model=row.base_model,
            request=each,
            timeout=row.timeout,
            cost=operation.cost(each),
            content=content,
            sha256=sha256,
            line=mark,
            position=position,
            warnings=warnings if operation.native_n is not None else (*warnings, *warnings_of_seeds),
            native_maximum=operation.native_n[1] if operation.native_n is not None else 1,
        )
        for index, each in enumerate(requests)
    ]


Files = Mapping[str, object]
"""A row's files by argument: a file, a list, or an object in which files stand in the place of their paths."""


def _open_row_files(row: ManifestRow, operation: Operation, folder: Path) -> tuple[dict[str, object], Files]:
    """Return the row's arguments with its files opened, and the files. Raises InvalidRequest."""
    files: dict[str, object] = {}
    problems: list[Problem] = []
    for word in operation.file_argument_names & row.arguments.keys():
        field = operation.fields.get(operation.aliases.get(word, word))
        takes_list = row.url is not None or (field is not None and field.kind == "files")
        try:
            files[word] = _open_files(row.arguments[word], field, folder, takes_list=takes_list)
        except InvalidRequest as error:
            problems += (Problem(f"{word}.{each.field}", each.message) for each in error.problems)
        except ValueError as error:
            problems.append(Problem(word, str(error)))
    if problems:
        raise InvalidRequest(problems, operation=row.model)
    return {**row.arguments, **files}, files


def _open_files(value: object, field: Field | None, folder: Path, *, takes_list: bool) -> object:
    """Return a value with its files opened. Raises ValueError, InvalidRequest for a nested object."""
    if field is not None and field.kind == "group":
        return _open_nested_files(value, field, folder)
    if takes_list and isinstance(value, list):
        return [_file(each, folder) for each in value if each is not None]
    return _file(value, folder)


def _open_nested_files(value: object, field: Field, folder: Path) -> object:
    if attrs.has(type(value)):
        value = {name: getattr(value, name) for name in field.fields}
    if not isinstance(value, Mapping):
        return value  # the model's check reports it
    result: dict[object, object] = {}
    problems: list[Problem] = []
    for name, each in value.items():
        own = field.fields.get(name)
        result[name] = each
        if own is None or each is None or not own.has_files:
            continue
        try:
            result[name] = _open_files(each, own, folder, takes_list=own.kind == "files")
        except ValueError as error:
            problems.append(Problem(name, str(error)))
    if problems:
        raise InvalidRequest(problems)
    return result


def _file(value: object, folder: Path) -> File:
    """Open an image: in a manifest a path or a ``data:`` URI, in a program any form of a file."""
    if isinstance(value, str):
        return File.of(value if value[:5].lower() == "data:" or "://" in value[:12] else folder / value)
    if isinstance(value, bytes | os.PathLike | tuple | File) or hasattr(value, "read"):
        return File.of(value)
    raise ValueError(f"must be a path or a data: URI, not {kind_in_words(value)}")


def mark_of(line: bytes, row: RowFields, words: frozenset[str], folder: Path) -> int:
    """Return a digest of a line and of the size and time of each file that it names; 0 without a line.

    While it stays the same, so does the row's request.
    """
    if not line:
        return 0
    mark = blake2b(line, digest_size=8)
    for word in () if words.isdisjoint(row) else sorted(words & row.keys()):
        is_nested = isinstance(row[word], dict)  # with other text too, so that not each names a file
        for value in _texts(row[word]):
            if value[:5].lower() != "data:":
                try:
                    found = (folder / value).stat()
                except (OSError, ValueError):
                    if is_nested:
                        continue
                    return 0
                mark.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return int.from_bytes(mark.digest())


def _texts(value: object) -> Iterator[str]:
    """Yield the texts of a value: itself, or those in its lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _labels(value: object) -> object:
    """Return a value with labels in the place of files."""
    if isinstance(value, File):
        return value.label
    if isinstance(value, dict):
        return {name: _labels(each) for name, each in value.items()}
    return [_labels(each) for each in value] if isinstance(value, list) else value


def digest(row: ManifestRow, files: Files) -> str:
    """Return the SHA-256 of a row's request, independent of the order of keys and of file paths."""
    content = {"model": row.model, "base_model": row.base_model, **row.arguments, **files}
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _sha256(file: object) -> str:
    if not isinstance(file, File):
        raise TypeError(f"{type(file).__name__} is not a value of JSON")
    found = hashlib.sha256()
    with file.open() as source:
        while piece := source.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_sha256).encode
