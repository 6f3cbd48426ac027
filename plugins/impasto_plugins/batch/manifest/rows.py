"""A row of a manifest, as the requests of its pictures.

Two forms: OpenAI's, whose body has the words and the meaning of the drop-in functions, and a short one, with those of
``client.run``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import cast

import attrs

from impasto import ConfigError, File, InvalidRequest, Operation, Problem
from impasto.ext import Makes, check_seconds, kind_in_words, resolve_model, seeded
from impasto.fields import shown
from impasto_plugins.batch.filenames import wrong_id
from impasto_plugins.batch.tasks import Unit
from impasto_plugins.openai_compat.check import checked_request
from impasto_plugins.openai_compat.translate import translate

from .records import Given

MAKES: Mapping[str, Makes] = {
    "/v1/images/generations": "image",
    "/v1/images/edits": "image",
    "/v1/audio/generations": "audio",
    "/v1/3d/generations": "3d",
}
"""What each path makes: OpenAI's, and those that the gateway has beside them."""

URLS = {url: url.endswith("/edits") for url in MAKES}
"""The paths, and whether each is for edits."""

_ELSEWHERE = ("api_key", "api_base", "base_url", "retry")
"""What says how to call, and belongs to the command or the client."""


@attrs.frozen(kw_only=True)
class Asked:
    """What a row says of itself: ``given`` are its model's fields or, where ``url`` is set, OpenAI's words."""

    id: str
    model: str
    base_model: str | None
    given: Given = attrs.field(repr=lambda given: str(list(given)))
    n: object
    timeout: float | None
    url: str | None

    @property
    def is_edit(self) -> bool:
        return self.url is not None and URLS[self.url]


def asked(row: Given) -> Asked:
    """Takes a row apart. Raises InvalidRequest with every problem."""
    given = dict(row)
    problems: list[Problem] = []
    is_openai = "custom_id" in given or "body" in given
    word = "custom_id" if is_openai else "id"
    id = given.pop(word, None)
    if (wrong := wrong_id(id)) is not None:
        problems.append(Problem(word, wrong))
    url = None
    if is_openai:
        url, given = _openai(given, problems)
    model = given.pop("model", None)
    if not isinstance(model, str) or not model:
        problems.append(Problem("model", "required: a provider and its model, as in stability/sd3.5-large"))
    base_model = given.pop("base_model", None)
    if base_model is not None and not isinstance(base_model, str):
        problems.append(Problem("base_model", f"must be text, not {kind_in_words(base_model)}"))
    elif isinstance(model, str):
        try:
            name, address = resolve_model(model, base_model)
            base_model = name if address is not None else None
        except ConfigError as error:
            problems.append(Problem("base_model", error.message))
    timeout = _timeout(given.pop("timeout", None), problems)
    n = given.pop("n", None)
    problems += [
        Problem(name, "is not taken from a manifest; give it to the command, or set it in the environment")
        for name in _ELSEWHERE
        if given.pop(name, None) is not None
    ]
    if problems:
        raise InvalidRequest(problems)
    return Asked(
        id=cast(str, id),
        model=cast(str, model),
        base_model=cast("str | None", base_model),
        given={name: value for name, value in given.items() if value is not None},
        n=n,
        timeout=timeout,
        url=url,
    )


