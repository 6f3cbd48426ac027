"""``results.jsonl`` and ``errors.jsonl``, written from the ledger at the end of each run: lines of OpenAI's batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import reduce
from operator import add
from pathlib import Path

import attrs

from impasto import Usage
from impasto_plugins.batch.filenames import digest
from impasto_plugins.batch.ledger.evidence import write_stamp
from impasto_plugins.batch.ledger.filesystem import Disk, write_all
from impasto_plugins.batch.ledger.group_commit import WriteSteps
from impasto_plugins.batch.ledger.index import TaskIndex
from impasto_plugins.batch.ledger.log import ON_THE_WAY, ReadPosition, Row, rows
from impasto_plugins.batch.ledger.states import TaskState, state_of
from impasto_plugins.batch.ledger.workspace import Workspace, WorkspacePaths
from impasto_plugins.openai_compat.response import TokenUsage

RESULTS = "results.jsonl"
ERRORS = "errors.jsonl"
A_PAGE = 500
"""Images on a page of the report."""

_PIECE = 1 << 20

_OF_IMAGE = ("path", "sha256", "bytes", "media_type", "seed", "finish_reason")
_OF_ERROR = ("code", "message", "billed", "usd", "job", "kept")

_OTHERS = ("invalid", "gone")

Line = Mapping[str, object]
Intents = dict[tuple[str, int], Row]


def final_rows(layout: WorkspacePaths, images: TaskIndex, *, brief: bool = False) -> Iterator[tuple[Row, Row | None]]:
    """Yield the last row of each finished image, in the ledger's order, with its intent (unless ``brief``).

    Then come the rows of lines that the last run skipped and of images that are missing.
    """
    others: list[Row] = []
    intents: Intents = {}
    answered: Intents = {}
    for place, row in rows(layout.ledger, ReadPosition(), heads=ON_THE_WAY if brief else frozenset()):
        state = state_of(row)
        if state == TaskState.INTENT:
            if not brief:
                intents[row["id"], row["index"]] = row
        elif state is not None and state > TaskState.STAGED:
            intent = intents.pop((row["id"], row["index"]), None)
            if images.extra and not brief:
                intent = _intent_of(row, intent, intents, answered)
            if images.is_last(row, place):
                yield row, intent
        elif row["row"] == "run":
            others.clear()
        elif row["row"] in _OTHERS:
            others.append(row)
    yield from ((row, None) for row in others)


def _intent_of(row: Row, own: Row | None, open_intents: Intents, answered: Intents) -> Row | None:
    """Return the intent of an image; an extra image came with the request of another."""
    if "extra" in row:
        key = row["id"], row["extra"]
        return open_intents.get(key) or answered.get(key)
    if own is not None:
        answered[row["id"], row["index"]] = own
    return own


def write_results(folder: Workspace) -> WriteSteps[None]:
    """Write both files, each whole or unchanged: a job for the writer. Raises OSError."""
    layout, images, disk = folder.layout, folder.images, folder.disk
    yield None  # what was posted with it is in the ledger then
    results = _ResultsWriter(disk, layout, RESULTS)
    errors = _ResultsWriter(disk, layout, ERRORS)
    try:
        several: dict[str, list[Row]] = {}
        for row, _ in final_rows(layout, images, brief=True):
            if row["row"] != "done":
                errors.add(_error(row))
            elif row["n"] == 1 and not images.extra:
                results.add(_result([row]))
            else:
                several.setdefault(row["id"], []).append(row)
        for done in several.values():
            results.add(_result(sorted(done, key=lambda row: row["index"])))
        results.finish()
        errors.finish()
        with suppress(OSError):  # they are there: the next run only has to read them
            write_stamp(layout, disk, folder.ledger)
    finally:
        results.close()
        errors.close()


def _result(done: list[Row]) -> Line:
    """Return the line of a row of the manifest with its finished images."""
    first = done[0]
    costs = [row["usd"] for row in done]
    body: dict[str, object] = {
        "created": int(first["at"]),
        "model": first["model"],
        "data": [_image_fields(row) for row in done],
        "usd": None if None in costs else round(sum(cost for cost in costs if cost is not None), 10),
    }
    if (usage := usage_of(done)) is not None:
        body["usage"] = usage
    warnings = dict.fromkeys(each for row in done for each in row["warnings"])
    if warnings:
        body["warnings"] = list(warnings)
    response = {"status_code": 200, "request_id": first["request_id"], "body": body}
    return {"id": _line_id(first["id"]), "custom_id": first["id"], "response": response, "error": None}


def _image_fields(row: Row) -> Line:
    revised = {"revised_prompt": row["revised_prompt"]} if "revised_prompt" in row else {}  # few providers have one
    return {"index": row["index"], **{name: row[name] for name in _OF_IMAGE}, **revised}


def usage_of(done: Iterable[Row]) -> Mapping[str, object] | None:
    """Return the tokens of all requests of these images as OpenAI's answers have them; None if none were counted."""
    usages = [Usage(**row["usage"]) for row in done if "usage" in row]
    return TokenUsage.of(reduce(add, usages)).model_dump() if usages else None


def _error(row: Row) -> Line:
    """Return the line of an image that did not come, or of a line of the manifest that was skipped."""
    error = {name: row[name] for name in _OF_ERROR if row.get(name) is not None}
    if "usd" in error and row["billed"] == "no":
        error["usd"] = 0.0
    id = _line_id(row["id"], row["row"], row.get("index"), row.get("line"))
    line: dict[str, object] = {"id": id, "custom_id": row["id"]}
    line |= {name: row[name] for name in ("index", "line") if name in row}
    return {**line, "response": None, "error": {**error, "again": row.get("again", False)}}


def _line_id(*parts: object) -> str:
    """Return the id of a line, unique over both files."""
    return f"batch_req_{digest(json.dumps(parts))[:32]}"


@attrs.define(eq=False)
class _ResultsWriter:
    """One of the files, written beside its place and renamed when it is whole."""

    disk: Disk
    layout: WorkspacePaths
    name: str
    _lines: list[str] = attrs.field(factory=list[str])
    _size: int = 0
    _file: int = -1

    def add(self, line: Line) -> None:
        text = _encode(line) + "\n"
        self._lines.append(text)
        self._size += len(text)
        if self._size > _PIECE:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self.disk.sync(self._file)
        self.disk.rename(self._part, self.layout.root / self.name)
        self.disk.sync_folder(self.layout.root)

    def close(self) -> None:
        file, self._file = self._file, -1  # first: a close that fails must not be repeated
        if file >= 0:
            self.disk.close(file)

    def _flush(self) -> None:
        if self._file < 0:
            self._file = self.disk.create(self._part)
        write_all(self.disk, self._file, "".join(self._lines).encode("utf-8", "replace"))
        self._lines.clear()
        self._size = 0

    @property
    def _part(self) -> Path:
        return self.layout.ledger.with_name(f"{self.name}.part")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
