"""Parse a batch input line into tasks, with the same rules as the corresponding endpoint.

Files are ``data:`` URIs, or ids of uploads: nothing is fetched, and no path is opened, since the author of a line is
not the operator of the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import attrs

from impasto import File, InvalidRequest, ManifestError, Operation, RegistryError
from impasto.ext import requests_with_seeds
from impasto_plugins.batch.filenames import wrong_id
from impasto_plugins.batch.manifest.reader import Manifest
from impasto_plugins.batch.manifest.records import RowFields, UnreadableLine
from impasto_plugins.batch.tasks import ImageTask
from impasto_plugins.gateway.api.images import AUDIO, EDITS, GENERATIONS, MODELS_3D, CallKind
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.arguments import CallArguments
from impasto_plugins.gateway.calls.deployments import Deployment, Model
from impasto_plugins.gateway.calls.execution import PreparedCall, prepare_sync
from impasto_plugins.gateway.calls.runtime import Runtime
from impasto_plugins.gateway.errors import APIError, invalid_params_error
from impasto_plugins.gateway.http.body import has_too_many_values

from .store import check_file_id, missing_file

ENDPOINTS: Mapping[str, CallKind] = {
    "/v1/images/generations": GENERATIONS,
    "/v1/images/edits": EDITS,
    "/v1/audio/generations": AUDIO,
    "/v1/3d/generations": MODELS_3D,
}
"""The paths that a batch may be for."""

_LINE_KEYS = ("custom_id", "method", "url", "body")


@attrs.frozen(kw_only=True)
class InputLine:
    """A line with a request: ``body`` is the request's, ``n`` its number of images, if that is valid."""

    number: int
    id: str
    body: RowFields

    @property
    def n(self) -> int:
        """Images that the line requests, 1 if ``n`` is invalid."""
        n = self.body.get("n")
        return n if type(n) is int and n > 0 else 1

    @property
    def wants_urls(self) -> bool:
        """True if its images are to be stored at URLs."""
        return self.body.get("response_format") == "url"


@attrs.frozen(kw_only=True, eq=False)
class LineTask(ImageTask):
    """One image of a line, or the images of one request, and the calls for it by deployment."""

    model_config: Model
    caller: Caller
    calls: Mapping[Deployment, PreparedCall]


def read_lines(path: Path) -> Iterator[tuple[int, RowFields | UnreadableLine]]:
    """Yield the lines of an input file without blank ones. Raises APIError if it can't be read."""
    try:
        for number, body, raw in Manifest(path, _no_model).rows():
            if has_too_many_values(raw):
                body = UnreadableLine("has too many values")
            yield number, body
    except ManifestError:
        raise APIError(500, "the input file can no longer be read", code="file_gone") from None


def _no_model(_: str) -> Operation:
    raise RegistryError("a file of JSON lines needs no model")


def parse_line(number: int, body: RowFields | UnreadableLine, endpoint: str) -> InputLine:
    """Parse a line. Raises APIError."""
    if isinstance(body, UnreadableLine):
        raise APIError(400, body.reason, code="invalid_json_line")
    if (problem := wrong_id(body.get("custom_id"))) is not None:
        code = "missing_required_parameter" if problem == "required" else "invalid_value"
        raise APIError(400, f"custom_id: {problem}", code=code, param="custom_id")
    for name, value in body.items():
        if name not in _LINE_KEYS and value is not None:
            message = f"{name[:60]}: unknown key; a line has {', '.join(_LINE_KEYS)}"
            raise APIError(400, message, code="unknown_parameter", param=name[:60])
    if body.get("method") != "POST":
        raise APIError(400, "method: must be POST", code="invalid_value", param="method")
    if body.get("url") != endpoint:
        raise APIError(400, f"url: must be the batch's endpoint, {endpoint}", code="invalid_url", param="url")
    if not isinstance(request_body := body.get("body"), dict):
        raise APIError(400, "body: required, an object", code="invalid_value", param="body")
    return InputLine(number=number, id=cast("str", body["custom_id"]), body=request_body)


class LineFiles:
    """Uploaded files that a batch's lines name, in its folder: they stay if their owner deletes them.

    ``fetch`` puts a file there, by its id and argument, and returns False if it does not exist.
    """

    def __init__(self, folder: Path, fetch: Callable[[str, str], bool]) -> None:
        self._folder, self._fetch = folder, fetch

    def open(self, id: str, param: str) -> File:
        """Return a file by its id. Blocks. Raises APIError, StoreError."""
        check_file_id(id, param)  # it becomes a file's name
        path = self._folder / id
        try:
            if not path.exists() and not self._fetch(id, param):
                raise missing_file(param)
            return attrs.evolve(File.of(path), label=id)
        except (OSError, ValueError):  # it is gone
            raise missing_file(param) from None


def prepare_line(
    line: InputLine, endpoint: str, runtime: Runtime, caller: Caller, files: LineFiles
) -> tuple[Model, Mapping[Deployment, PreparedCall]]:
    """Return the model of a line, and the request for each deployment that accepts it. Raises APIError if none does."""
    call_args = CallArguments.from_json(dict(line.body))
    call_args.resolve_uploads({id: files.open(id, word) for id, word in call_args.uploaded_file_ids().items()})
    model = runtime.find_model(call_args.model, caller)
    if call_args.stream is not None and call_args.stream is not False:
        raise APIError(400, "stream: a batch can't stream; leave it out", code="invalid_value", param="stream")
    kind, calls, refusals = ENDPOINTS[endpoint], dict[Deployment, PreparedCall](), dict[Deployment, APIError]()
    for deployment in model.deployments:
        try:
            calls[deployment] = prepare_sync(deployment, call_args, edit=kind.edit, makes=kind.makes)
        except InvalidRequest as error:
            refusals[deployment] = invalid_params_error(error, deployment.operation)
    if not calls:
        raise refusals[model.deployments[0]]
    return model, calls


def create_tasks(line: InputLine, endpoint: str, runtime: Runtime, caller: Caller, files: LineFiles) -> list[LineTask]:
    """Return the tasks of a line's images, see ``join_tasks``. Raises APIError."""
    model, calls = prepare_line(line, endpoint, runtime, caller, files)
    calls_by_index = {deployment: _split_images(prepared_call) for deployment, prepared_call in calls.items()}
    first = next(iter(calls.values()))
    # Any of the deployments may get the request, so that it has no more images than the least of them takes.
    natives = [deployment.operation.native_n for deployment in calls]
    return [
        LineTask(
            id=line.id,
            index=index,
            n=first.n,
            model=model.name,
            cost=first.cost,
            content={"line": line.number},
            line=line.number,
            position=line.number,
            native_maximum=min(native[1] if native is not None else 1 for native in natives),
            model_config=model,
            caller=caller,
            calls={deployment: calls_of_line[index] for deployment, calls_of_line in calls_by_index.items()},
        )
        for index in range(first.n)
    ]


def _split_images(prepared_call: PreparedCall) -> list[PreparedCall]:
    """Return the request for each of its images alone; with a larger ``n`` it is also that of the images after it."""
    requests, notes = requests_with_seeds(prepared_call.n, prepared_call.request, prepared_call.deployment.operation)
    warnings = (*prepared_call.warnings, *notes)
    return [attrs.evolve(prepared_call, request=request, n=1, warnings=warnings) for request in requests]