def _openai(given: Given, problems: list[Problem]) -> tuple[str | None, Given]:
    method, url, body = given.pop("method", None), given.pop("url", None), given.pop("body", None)
    if method != "POST":
        problems.append(Problem("method", f"must be POST, not {shown(method)}"))
    if not isinstance(url, str) or url not in URLS:
        problems.append(Problem("url", f"must be one of {', '.join(URLS)}, not {shown(url)}"))
        url = None
    if not isinstance(body, dict):
        problems.append(Problem("body", "must be an object with the request's parameters"))
        body = {}
    problems += [
        Problem(name[:60], "is no part of a row; the request's parameters go in its body")
        for name, value in given.items()
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


def units(
    row: Asked, operation: Operation, folder: Path, *, drop_params: bool = False, line: bytes = b"", position: int = 0
) -> list[Unit]:
    """The pictures that a row asks for. Reads the files that it names. Raises InvalidRequest with every problem.

    ``folder``: where its relative paths begin. ``line``: the row as it was written; ``position``: its number.
    """
    given, files = _opened(row, operation, folder)
    warnings: tuple[str, ...] = ()
    if row.url is None:
        n = 1 if row.n is None else row.n
        request = operation.request(row.model, given, n=n)
    else:
        words = {**given, "n": row.n}
        extra, drop = words.pop("extra_body", None), words.pop("drop_params", drop_params)
        translation = translate(
            operation, words, extra_body=extra, drop_params=drop, edit=row.is_edit, makes=MAKES[row.url]
        )
        request, warnings = checked_request(operation, row.model, translation)
        n = translation.n
    count = cast(int, n)
    requests, said = seeded(count, request, operation.fields.get("seed")) if count > 1 else ([request], ())
    sha256, mark = digest(row, files), marked(line, row.given, operation.file_words, folder)
    content = {"model": row.model, **row.given, **{word: _labels(each) for word, each in files.items()}}
    return [
        Unit(
            id=row.id,
            index=index,
            n=count,
            model=row.model,
            base_model=row.base_model,
            request=each,
            timeout=row.timeout,
            cost=operation.price.quote(each.params) if operation.price is not None else None,
            content=content,
            sha256=sha256,
            line=mark,
            position=position,
            warnings=(*warnings, *said),
        )
        for index, each in enumerate(requests)
    ]


Files = Mapping[str, File | list[File]]


def _opened(row: Asked, operation: Operation, folder: Path) -> tuple[dict[str, object], Files]:
    """The row's words with its pictures opened, and these. Raises InvalidRequest."""
    files: dict[str, File | list[File]] = {}
    problems: list[Problem] = []
    for word in operation.file_words & row.given.keys():
        value = row.given[word]
        try:
            if isinstance(value, list) and row.url is not None:
                files[word] = [_file(each, folder) for each in value if each is not None]
            else:
                files[word] = _file(value, folder)
        except ValueError as error:
            problems.append(Problem(word, str(error)))
    if problems:
        raise InvalidRequest(problems, operation=row.model)
    return {**row.given, **files}, files


def _file(value: object, folder: Path) -> File:
    """A picture: in a manifest a path or a ``data:`` URI, in a program whatever else stands for one."""
    if isinstance(value, str):
        return File.of(value if value[:5].lower() == "data:" or "://" in value[:12] else folder / value)
    if isinstance(value, bytes | os.PathLike | tuple | File) or hasattr(value, "read"):
        return File.of(value)
    raise ValueError(f"must be a path or a data: URI, not {kind_in_words(value)}")


def marked(line: bytes, given: Given, words: frozenset[str], folder: Path) -> int:
    """A digest of a line, and of the size and time of each file that it names; 0 where there is none.

    While it stays the same, what the row asks for does.
    """
    if not line:
        return 0
    mark = blake2b(line, digest_size=8)
    for word in () if words.isdisjoint(given) else sorted(words & given.keys()):
        values = given[word]
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, str) and value[:5].lower() != "data:":
                try:
                    found = (folder / value).stat()
                except (OSError, ValueError):
                    return 0
                mark.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return int.from_bytes(mark.digest())


def _labels(files: File | list[File]) -> object:
    return [each.label for each in files] if isinstance(files, list) else files.label


def digest(row: Asked, files: Files) -> str:
    """The SHA-256 of what a row asks for, whatever the order of its words and wherever its pictures lie."""
    asked = {"model": row.model, "base_model": row.base_model, **row.given}
    for word, each in files.items():
        asked[word] = [_sha256(file) for file in each] if isinstance(each, list) else _sha256(each)
    return hashlib.sha256(_canonical(asked).encode()).hexdigest()


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _sha256(file: File) -> str:
    found = hashlib.sha256()
    with file.open() as source:
        while piece := source.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
