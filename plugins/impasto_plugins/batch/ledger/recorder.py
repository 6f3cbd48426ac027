"""Writes the rows of each image: before its request, when a job is accepted, and when the image or error comes."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

import attrs

from impasto import (
    Artifact,
    Call,
    ChargeUnknown,
    Cost,
    ImpastoError,
    NotSent,
    Pending,
    StorageError,
    UnusableResult,
)
from impasto.ext import EXTENSIONS, media_type_of
from impasto_plugins.batch.classification import code_of, is_unfetched, message_of, outcome_of_error
from impasto_plugins.batch.filenames import Template, safe_name
from impasto_plugins.batch.tasks import ImageTask, Outcome, key_of
from impasto_plugins.fetched_jobs import ProviderJob

from .filesystem import write_all
from .group_commit import WriteSteps
from .log import Row, rows_at
from .publication import (
    altered_file_error,
    create_staged,
    is_as_written,
    link_or_rename,
    pieces,
    publish,
    salvage,
    sha256_of,
    staging_path,
)
from .states import TaskState
from .workspace import Workspace

FIRST_ROOM = 4 << 20
"""Bytes reserved for an image before the size of its model's images is known."""

_MAX_ROOM = 64 << 20


class Uploader(Protocol):
    """A destination of finished images, such as an S3 bucket."""

    async def upload(self, staged: Path, row: Row) -> str:
        """Upload a staged image under the row's path, or beside it if that name is taken; return the name.

        Raises OSError.
        """
        ...

    def url(self, name: str) -> str:
        """Return the URL of an uploaded image."""
        ...


class TaskRecorder(Protocol):
    """Records the progress of tasks. ``LedgerRecorder`` writes to a folder's ledger."""

    async def record_intent(self, unit: ImageTask, call: Call) -> None:
        """Record an intent before each POST. Raises StorageError if it can't be written; nothing is sent then."""
        ...

    async def record_job(self, unit: ImageTask, call: Call, pending: Pending) -> None:
        """Record an accepted job, before it is polled. Raises OSError."""
        ...

    async def store_result(self, unit: ImageTask, outcome: Outcome) -> Outcome:
        """Store an image or an error. Raises OSError."""
        ...

    async def save_elsewhere(self, unit: ImageTask, outcome: Outcome) -> Outcome:
        """Store an image elsewhere, since the folder can't be written."""
        ...

    def record_cancelled(self, unit: ImageTask, call: Call) -> None:
        """Record a cancelled call and its possible charge."""
        ...

    def free_index(self, unit: ImageTask) -> int:
        """Return the first index beyond those of a task's row that no image has."""
        ...


@attrs.define(eq=False)
class _Staged:
    """The file of an image, opened before the image is requested."""

    path: Path
    file: int
    room: int


