"""A row of a manifest as the requests of its images.

Two forms: OpenAI's, whose body is that of the drop-in functions, and a short one, that of ``client.run``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import cast

import attrs

from impasto import ConfigError, File, InvalidRequest, Operation, Problem
from impasto.ext import Makes, check_seconds, convert_files, kind_in_words, requests_with_seeds, resolve_model
from impasto.fields import Field, format_value
from impasto_plugins.batch.filenames import wrong_id
from impasto_plugins.batch.tasks import ImageTask
from impasto_plugins.fingerprints import canonical_json
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
    try:
        arguments = convert_files(row.arguments, operation.file_arguments, partial(_file, folder=folder))
    except InvalidRequest as error:
        error.operation = row.model
        raise
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
    requests, warnings_of_seeds = requests_with_seeds(count, request, operation) if count > 1 else ([request], ())
    sha256, mark = digest(row, arguments), mark_of(line, row.arguments, operation.file_arguments, folder)
    content = {"model": row.model, **{word: _labels(each) for word, each in arguments.items()}}
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
            warnings=(*warnings, *warnings_of_seeds),
            native_maximum=operation.native_n[1] if operation.native_n is not None else 1,
        )
        for index, each in enumerate(requests)
    ]


def _file(value: object, folder: Path) -> File:
    """Open an image: in a manifest a path or a ``data:`` URI, in a program any form of a file."""
    if isinstance(value, str):
        return File.of(value if value[:5].lower() == "data:" or "://" in value[:12] else folder / value)
    if isinstance(value, bytes | os.PathLike | tuple | File) or hasattr(value, "read"):
        return File.of(value)
    raise ValueError(f"must be a path or a data: URI, not {kind_in_words(value)}")


def mark_of(line: bytes, row: RowFields, fields: Mapping[str, Field | None], folder: Path) -> int:
    """Return a digest of a line and of the size and time of each file that it names; 0 without a line.

    While it stays the same, so does the row's request. ``fields``: those that may have files.
    """
    if not line:
        return 0
    mark = blake2b(line, digest_size=8)

    def add(path: object) -> None:
        if isinstance(path, str) and path[:5].lower() != "data:":
            found = (folder / path).stat()
            mark.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())

    if not fields.keys().isdisjoint(row):
        try:
            convert_files({word: row[word] for word in sorted(fields.keys() & row.keys())}, fields, add)
        except (OSError, InvalidRequest):  # a file is missing
            return 0
    return int.from_bytes(mark.digest())


def _labels(value: object) -> object:
    """Return a value with labels in the place of files."""
    if isinstance(value, File):
        return value.label
    if isinstance(value, dict):
        return {name: _labels(each) for name, each in value.items()}
    return [_labels(each) for each in value] if isinstance(value, list) else value


def digest(row: ManifestRow, arguments: Mapping[str, object]) -> str:
    """Return the SHA-256 of a row's request, independent of the order of keys and of file paths.

    ``arguments``: the row's, with files in the place of their paths.
    """
    content = {"model": row.model, "base_model": row.base_model, **arguments}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
