"""What is written of each picture, and when: before it is asked for, when a job was taken on, and when it came."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import attrs

from impasto import (
    Artifact,
    Call,
    ChargeUnknown,
    ContentFiltered,
    ImpastoError,
    NotSent,
    Pending,
    StorageError,
    UnusableResult,
)
from impasto.ext import media_type_of, printable
from impasto_plugins.batch.classification import code_of, failed
from impasto_plugins.batch.filenames import ENDINGS, Template, digest, safe
from impasto_plugins.batch.tasks import Outcome, Unit, key_of

from .filesystem import write_all
from .group_commit import Steps
from .log import Row
from .publication import altered, create_staged, is_as_written, linked, placed, staged_at
from .states import State
from .workspace import Folder

FIRST_ROOM = 4 << 20
"""Bytes that are set aside for a picture, until pictures of its model are known."""

_MOST_ROOM = 64 << 20


class Uploader(Protocol):
    """A place that finished images go to, such as an S3 bucket."""

    async def keep(self, staged: Path, row: Row) -> str:
        """Upload a staged image under the row's path, or beside it if that name is taken; return the name.

        Raises OSError.
        """
        ...

    def url(self, name: str) -> str:
        """Return the URL of an uploaded image."""
        ...


class Keeper(Protocol):
    """Keeps a record of units. ``Keeping`` does it in a folder's ledger."""

    async def begin(self, unit: Unit, call: Call) -> None:
        """Record an intent before each POST. Raises StorageError if it can't be written; nothing is sent then."""
        ...

    def accepted(self, unit: Unit, call: Call, pending: Pending) -> asyncio.Future[None]:
        """A job was taken on; its first poll waits for what is returned."""
        ...

    async def settle(self, unit: Unit, outcome: Outcome) -> Outcome:
        """Keeps what came. Raises OSError."""
        ...

    async def spare(self, unit: Unit, outcome: Outcome) -> Outcome:
        """Keeps what came somewhere else, as the folder can't be written."""
        ...

    def abandon(self, unit: Unit, call: Call) -> None:
        """The call was cancelled: keeps what is known of it."""
        ...

    def free_index(self, unit: Unit) -> int:
        """Return the first index beyond those of a unit's row that no image has."""
        ...


@attrs.define(eq=False)
class _Staged:
    """The file in which a picture will be put together, opened before the picture is asked for."""

    path: Path
    file: int
    room: int


