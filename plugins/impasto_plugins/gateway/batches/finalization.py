"""The end of a batch: its results written, and told in one step with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from impasto import Artifact, File
from impasto.ext import to_its_end
from impasto_plugins.batch.ledger.log import Row, Rows
from impasto_plugins.batch.ledger.workspace import Folder
from impasto_plugins.gateway.errors import Failure
from impasto_plugins.gateway.storage.local import NotKept, keep_all

from .input_lines import line_of, read
from .output import Ended, Left, Writing
from .store import Batch, Stored, new_id

if TYPE_CHECKING:
    from .scheduler import Batches

_AT_ONCE = 64

_log = logging.getLogger("impasto.gateway")


async def write(service: Batches, batch: Batch, folder: Folder, unfit: Mapping[str, Failure], left: Left) -> Batch:
    """Writes what a batch leaves, and gives the batch at its end. Raises Failure, OSError."""
    root, end = folder.layout.root, str(batch.word("_ends"))
    output, errors = Writing(root / "output.jsonl"), Writing(root / "errors.jsonl")
    counts, spare = {"completed": 0, "failed": 0}, list[Path]()
    lines = _ended(folder, batch, unfit)
    try:
        while piece := await asyncio.to_thread(lambda: list(islice(lines, _AT_ONCE))):
            for ended in piece:
                if ended.line.by_url and ended.done:
                    await _address(service, root, ended)
                    spare += [root / row["path"] for row in ended.done] if ended.urls else []
                counts["completed" if ended.done else "failed"] += 1
            await to_its_end(_add, piece, output, errors, left)
        files = await to_its_end(_finished, service, batch, {"output": output, "error": errors})
    finally:
        output.close()
        errors.close()
    now = int(service.records.now)

    def over(batch: Batch) -> Batch:
        total = batch.told()["request_counts"]["total"]
        ids = {f"{name}_file_id": file.id for name, file in files.items()}
        more = {f"{end}_at": now, "request_counts": {"total": total, **counts}, **ids}
        return batch.changed(end, room=0, **more)

    over_now = await service.records.change(batch.id, over, files=tuple(files.values()))
    await asyncio.to_thread(_remove, spare)
    return over_now


def _ended(folder: Folder, batch: Batch, unfit: Mapping[str, Failure]) -> Iterator[Ended]:
    """Each line of the input, with what came of it."""
    rows, pictures = Rows(folder.layout.ledger), folder.pictures
    try:
        for number, given in read(folder.layout.root / "input.jsonl"):
            line = line_of(number, given, str(batch.word("endpoint")))
            states = pictures.states(line.id, line.n)
            indices = [index for index, state in enumerate(states) if state] + pictures.extras(line.id, line.n)
            asked = [rows.at(pictures.place(line.id, index)) for index in indices]
            yield Ended(line=line, rows=asked, unfit=unfit.get(line.id))
    finally:
        rows.close()


async def _address(service: Batches, root: Path, ended: Ended) -> None:
    """Keeps a line's pictures for URLs; where that fails they stay in the line: they are paid for."""
    store = service.services.setup.store
    artifacts = await asyncio.to_thread(_artifacts, root, ended.done)
    try:
        names = await keep_all(store, artifacts)
        ended.urls = [await store.url(name, service.services.own_url) for name in names]
    except NotKept as error:
        _log.error("a picture of a batch could not be kept for its URL: %s", error)
        ended.notes = ("the picture could not be kept for a URL and is in b64_json",)
    finally:
        for artifact in artifacts:
            artifact.content.close()


def _artifacts(root: Path, done: Iterable[Row]) -> list[Artifact]:
    return [Artifact(data=b"", media_type=row["media_type"], file=File.of(root / row["path"])) for row in done]


def _add(piece: list[Ended], output: Writing, errors: Writing, left: Left) -> None:
    for ended in piece:
        (output if ended.done else errors).add(ended.parts(left))


def _finished(service: Batches, batch: Batch, written: Mapping[str, Writing]) -> dict[str, Stored]:
    """The files that are there, for their rows."""
    now, files = service.records.now, dict[str, Stored]()
    for name, writing in written.items():
        if writing.finish():
            files[name] = Stored(
                id=new_id("file-"),
                owner=batch.owner,
                purpose="batch_output",
                filename=f"{batch.id}_{name}.jsonl",
                size=writing.size,
                path=str(writing.path.relative_to(service.folder)),
                ready=True,
                made=now,
                expires=now + int(batch.word("_seconds") or service.limits.seconds),
            )
    return files


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
