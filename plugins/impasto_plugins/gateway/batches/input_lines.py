"""A line of an input file, as the requests of its pictures: understood as the path itself understands its body.

Files come as ``data:`` URIs, or by the ids of uploads: nothing is fetched, and no path is opened, as whoever wrote the
line is not whoever runs the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import attrs

from impasto import File, InvalidRequest, ManifestError, Operation, RegistryError
from impasto.ext import seeded
from impasto_plugins.batch.filenames import wrong_id
from impasto_plugins.batch.manifest.reader import Manifest
from impasto_plugins.batch.manifest.records import Given, Unread
from impasto_plugins.batch.tasks import Unit
from impasto_plugins.gateway.api.images import EDITS, GENERATIONS, MODELS_3D, SOUNDS, Kind
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.arguments import Asked
from impasto_plugins.gateway.calls.deployments import Deployment, Model
from impasto_plugins.gateway.calls.execution import Checked, prepare_sync
from impasto_plugins.gateway.calls.runtime import Setup
from impasto_plugins.gateway.errors import Failure, invalid
from impasto_plugins.gateway.http.body import holds_too_much

from .store import check_file_id, link_or_copy, missing_file

ENDPOINTS: Mapping[str, Kind] = {
    "/v1/images/generations": GENERATIONS,
    "/v1/images/edits": EDITS,
    "/v1/audio/generations": SOUNDS,
    "/v1/3d/generations": MODELS_3D,
}
"""The paths that a batch may be for."""

_WORDS = ("custom_id", "method", "url", "body")


@attrs.frozen(kw_only=True)
class Line:
    """A line that names a request: ``body`` is the request's. ``n``: how many pictures it asks for, if it is right."""

    number: int
    id: str
    body: Given

    @property
    def n(self) -> int:
        n = self.body.get("n")
        return n if type(n) is int and n > 0 else 1

    @property
    def by_url(self) -> bool:
        """Whether its pictures are to be kept at URLs."""
        return self.body.get("response_format") == "url"


@attrs.frozen(kw_only=True, eq=False)
class Way:
    """How one deployment makes the pictures of a line."""

    checked: Checked
    usd: float | None
    """The most that a picture costs."""


@attrs.frozen(kw_only=True, eq=False)
class LineUnit(Unit):
    """One picture of a line, and the ways to make it."""

    served: Model
    caller: Caller
    ways: Mapping[Deployment, Checked]


def read(path: Path) -> Iterator[tuple[int, Given | Unread]]:
    """The lines of an input file, blank ones passed over. Raises Failure where it can't be read."""
    try:
        for number, given, written in Manifest(path, _no_model).rows():
            if holds_too_much(written):
                given = Unread("holds too many values")
            yield number, given
    except ManifestError:
        raise Failure(500, "the input file can't be read any more", code="file_gone") from None


def _no_model(_: str) -> Operation:
    raise RegistryError("a file of JSON lines needs none")


def line_of(number: int, given: Given | Unread, endpoint: str) -> Line:
    """Takes a line apart. Raises Failure."""
    if isinstance(given, Unread):
        raise Failure(400, given.reason, code="invalid_json_line")
    if (wrong := wrong_id(given.get("custom_id"))) is not None:
        code = "missing_required_parameter" if wrong == "required" else "invalid_value"
        raise Failure(400, f"custom_id: {wrong}", code=code, param="custom_id")
    for name, value in given.items():
        if name not in _WORDS and value is not None:
            said = f"{name[:60]}: is no part of a line; it has {', '.join(_WORDS)}"
            raise Failure(400, said, code="unknown_parameter", param=name[:60])
    if given.get("method") != "POST":
        raise Failure(400, "method: must be POST", code="invalid_value", param="method")
    if given.get("url") != endpoint:
        raise Failure(400, f"url: must be the batch's endpoint, {endpoint}", code="invalid_url", param="url")
    if not isinstance(body := given.get("body"), dict):
        raise Failure(400, "body: required, an object", code="invalid_value", param="body")
    return Line(number=number, id=cast("str", given["custom_id"]), body=body)


class LineFiles:
    """Uploaded files that a batch's lines name, linked into its folder: so they stay if their owner deletes them.

    ``find`` gives the path of a file by its id and the argument that names it; without it there are only links.
    """

    def __init__(self, folder: Path, find: Callable[[str, str], Path] | None = None) -> None:
        self._folder, self._find = folder, find

    def open(self, id: str, param: str) -> File:
        """Return a file by its id. It blocks. Raises Failure."""
        check_file_id(id, param)  # it becomes a file's name
        link = self._folder / id
        try:
            if self._find is not None and not link.exists():
                source = self._find(id, param)
                self._folder.mkdir(mode=0o700, exist_ok=True)
                link_or_copy(source, link)
            return attrs.evolve(File.of(link), label=id)
        except (OSError, ValueError):  # it is gone
            raise missing_file(param) from None


def ways(
    line: Line, endpoint: str, setup: Setup, caller: Caller, files: LineFiles
) -> tuple[Model, Mapping[Deployment, Checked]]:
    """The model that a line names, and each deployment that takes the line. Raises Failure where none does."""
    asked = Asked.of_json(dict(line.body))
    asked.place({id: files.open(id, word) for id, word in asked.uploads().items()})
    model = setup.model(asked.model, caller)
    if asked.stream is not None and asked.stream is not False:
        raise Failure(400, "stream: a batch has no streams; leave it out", code="invalid_value", param="stream")
    kind, found, refused = ENDPOINTS[endpoint], dict[Deployment, Checked](), dict[Deployment, Failure]()
    for deployment in model.deployments:
        try:
            found[deployment] = prepare_sync(deployment, asked, edit=kind.edit, makes=kind.makes)
        except InvalidRequest as error:
            refused[deployment] = invalid(error, deployment.operation)
    if not found:
        raise refused[model.deployments[0]]
    return model, found


def units(line: Line, endpoint: str, setup: Setup, caller: Caller, files: LineFiles) -> list[LineUnit]:
    """The pictures that a line asks for. Raises Failure."""
    model, found = ways(line, endpoint, setup, caller, files)
    made = {deployment: _each(checked) for deployment, checked in found.items()}
    first = next(iter(found.values()))
    return [
        LineUnit(
            id=line.id,
            index=index,
            n=first.n,
            model=model.name,
            cost=first.cost,
            content={"line": line.number},
            line=line.number,
            position=line.number,
            warnings=first.warnings,
            served=model,
            caller=caller,
            ways={deployment: each[index] for deployment, each in made.items()},
        )
        for index in range(first.n)
    ]


def _each(checked: Checked) -> list[Checked]:
    """The same for each of its pictures alone."""
    requests, said = seeded(checked.n, checked.request, checked.deployment.operation.fields.get("seed"))
    warnings = (*checked.warnings, *(said if checked.n > 1 else ()))
    return [attrs.evolve(checked, request=request, n=1, warnings=warnings) for request in requests]