@attrs.define(eq=False)
class Keeping:
    """Writes to one folder."""

    folder: Folder
    template: Template
    uploader: Uploader | None = None
    """Receives images from the staging folder."""
    local_images: int = 0
    """How many uploaded images keep a copy in the folder, for the report."""
    more: Callable[[ImpastoError], Mapping[str, object]] = lambda _: {}
    """What the row of a picture that did not come says besides."""
    _staged: dict[Unit, _Staged] = attrs.field(factory=dict[Unit, _Staged])
    _room: dict[str, int] = attrs.field(factory=dict[str, int])
    _to_send: set[Unit] = attrs.field(factory=set[Unit])
    """Whose pictures are whole in the staging folder, and not up yet."""

    async def begin(self, unit: Unit, call: Call) -> None:
        try:
            await self.folder.post(self._begun(unit, call))
        except OSError as error:
            said = error.strerror or str(error)
            raise StorageError(f"{str(self.folder.layout.root)!r} can't be written: {said}; nothing was sent") from None

    def accepted(self, unit: Unit, call: Call, pending: Pending) -> asyncio.Future[None]:
        now = time.time()
        expires = now + pending.keeps if pending.keeps is not None else None
        row = {
            **_of(unit, "accepted", at=now, key=key_of(call.account)),
            "job": pending.id,
            "expires": expires,
        }
        return self.folder.post(self.folder.written(row, on_disk=True))

    async def settle(self, unit: Unit, outcome: Outcome) -> Outcome:
        if outcome.artifact is None:
            return await self.folder.post(self._told(unit, outcome))
        if self.uploader is None:
            return await self.folder.post(self._kept(unit, outcome))
        row = await self.folder.post(self._laid(unit, outcome))
        self._to_send.add(unit)
        name = await self.send(self.uploader, row)
        self._to_send.discard(unit)
        return attrs.evolve(outcome, url=self.uploader.url(name), warnings=tuple(row["warnings"]))

    async def send(self, uploader: Uploader, row: Row) -> str:
        """Puts a staged picture up, and then says so; gives its name. Raises OSError."""
        staged = staged_at(self.folder.layout, row["id"], row["index"])
        if not await asyncio.to_thread(is_as_written, staged, row):
            raise altered(staged)
        name = await uploader.keep(staged, row)
        await self.folder.post(self._sent(staged, row, name))
        return name

    def _sent(self, staged: Path, row: Row, name: str) -> Steps[None]:
        """Write the row of an image that was uploaded as ``name``."""
        folder = self.folder
        has_copy = folder.pictures.count[State.DONE] < self.local_images
        yield from folder.written({**row, "row": "done", "path": name, "modified": None}, on_disk=True)
        folder.names.add(name, is_local=False)
        if has_copy:
            linked(folder.disk, staged, folder.layout.root / name)
        folder.disk.remove(staged)

    async def spare(self, unit: Unit, outcome: Outcome) -> Outcome:
        if outcome.artifact is None:
            return outcome
        if unit in self._to_send:
            staged = staged_at(self.folder.layout, unit.id, unit.index)
            said = f"it came, and stays in {str(staged)!r} until the next run puts it up"
            return attrs.evolve(outcome, state="pending", path=staged, warnings=(*outcome.warnings, said))
        try:
            path = await asyncio.to_thread(_spared, unit, outcome.artifact)
        except OSError:
            return attrs.evolve(outcome, warnings=(*outcome.warnings, "it came, and could not be saved anywhere"))
        return attrs.evolve(outcome, path=path, warnings=(*outcome.warnings, f"it was saved in {str(path)!r}"))

    def abandon(self, unit: Unit, call: Call) -> None:
        if call.job is None:
            error: ImpastoError = ChargeUnknown("the run was stopped before the answer came; it may have been charged")
            if not call.charges:
                error = NotSent("the run was stopped before it was sent")
            self.folder.post(self._told(unit, failed(unit, error)))
        else:
            self.folder.post(self._let_go(unit))

    def free_index(self, unit: Unit) -> int:
        taken = self.folder.pictures.extras(unit.id, unit.n)
        return taken[-1] + 1 if taken else unit.n

    def _begun(self, unit: Unit, call: Call) -> Steps[None]:
        """Room on the disk, then the intent."""
        folder, disk = self.folder, self.folder.disk
        if unit not in self._staged:
            path = staged_at(folder.layout, unit.id, unit.index)
            staged = _Staged(path, create_staged(disk, path), self._room.get(unit.model, FIRST_ROOM))
            self._staged[unit] = staged
            disk.reserve(staged.file, staged.room)
        yield from folder.written(of_intent(unit, key_of(call.account)), on_disk=True)

    def _kept(self, unit: Unit, outcome: Outcome) -> Steps[Outcome]:
        """The picture in the staging folder, then in its place, then the row that says so."""
        row = yield from self._laid(unit, outcome)
        path = yield from placed(self.folder, staged_at(self.folder.layout, unit.id, unit.index), row)
        return attrs.evolve(outcome, path=path, warnings=tuple(row["warnings"]))

    def _laid(self, unit: Unit, outcome: Outcome) -> Steps[Row]:
        """The picture in the staging folder, and its row."""
        artifact = outcome.artifact
        assert artifact is not None  # noqa: S101 - it is kept where there is one
        folder, disk = self.folder, self.folder.disk
        staged = self._staged.pop(unit, None) or self._anew(unit)
        try:
            write_all(disk, staged.file, artifact.data)
            if staged.room > len(artifact.data):
                disk.truncate(staged.file, len(artifact.data))
            yield None  # the others of the group write too, before anybody waits for the disk
            disk.sync(staged.file)
            modified = os.fstat(staged.file).st_mtime_ns
        finally:
            disk.close(staged.file)
        room = min(_MOST_ROOM, len(artifact.data) * 5 // 4)
        self._room[unit.model] = max(self._room.get(unit.model, 0), room)
        paths = yield from self._set_aside(unit, outcome.errors)
        if paths:
            said = f"what came instead of images beside it is kept: {', '.join(paths)}"
            outcome = attrs.evolve(outcome, warnings=(*outcome.warnings, said))
        path = folder.names.claim(self.named(unit, artifact))
        row = of_artifact(unit, outcome, artifact, path=path, modified=modified)
        folder.write(row)
        return row

    def _set_aside(self, unit: Unit, errors: Iterable[ImpastoError]) -> Steps[list[str]]:
        """Keep what came instead of images. Return the paths below the folder."""
        paths = list[str]()
        for data, media_type in (each for error in errors for each in _came_with(error)):
            path = kept_at(self.folder, unit.id, unit.index, media_type)
            paths.append((yield from _kept_aside(self.folder, path, data)))
        return paths

    def named(self, unit: Unit, artifact: Artifact) -> str:
        """Where a picture goes, below the folder."""
        n = unit.n if unit.extra is None else unit.index + 1
        name = self.template.path(id=unit.id, index=unit.index, n=n, model=unit.model, seed=artifact.seed)
        return name + ENDINGS.get(artifact.media_type, ".bin")

    def _told(self, unit: Unit, outcome: Outcome) -> Steps[Outcome]:
        """The row of a picture that did not come, and what came instead."""
        folder = self.folder
        yield from self._let_go(unit)
        if outcome.state == "pending":
            return outcome
        error = outcome.error
        assert error is not None  # noqa: S101 - what did not come has a reason
        kept = yield from self._set_aside(unit, [error])
        row = {**_of_error(unit, outcome, error), **self.more(error)}
        if kept:
            row["kept"] = kept
        yield from folder.written(row, on_disk=outcome.state != "refused")
        return outcome

    def _let_go(self, unit: Unit) -> Steps[None]:
        """The room that was set aside is given back."""
        if (staged := self._staged.pop(unit, None)) is not None:
            self.folder.disk.close(staged.file)
            self.folder.disk.remove(staged.path)
        yield from ()

    def _anew(self, unit: Unit) -> _Staged:
        path = staged_at(self.folder.layout, unit.id, unit.index)
        return _Staged(path, create_staged(self.folder.disk, path), 0)


def kept_at(folder: Folder, id: str, index: int, media_type: str) -> Path:
    """Where what came instead of a picture may be kept."""
    folder.disk.make_folder(folder.layout.kept)
    number, ending = 0, ENDINGS.get(media_type, ".bin")
    while (path := folder.layout.kept / f"{digest(id)}-{index}-{number}{ending}").exists():
        number += 1  # of an attempt before this one
    return path


def _kept_aside(folder: Folder, path: Path, data: bytes) -> Steps[str]:
    disk = folder.disk
    file = disk.create(path)
    try:
        write_all(disk, file, data)
        disk.sync(file)
    finally:
        disk.close(file)
    yield folder.layout.kept
    return str(path.relative_to(folder.layout.root))


def _came_with(error: ImpastoError) -> Iterator[tuple[bytes, str]]:
    if isinstance(error, ContentFiltered):
        for artifact in error.artifacts:
            yield artifact.data, artifact.media_type
    elif isinstance(error, UnusableResult | ChargeUnknown) and error.raw:
        yield error.raw, media_type_of(error.raw[:16]) or ""


def _of(unit: Unit, kind: str, **head: object) -> dict[str, object]:
    """What every row of a picture says: ``usd`` is what it may cost, ``asks`` the digest of what was asked for.

    ``head``: what stands before ``n``, for those who read no further.
    """
    return {
        "row": kind,
        "id": unit.id,
        "index": unit.index,
        "usd": unit.cost.usd if unit.cost is not None else None,
        **head,
        "n": unit.n,
        "model": unit.model,
        "asks": unit.sha256,
    }


def of_intent(unit: Unit, key: str) -> dict[str, object]:
    """The row of a picture that is about to be asked for, with the account of this key."""
    head = _of(unit, "intent", at=time.time(), key=key, line=unit.line)
    return {**head, "position": unit.position, "request": unit.content}


def of_artifact(unit: Unit, outcome: Outcome, artifact: Artifact, *, path: str, modified: int) -> dict[str, object]:
    """The row of a picture that came, is to lie at ``path``, and was written at ``modified`` (ns since 1970)."""
    sha256 = hashlib.sha256(artifact.data).hexdigest()
    about = {"path": path, "bytes": len(artifact.data), "sha256": sha256, "modified": modified}
    about |= {"extra": unit.extra} if unit.extra is not None else {}
    return {
        **_of(unit, "staged", billed="yes", **about),
        "usd": outcome.cost.usd if outcome.cost is not None else None,
        "at": time.time(),
        "media_type": artifact.media_type,
        "seed": artifact.seed,
        "finish_reason": artifact.finish_reason,
        "request_id": outcome.request_id,
        "warnings": list(outcome.warnings),
    }


def _of_error(unit: Unit, outcome: Outcome, error: ImpastoError) -> dict[str, object]:
    return {
        **_of(unit, outcome.state, at=time.time(), billed=error.billed),
        "code": code_of(error, outcome.state),
        "message": printable(error.message),
        "request_id": outcome.request_id,
        "job": error.id,
        "again": outcome.again,
    }


def _spared(unit: Unit, artifact: Artifact) -> Path:
    """Saves a picture in the system's own folder for what is temporary."""
    path = Path(tempfile.mkdtemp(prefix="impasto-")) / (safe(unit.id) + ENDINGS.get(artifact.media_type, ".bin"))
    path.write_bytes(artifact.data)
    return path
