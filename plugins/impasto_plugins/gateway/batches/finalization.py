"""The end of a batch: its results are written, and appear together with its final state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from impasto import Artifact, File
from impasto_plugins.batch.ledger.log import Row, Rows
from impasto_plugins.batch.ledger.workspace import Workspace
from impasto_plugins.concurrency import to_thread_shielded
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.storage import salvage
from impasto_plugins.gateway.storage.bucket import BucketContents
from impasto_plugins.gateway.storage.contents import StoreError
from impasto_plugins.gateway.storage.local import save_all

from .input_lines import parse_line, read_lines
from .output import FinishedLine, ResultsFile, UnprocessedReason
from .store import BatchRow, Change, FileRow, new_object_id

if TYPE_CHECKING:
    from .scheduler import BatchScheduler

_LINES_PER_STEP = 64

_log = logging.getLogger("impasto.gateway")


async def finish_batch(
    scheduler: BatchScheduler,
    batch: BatchRow,
    folder: Workspace,
    errors_by_line: Mapping[str, APIError],
    unprocessed_reason: UnprocessedReason,
    *,
    change: Change,
) -> BatchRow:
    """Write the results of a batch and return its final record. Raises APIError, OSError, StoreError."""
    root, status = folder.layout.root, str(batch.attribute("_ends"))
    contents, place = scheduler.contents, str(root.relative_to(scheduler.folder))
    output, errors = ResultsFile(root / "output.jsonl"), ResultsFile(root / "errors.jsonl")
    counts, unused_paths = {"completed": 0, "failed": 0}, list[Path]()
    lines = _iter_lines(folder, batch, errors_by_line)
    try:
        while lines_chunk := await asyncio.to_thread(lambda: list(islice(lines, _LINES_PER_STEP))):
            for line in lines_chunk:
                if line.line.wants_urls and line.done_rows and isinstance(contents, BucketContents):
                    line.urls = await _presign(scheduler, contents, place, line)
                elif line.line.wants_urls and line.done_rows:
                    await _store_for_urls(scheduler, root, line)
                    unused_paths += [root / row["path"] for row in line.done_rows] if line.urls else []
                await _store_unusable(scheduler, place, line)
                counts["completed" if line.done_rows else "failed"] += 1
            await to_thread_shielded(_write_lines, lines_chunk, output, errors, unprocessed_reason)
        now = await scheduler.store.now()
        files = await to_thread_shielded(_file_rows, scheduler, batch, {"output": output, "error": errors}, now)
        for file in files.values():
            await contents.publish(file.path)
    finally:
        output.close()
        errors.close()

    def finish(batch: BatchRow) -> BatchRow:
        total = batch.to_openai()["request_counts"]["total"]
        ids = {f"{name}_file_id": file.id for name, file in files.items()}
        attributes = {f"{status}_at": int(now), "request_counts": {"total": total, **counts}, **ids}
        return batch.with_attributes(status, room=0, **attributes)

    finished_batch = await change(batch, finish, files=tuple(files.values()))
    await asyncio.to_thread(_remove_files, unused_paths)
    return finished_batch


def _iter_lines(folder: Workspace, batch: BatchRow, errors_by_line: Mapping[str, APIError]) -> Iterator[FinishedLine]:
    """Yield each line of the input with its outcome."""
    rows, task_index = Rows(folder.layout.ledger), folder.images
    try:
        for number, body in read_lines(folder.layout.root / "input.jsonl"):
            line = parse_line(number, body, str(batch.attribute("endpoint")))
            states = task_index.states(line.id, line.n)
            indices = [index for index, state in enumerate(states) if state] + task_index.extras(line.id, line.n)
            line_rows = [rows.at(task_index.place(line.id, index)) for index in indices]
            yield FinishedLine(line=line, rows=line_rows, error=errors_by_line.get(line.id))
    finally:
        rows.close()


async def _presign(
    scheduler: BatchScheduler, contents: BucketContents, place: str, line: FinishedLine
) -> Sequence[str]:
    """Return URLs of a line's images where they are in the bucket. Raises StoreError."""
    seconds = scheduler.services.runtime.config.files.seconds
    return [await contents.presign(f"{place}/{row['path']}", seconds) for row in line.done_rows]


async def _store_for_urls(scheduler: BatchScheduler, root: Path, line: FinishedLine) -> None:
    """Store a line's images for URLs. If that fails they stay inline: they are paid for."""
    store = scheduler.services.runtime.places.images
    artifacts = await asyncio.to_thread(_artifacts, root, line.done_rows)
    try:
        names = await save_all(store, artifacts)
        line.urls = [await store.url_for(name, scheduler.services.images_base_url) for name in names]
    except StoreError as error:
        _log.error("an image of a batch could not be stored for its URL: %s", error)
        line.notes = ("the image could not be stored for a URL; it is in b64_json",)
    finally:
        for artifact in artifacts:
            artifact.content.close()


async def _store_unusable(scheduler: BatchScheduler, place: str, line: FinishedLine) -> None:
    """Store what came instead of a line's images, for its messages to name the place."""
    places: dict[str, str] = {}  # by path: the images of one request share what came
    for row in line.failed_rows:
        for path in row.get("kept", ()):
            if path not in places:
                places[path] = await _salvage(scheduler, f"{place}/{path}")
            line.places[row["index"]] = line.places.get(row["index"], "") + places[path]


async def _salvage(scheduler: BatchScheduler, name: str) -> str:
    """Store a content that came instead of an image; return the end of a message that names its place."""
    if (file := await scheduler.contents.open(name)) is None:
        _log.error("the answer that came in place of an image of a batch can't be read")
        return ""
    store = scheduler.services.runtime.places.salvage
    place = await salvage.save(store, Artifact(media_type=file.media_type, file=file))
    file.close()
    return place


def _artifacts(root: Path, rows: Iterable[Row]) -> list[Artifact]:
    return [Artifact(media_type=row["media_type"], file=File.of(root / row["path"])) for row in rows]


def _write_lines(
    lines: list[FinishedLine], output: ResultsFile, errors: ResultsFile, unprocessed_reason: UnprocessedReason
) -> None:
    for line in lines:
        (output if line.done_rows else errors).add(line.parts(unprocessed_reason), line.sizes)


def _file_rows(
    scheduler: BatchScheduler, batch: BatchRow, results_files: Mapping[str, ResultsFile], now: float
) -> dict[str, FileRow]:
    """Return the existing output files, for their rows."""
    files = dict[str, FileRow]()
    for name, results_file in results_files.items():
        if results_file.finish():
            files[name] = FileRow(
                id=new_object_id("file-"),
                owner=batch.owner,
                purpose="batch_output",
                filename=f"{batch.id}_{name}.jsonl",
                size=results_file.size,
                path=str(results_file.path.relative_to(scheduler.folder)),
                ready=True,
                created=now,
                expires=now + int(batch.attribute("_seconds") or scheduler.limits.seconds),
            )
    return files


def _remove_files(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