@attrs.define(eq=False)
class LedgerRecorder:
    """Records tasks in one folder."""

    folder: Workspace
    template: Template
    uploader: Uploader | None = None
    """Receives images from the staging folder."""
    local_images: int = 0
    """Uploaded images that leave a copy in the folder, for the report."""
    error_details: Callable[[ImpastoError], Mapping[str, object]] = lambda _: {}
    """Returns further keys for the row of an error."""
    _staged: dict[ImageTask, _Staged] = attrs.field(factory=dict[ImageTask, _Staged])
    _room: dict[str, int] = attrs.field(factory=dict[str, int])
    _to_upload: set[ImageTask] = attrs.field(factory=set[ImageTask])
    """Tasks whose images are whole in the staging folder and not uploaded yet."""
    _salvaged: WeakKeyDictionary[ImpastoError, list[str]] = attrs.field(
        factory=WeakKeyDictionary[ImpastoError, list[str]]
    )
    """The paths of what came with an error, in place of images."""

    async def record_intent(self, unit: ImageTask, call: Call) -> None:
        """Write the intent of each image, after space on the disk was reserved. Raises StorageError."""
        try:
            await self.folder.submit(self._write_intents(unit, call))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(
                f"{str(self.folder.layout.root)!r} can't be written: {reason}; nothing was sent"
            ) from None

    async def record_job(self, unit: ImageTask, call: Call, pending: Pending) -> None:
        """Write the id of an accepted job, and when the provider deletes its result. Raises OSError."""
        expires = self.folder.clock() + pending.result_ttl if pending.result_ttl is not None else None
        statements = ProviderJob.of(pending).statements()
        job = {"job": pending.id, "expires": expires, **({"statements": statements} if statements else {})}
        more = {"requested": unit.requested} if unit.requested > 1 else {}
        head = {"at": time.time(), "key": key_of(call.account)}
        rows = [
            {**_row_of(each, "accepted", each.cost, **head), **job, **more, **({"place": each.place} if more else {})}
            for each in unit.images
        ]
        await self.folder.submit(self._write_rows(rows))

    async def store_result(self, unit: ImageTask, outcome: Outcome) -> Outcome:
        """Publish or upload an image, or write the row of an error. Raises OSError."""
        if outcome.artifact is None:
            return await self.folder.submit(self._write_error(unit, outcome))
        if self.uploader is None:
            return await self.folder.submit(self._stage_and_publish(unit, outcome))
        row = await self.folder.submit(self._stage(unit, outcome))
        self._to_upload.add(unit)  # an upload that fails must not save the image a second time
        name = await self.upload(self.uploader, row)
        self._to_upload.discard(unit)
        return attrs.evolve(outcome, url=self.uploader.url(name), warnings=tuple(row["warnings"]))

    async def upload(self, uploader: Uploader, row: Row) -> str:
        """Upload a staged image, then write its row; return its name. Raises OSError."""
        staged = staging_path(self.folder.layout, row["id"], row["index"])
        if not await asyncio.to_thread(is_as_written, staged, row):
            raise altered_file_error(staged)
        name = await uploader.upload(staged, row)
        await self.folder.submit(self._write_uploaded(staged, row, name))
        return name

    def _write_uploaded(self, staged: Path, row: Row, name: str) -> WriteSteps[None]:
        """Write the row of an image that was uploaded as ``name``."""
        folder = self.folder
        has_copy = folder.images.count[TaskState.DONE] < self.local_images
        yield from folder.write_row({**row, "row": "done", "path": name, "modified": None}, on_disk=True)
        folder.names.add(name, is_local=False)
        if has_copy:
            link_or_rename(folder.disk, staged, folder.layout.root / name)
        folder.disk.remove(staged)

    async def save_elsewhere(self, unit: ImageTask, outcome: Outcome) -> Outcome:
        """Save an image in the temporary folder, unless it is whole in the staging folder."""
        if outcome.artifact is None:
            return outcome
        if unit in self._to_upload:
            staged = staging_path(self.folder.layout, unit.id, unit.index)
            warning = f"it came and is in {str(staged)!r}; the next run uploads it"
            return attrs.evolve(outcome, state="pending", path=staged, warnings=(*outcome.warnings, warning))
        try:
            path = await asyncio.to_thread(_save_in_temporary_folder, unit, outcome.artifact)
        except OSError:
            return attrs.evolve(outcome, warnings=(*outcome.warnings, "it came but could not be saved anywhere"))
        return attrs.evolve(outcome, path=path, warnings=(*outcome.warnings, f"it is saved in {str(path)!r}"))

    def record_cancelled(self, unit: ImageTask, call: Call) -> None:
        """Write that a cancelled call may have been charged; a job is left open."""
        if call.job is None:
            error: ImpastoError = ChargeUnknown("the run was stopped before the answer came; it may have been charged")
            if not call.possible_charges:
                error = NotSent("the run was stopped before it was sent")
            self.folder.submit(self._write_error(unit, outcome_of_error(unit, error)))
        else:
            self.folder.submit(self._release_staging(unit))

    def free_index(self, unit: ImageTask) -> int:
        """Return the index after those that the ledger has."""
        taken = self.folder.images.extras(unit.id, unit.n)
        return taken[-1] + 1 if taken else unit.n

    def _write_intents(self, unit: ImageTask, call: Call) -> WriteSteps[None]:
        """Reserve space on the disk for all images of a request, then write their intents."""
        folder, disk = self.folder, self.folder.disk
        for image in unit.images:
            if image in self._staged:
                continue
            path = staging_path(folder.layout, image.id, image.index)
            staged = _Staged(path, create_staged(disk, path), self._room.get(image.model, FIRST_ROOM))
            self._staged[image] = staged
            disk.reserve(staged.file, staged.room)  # a paid image must not meet a full disk
        yield from self._write_rows([intent_row(image, key_of(call.account)) for image in unit.images])

    def _write_rows(self, rows: Iterable[Row]) -> WriteSteps[None]:
        """Write rows that reach the disk together, before anything else happens."""
        for row in rows:
            self.folder.write(row)
        yield "ledger"

    def _stage_and_publish(self, unit: ImageTask, outcome: Outcome) -> WriteSteps[Outcome]:
        """Write the image to the staging folder, publish it, then write its row."""
        row = yield from self._stage(unit, outcome)
        path = yield from publish(self.folder, staging_path(self.folder.layout, unit.id, unit.index), row)
        return attrs.evolve(outcome, path=path, warnings=tuple(row["warnings"]))

    def _stage(self, unit: ImageTask, outcome: Outcome) -> WriteSteps[Row]:
        """Write the image to the staging folder, and its row."""
        assert outcome.artifact is not None  # noqa: S101 - errors go to _write_error
        artifact, content = outcome.artifact, outcome.artifact.content  # on the disk, if it is large
        folder, disk = self.folder, self.folder.disk
        staged = self._staged.pop(unit, None) or self._staging_file(unit)
        try:
            for piece in pieces(content):
                write_all(disk, staged.file, piece)
            if staged.room > content.size:
                disk.truncate(staged.file, content.size)
            yield None  # the others of the group write first, then all wait for the disk once
            disk.sync(staged.file)
            modified = os.fstat(staged.file).st_mtime_ns
        finally:
            disk.close(staged.file)
        room = min(_MAX_ROOM, content.size * 5 // 4)
        self._room[unit.model] = max(self._room.get(unit.model, 0), room)
        paths = yield from self._set_aside(unit, outcome.errors)
        if paths:
            warning = f"bytes of failed images of the same answer are saved in: {', '.join(paths)}"
            outcome = attrs.evolve(outcome, warnings=(*outcome.warnings, warning))
        path = folder.names.claim(self.image_name(unit, artifact))
        row = artifact_row(unit, outcome, artifact, path=path, modified=modified)
        folder.write(row)
        return row

    def _set_aside(self, unit: ImageTask, errors: Iterable[ImpastoError]) -> WriteSteps[list[str]]:
        """Store what came instead of images, and return its paths below the folder."""
        paths = dict[str, None]()  # the errors of several images may hold one answer
        for error in errors:
            own_paths = self._salvaged[error] = list[str]()
            for content in _paid_content(error):
                path = yield from salvage(self.folder, unit.id, content)
                own_paths.append(str(path.relative_to(self.folder.layout.root)))
            paths |= dict.fromkeys(own_paths)
        return list(paths)

    def image_name(self, unit: ImageTask, artifact: Artifact) -> str:
        """Return an image's path below the folder."""
        n = unit.n if unit.extra is None else unit.index + 1
        name = self.template.path(id=unit.id, index=unit.index, n=n, model=unit.model, seed=artifact.seed)
        return name + EXTENSIONS.get(artifact.media_type, ".bin")

    def _write_error(self, unit: ImageTask, outcome: Outcome) -> WriteSteps[Outcome]:
        """Write the row of an error, and store the bytes that came with it."""
        folder = self.folder
        yield from self._release_staging(unit)
        error = outcome.error
        assert error is not None  # noqa: S101 - an outcome without an image has an error
        if outcome.state == "pending":
            if is_unfetched(error):
                self._note_unfetched(unit, outcome, error)
            return outcome
        saved_paths = yield from self._set_aside(unit, [error])
        row = {**error_row(unit, outcome, error), **self.error_details(error)}
        if saved_paths:
            row["kept"] = saved_paths
        yield from folder.write_row(row, on_disk=outcome.state != "refused")
        return outcome

    def _note_unfetched(self, unit: ImageTask, outcome: Outcome, error: ImpastoError) -> None:
        """Repeat the row of an image's job, with the reason why the image could not be fetched yet."""
        folder = self.folder
        [row] = rows_at(folder.layout.ledger, [folder.images.place(unit.id, unit.index)])
        usd, own = outcome.cost and outcome.cost.usd, {name: row[name] for name in row if name != "from"}
        folder.write({**own, "at": time.time(), "usd": usd, "unfetched": message_of(error)})

    def _release_staging(self, unit: ImageTask) -> WriteSteps[None]:
        """Release the reserved space."""
        if (staged := self._staged.pop(unit, None)) is not None:
            self.folder.disk.close(staged.file)
            self.folder.disk.remove(staged.path)
        yield from ()

    def _staging_file(self, unit: ImageTask) -> _Staged:
        path = staging_path(self.folder.layout, unit.id, unit.index)
        return _Staged(path, create_staged(self.folder.disk, path), 0)


def _paid_content(error: ImpastoError) -> Iterator[Artifact]:
    """Yield everything paid that came with an error or with one inside it, in memory or on disk."""
    yield from error.artifacts
    if isinstance(error, UnusableResult | ChargeUnknown) and (error.raw or error.file is not None):
        media_type = media_type_of(error.raw[:16]) if error.file is None else error.file.media_type
        yield Artifact(data=error.raw, media_type=media_type or "", file=error.file)
    for inner in error.errors:
        yield from _paid_content(inner)


def _row_of(unit: ImageTask, kind: str, cost: Cost | None, **head: object) -> dict[str, object]:
    """Return the keys of every image's row: ``usd`` is its possible ``cost``, ``asks`` the digest of its request.

    ``head``: keys before ``n``, for readers that stop there.
    """
    return {
        "row": kind,
        "id": unit.id,
        "index": unit.index,
        "usd": cost.usd if cost is not None else None,
        **head,
        "n": unit.n,
        "model": unit.model,
        "asks": unit.sha256,
    }


def intent_row(unit: ImageTask, key: str) -> dict[str, object]:
    """Return the row of an image that is about to be requested with the account of this key."""
    head = _row_of(unit, "intent", unit.cost, at=time.time(), key=key, line=unit.line)
    return {**head, "position": unit.position, "request": unit.content}


def artifact_row(
    unit: ImageTask, outcome: Outcome, artifact: Artifact, *, path: str, modified: int
) -> dict[str, object]:
    """Return the row of an image for ``path`` that was written at ``modified`` (ns since 1970)."""
    content = artifact.content
    about = {"path": path, "bytes": content.size, "sha256": sha256_of(content), "modified": modified}
    about |= {"extra": unit.extra} if unit.extra is not None else {}
    return {
        **_row_of(unit, "staged", outcome.cost, billed="yes", **about),
        "at": time.time(),
        "media_type": artifact.media_type,
        "seed": artifact.seed,
        "finish_reason": artifact.finish_reason,
        **({"revised_prompt": artifact.revised_prompt} if artifact.revised_prompt is not None else {}),
        "request_id": outcome.request_id,
        "warnings": list(outcome.warnings),
        **({"usage": attrs.asdict(outcome.usage)} if outcome.usage is not None else {}),
    }


def error_row(unit: ImageTask, outcome: Outcome, error: ImpastoError) -> dict[str, object]:
    """Return the row of an image that did not come."""
    return {
        **_row_of(unit, outcome.state, outcome.cost or unit.cost, at=time.time(), billed=error.billed),
        "code": code_of(error, outcome.state),
        "message": message_of(error),
        "request_id": outcome.request_id,
        "job": error.id,
        "again": outcome.again,
    }


def _save_in_temporary_folder(unit: ImageTask, artifact: Artifact) -> Path:
    """Save an image in the system's temporary folder."""
    path = Path(tempfile.mkdtemp(prefix="impasto-")) / (
        safe_name(unit.id) + EXTENSIONS.get(artifact.media_type, ".bin")
    )
    path.write_bytes(artifact.data)
    return path
