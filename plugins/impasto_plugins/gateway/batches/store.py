"""Files and batches in the state, shared by all workers."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import attrs

from impasto.ext import ObjectsFull, StateStore, StoredObject
from impasto_plugins.gateway.config.model import DAY_SECONDS, BatchesConfig
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.storage.failures import storage_required

ACTIVE = ("validating", "in_progress", "finalizing", "cancelling")
"""Statuses of batches with work left."""

_DEFAULT_ATTRIBUTES: Mapping[str, object] = {
    "errors": None,
    "model": None,
    "output_file_id": None,
    "error_file_id": None,
    "in_progress_at": None,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 0, "completed": 0, "failed": 0},
    "metadata": None,
}
"""Fields of a batch before anything is known about them."""

FILE, BATCH = "file", "batch"
"""Kinds of objects."""

READY, UPLOADING = "ready", "uploading"
"""Statuses of files."""

FILE_ID = re.compile(r"file-[0-9a-f]{32}")
IMAGE_PURPOSES = ("vision", "batch")
"""Purposes of files that a call, or a line of a batch, may use as images."""

T = TypeVar("T")
Payload = dict[str, Any]
"""A batch object in OpenAI's form."""


def new_object_id(kind: str) -> str:
    """Return an id that nobody can guess."""
    return kind + secrets.token_hex(16)


@attrs.frozen(kw_only=True)
class FileRow:
    """A file. ``path`` is its content's, below the batches' folder; times are in seconds since 1970.

    ``ready`` is False during its upload; ``size``, in bytes, is then its maximum.
    """

    id: str
    owner: bytes
    purpose: str
    filename: str
    size: int
    path: str
    ready: bool
    created: float
    expires: float

    @classmethod
    def from_object(cls, item: StoredObject) -> FileRow:
        """Return the file of an object."""
        return cls(
            id=item.id,
            owner=item.owner,
            purpose=item.label,
            size=item.size,
            ready=item.status == READY,
            created=item.created,
            expires=item.expires,
            **json.loads(item.body),
        )

    def to_object(self) -> StoredObject:
        """Return the object of the file."""
        return StoredObject(
            kind=FILE,
            id=self.id,
            owner=self.owner,
            status=READY if self.ready else UPLOADING,
            label=self.purpose,
            size=self.size,
            body=json.dumps({"filename": self.filename, "path": self.path}),
            created=self.created,
            # After a crash it stays an upload.
            expires=self.expires if self.ready else min(self.expires, self.created + DAY_SECONDS),
        )

    def to_openai(self) -> Payload:
        """Return the file in OpenAI's form."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": int(self.created),
            "expires_at": int(self.expires),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


@attrs.frozen(kw_only=True)
class BatchRow:
    """A batch: ``about`` is the JSON of its fields except its status.

    ``identity``: the fingerprint that a repeated request finds it by. ``room``: disk bytes that its images may take.
    """

    id: str
    owner: bytes
    identity: bytes
    status: str
    about: str
    room: int
    created: float
    expires: float

    @classmethod
    def from_object(cls, item: StoredObject) -> BatchRow:
        """Return the batch of an object."""
        return cls(
            id=item.id,
            owner=item.owner,
            identity=item.identity,
            status=item.status,
            about=item.body,
            room=item.size,
            created=item.created,
            expires=item.expires,
        )

    def to_object(self) -> StoredObject:
        """Return the object of the batch."""
        return StoredObject(
            kind=BATCH,
            id=self.id,
            owner=self.owner,
            status=self.status,
            identity=self.identity,
            size=self.room,
            body=self.about,
            created=self.created,
            expires=self.expires,
        )

    def to_openai(self) -> Payload:
        """Return the batch in OpenAI's form."""
        attributes = {name: value for name, value in json.loads(self.about).items() if name[0] != "_"}
        return {"id": self.id, "object": "batch", **_DEFAULT_ATTRIBUTES, **attributes, "status": self.status}

    def attribute(self, name: str) -> Any:
        """Return a stored attribute, or None. Attributes with a leading dash are internal and never sent to clients."""
        return json.loads(self.about).get(name)

    def with_attributes(self, status: str | None = None, room: int | None = None, **attributes: object) -> BatchRow:
        """Return a copy with other attributes."""
        about = json.dumps({**json.loads(self.about), **attributes})
        status, room = status or self.status, self.room if room is None else room
        return attrs.evolve(self, status=status, room=room, about=about)


