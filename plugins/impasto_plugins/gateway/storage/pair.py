"""The pair of a store of state and a bucket: each has a mark of the other, so that neither is used with a third one.

With an empty store beside the images of another, nobody would know what was paid for; with an empty bucket, images that
were paid for would be missing.
"""

from __future__ import annotations

import asyncio
import secrets

import attrs

from impasto import File
from impasto.ext import StateError, StateStore, StoredObject
from impasto_plugins.transports.s3 import NotStored, Objects

from .contents import StoreError, store_errors

KIND = "bucket"
"""The kind and the id of the object in the store."""

MARK = ".impasto-gateway"
"""The name of the object in the bucket. Its content is that of the other one."""

_NEW, _PAIRED = "new", "paired"
_SECONDS = 1e9
_TYPE = "text/plain"

_ADVICE = "to use both all the same, run `impasto state pair --config FILE`"
_OTHER_STORE = (
    "files.s3: the bucket has the images of another store than that of general_settings.state, which would charge the"
    " Idempotency-Keys of the last 24 hours again; give the state that belongs to it, or another bucket or prefix;"
    f" {_ADVICE}"
)
_OTHER_BUCKET = (
    "files.s3: the images of general_settings.state are in another bucket or below another prefix, and this one has"
    f" none of them; give that one, or a new schema in general_settings.state; {_ADVICE}"
)
_NO_CONDITIONS = (
    "files.s3: this service ignores the header If-None-Match of an upload, which batches need; use one that honours it,"
    " as Amazon S3 does, or set batches.enabled to false"
)


@attrs.define(eq=False)
class BucketPair:
    """A bucket and the store of state that it belongs to. ``objects``: those below the prefix of the configuration.

    ``needs_conditions``: the bucket must create an object once.
    """

    objects: Objects
    state: StateStore
    needs_conditions: bool
    _is_verified: bool = attrs.field(default=False, init=False)
    _verifying: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)

    async def verify(self) -> None:
        """Check that both belong together, and mark those that are new. Raises StoreError."""
        if self._is_verified:
            return
        async with self._verifying:
            if not self._is_verified:
                try:
                    await self._verify()
                except StateError as error:
                    raise StoreError(str(error)) from None
                self._is_verified = True

    async def compare(self) -> None:
        """Check that both belong together, and change nothing. Raises StoreError and StateError."""
        report = await self.state.check()
        if not report.problems:
            found = await self.state.objects.of_kind(KIND) if report.version else []
            _check(next(iter(found), None), await self._mark())

    async def renew(self) -> None:
        """Let both belong together, whatever they had. Raises StoreError and StateError."""
        record = await self._record()
        with store_errors():
            await self.objects.put(MARK, File.of(record.body.encode()), _TYPE)
        await self._set_paired(record)

    async def _verify(self) -> None:
        record = await self._record()  # first: another replica marks the bucket before it changes the record
        mark = await self._mark()
        _check(record, mark)
        content = File.of(record.body.encode())
        with store_errors():
            if mark is None:
                await self.objects.put(MARK, content, _TYPE, only_new=True)
        _check(record, mark or await self._mark())
        if self.needs_conditions and await self._is_overwritten(content):
            raise StoreError(_NO_CONDITIONS, is_permanent=True)
        await self._set_paired(record)

    async def _mark(self) -> str | None:
        with store_errors():
            content = await self.objects.get(MARK, tries=1)
        return None if content is None else content.decode("utf-8", "replace")

    async def _is_overwritten(self, content: File) -> bool:
        with store_errors():
            try:
                return await self.objects.put(MARK, content, _TYPE, tries=1, only_new=True)
            except NotStored as error:
                if error.code != "NotImplemented":
                    raise
        return True

    async def _record(self) -> StoredObject:
        """Return the object in the store, created if there is none. Raises StateError."""
        now, objects = await self.state.now(), self.state.objects
        new = StoredObject(
            kind=KIND, id=KIND, owner=b"", status=_NEW, size=0, body=secrets.token_hex(16),
            created=now, expires=now + _SECONDS,
        )  # fmt: skip
        found = await objects.insert(new, max_count=1)
        if isinstance(found, StoredObject):
            return found
        return (await objects.of_kind(KIND))[0]

    async def _set_paired(self, record: StoredObject) -> None:
        if record.status != _PAIRED:
            await self.state.objects.replace(record, attrs.evolve(record, status=_PAIRED))


def _check(record: StoredObject | None, mark: str | None) -> None:
    """Raise StoreError if a store and a bucket do not belong together."""
    if mark is None and record is not None and record.status == _PAIRED:
        raise StoreError(_OTHER_BUCKET, is_permanent=True)
    if mark is not None and (record is None or record.body != mark):
        raise StoreError(_OTHER_STORE, is_permanent=True)