@attrs.frozen(kw_only=True)
class PageQuery:
    """The requested page of a list. ``after``: the id before its first."""

    limit: int
    after: str | None = None
    order: Literal["asc", "desc"] = "desc"


PageOf = tuple[Sequence[T], bool]
"""A page of a list, and True if there is more."""


class Change(Protocol):
    """Changes a batch, as ``BatchStore.change`` does."""

    async def __call__(
        self,
        batch: BatchRow,
        change: Callable[[BatchRow], BatchRow],
        *,
        files: Sequence[FileRow] = (),
        max_bytes: int | None = None,
    ) -> BatchRow:
        """Return the batch as it is now."""
        ...


class BatchStore:
    """The store. Its methods raise APIError if the state can't be written."""

    def __init__(self, state: StateStore) -> None:
        self._state, self._objects = state, state.objects

    async def now(self) -> float:
        """Return the seconds since 1970."""
        with storage_required():
            return await self._state.now()

    async def reserve(self, file: FileRow, limits: BatchesConfig) -> None:
        """Insert a row for an upload. Raises APIError if there are too many files, or no space for it."""
        with storage_required():
            inserted = await self._objects.insert(
                file.to_object(), max_count=limits.max_files, max_bytes=limits.max_bytes
            )
        if isinstance(inserted, ObjectsFull) and not inserted.count:
            raise _quota_error(f"a key may have {limits.max_files:,} files, and this key has as many; delete some")
        if isinstance(inserted, ObjectsFull):
            raise _space_error(file.size, inserted)

    async def mark_ready(self, file: FileRow, ready_file: FileRow) -> None:
        """Note that the file is complete. Raises APIError if its row was deleted meanwhile."""
        with storage_required():
            if not await self._objects.replace(file.to_object(), ready_file.to_object()):
                raise missing_file()

    async def delete_row(self, file: FileRow) -> None:
        """Delete the row of a file."""
        with storage_required():
            await self._objects.delete([file.id])

    async def file(self, id: str, owner: bytes) -> FileRow | None:
        """Return a file by its id, for its owner alone."""
        if FILE_ID.fullmatch(id) is None:
            return None
        with storage_required():
            item = await self._objects.find(FILE, id, owner)
        return FileRow.from_object(item) if item is not None and item.status == READY else None

    async def image(self, id: str, owner: bytes, param: str) -> FileRow:
        """Return the file that an argument names as its image. Raises APIError."""
        check_file_id(id, param)
        if (file := await self.file(id, owner)) is None:
            raise missing_file(param)
        if file.purpose not in IMAGE_PURPOSES:
            message = f"{param}: the file must have the purpose {' or '.join(IMAGE_PURPOSES)}, not {file.purpose}"
            raise APIError(400, message, code="invalid_image", param=param)
        return file

    async def files(self, owner: bytes, purpose: str | None, page: PageQuery) -> PageOf[FileRow]:
        """Return a key's files, and True if there are more."""
        items, has_more = await self._page(FILE, owner, page, statuses=(READY,), label=purpose)
        return [FileRow.from_object(each) for each in items], has_more

    async def insert_or_find(self, batch: BatchRow, *, since: float | None, maximum: int) -> tuple[BatchRow, bool]:
        """Insert a batch. If one with the same fingerprint was created after ``since``, return that one and True.

        Raises APIError if a key has as many as ``maximum``.
        """
        with storage_required():
            item = await self._objects.insert(batch.to_object(), max_count=maximum, since=since)
        if isinstance(item, ObjectsFull):
            raise _quota_error(f"a key may have {maximum:,} batches, and this key has as many; they expire in time")
        return BatchRow.from_object(item), item.id != batch.id

    async def batch(self, id: str, owner: bytes) -> BatchRow | None:
        """Return a batch by its id, for its owner alone."""
        with storage_required():
            item = await self._objects.find(BATCH, id, owner)
        return BatchRow.from_object(item) if item is not None else None

    async def batches(self, owner: bytes, page: PageQuery) -> PageOf[BatchRow]:
        """Return a key's batches, and True if there are more."""
        items, has_more = await self._page(BATCH, owner, page)
        return [BatchRow.from_object(each) for each in items], has_more

    async def active(self) -> Sequence[BatchRow]:
        """Return unfinished batches of all keys, the oldest first."""
        with storage_required():
            return [BatchRow.from_object(each) for each in await self._objects.of_kind(BATCH, ACTIVE)]

    async def change(
        self,
        batch: BatchRow,
        change: Callable[[BatchRow], BatchRow],
        *,
        files: Sequence[FileRow] = (),
        max_bytes: int | None = None,
    ) -> BatchRow:
        """Change a batch, again if another process changed it meanwhile; add its output files.

        Raises KeyError if it was deleted, and APIError if there is no space below ``max_bytes`` for what it may take.
        """
        further = [each.to_object() for each in files]
        with storage_required():
            while True:
                changed = change(batch)
                old, new = batch.to_object(), changed.to_object()
                replaced = await self._objects.replace(old, new, further=further, max_bytes=max_bytes)
                if isinstance(replaced, ObjectsFull):
                    raise _space_error(changed.room - batch.room, replaced)
                if replaced:
                    return changed
                if (current := await self._objects.find(BATCH, batch.id, batch.owner)) is None:
                    raise KeyError(batch.id)
                batch = BatchRow.from_object(current)

    async def remove_expired(self) -> Sequence[FileRow]:
        """Delete the rows of expired files and batches, and return the files."""
        with storage_required():
            files = await self._objects.delete_expired(FILE)
            await self._objects.delete_expired(BATCH, keep=ACTIVE)
        return [FileRow.from_object(each) for each in files]

    async def ids(self) -> frozenset[str]:
        """Return the ids of all files and batches."""
        with storage_required():
            items = [*await self._objects.of_kind(FILE), *await self._objects.of_kind(BATCH)]
        return frozenset(each.id for each in items)

    async def paths(self) -> frozenset[str]:
        """Return the paths of every file's content."""
        with storage_required():
            return frozenset(FileRow.from_object(each).path for each in await self._objects.of_kind(FILE))

    async def _page(
        self,
        kind: str,
        owner: bytes,
        page: PageQuery,
        *,
        statuses: Sequence[str] | None = None,
        label: str | None = None,
    ) -> PageOf[StoredObject]:
        """Raise APIError for an invalid cursor."""
        ascending, limit = page.order == "asc", page.limit + 1
        try:
            with storage_required():
                items = await self._objects.page(
                    kind, owner, limit=limit, after=page.after, ascending=ascending, statuses=statuses, label=label
                )
        except KeyError:
            raise APIError(400, "after: unknown id", code="invalid_value", param="after") from None
        return items[: page.limit], len(items) > page.limit


def check_file_id(id: str, param: str) -> None:
    """Raise APIError for text that is not the id of a file."""
    if FILE_ID.fullmatch(id) is None:
        message = f"{param}: file_id must be the id of a file of POST /v1/files"
        raise APIError(400, message, code="invalid_image", param=param)


def missing_file(param: str | None = None) -> APIError:
    """Return the refusal of an id without a file."""
    message = "unknown file: it does not exist, belongs to another key, or has expired"
    return APIError(404, f"{param}: {message}" if param else message, code="not_found", param=param)


def _space_error(size: int, full: ObjectsFull) -> APIError:
    return _quota_error(
        f"this may take {size:,} bytes, and {full.bytes:,} of the gateway's space for batches are left; delete files,"
        " or ask the operator to raise batches.max_bytes"
    )


def _quota_error(message: str) -> APIError:
    return APIError(429, f"{message}; nothing was sent", "insufficient_quota", "insufficient_quota", should_retry=False)


def list_payload(items: Sequence[Mapping[str, object]], *, has_more: bool) -> Mapping[str, object]:
    """Return a list in OpenAI's form."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}
