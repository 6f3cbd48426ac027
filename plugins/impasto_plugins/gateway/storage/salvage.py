"""Paid answers that can't be used and blurred images: stored for a day, with their place in the error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Set as AbstractSet

import attrs

from impasto import Artifact, ChargeUnknown, File, ImpastoError, UnusableResult

from .contents import StoreError
from .local import UNKNOWN_TYPE, LocalStore, StoredFile, is_storable
from .s3 import S3Store

_log = logging.getLogger("impasto.gateway")


@attrs.define(eq=False)
class SalvageStore:
    """A folder, and a bucket in its place as long as that can be used."""

    folder: LocalStore
    bucket: S3Store | None = None
    on_waiting: Callable[[], object] = attrs.field(default=object, init=False)
    """Called if a file waits for the bucket."""
    _waiting: set[str] = attrs.field(factory=set[str], init=False)

    @property
    def waiting(self) -> AbstractSet[str]:
        """The names of files that only this machine has, until they can be uploaded."""
        return self._waiting

    @property
    def seconds(self) -> float:
        """The lifetime of each file."""
        return self.folder.seconds

    async def save(self, artifact: Artifact) -> str:
        """Store bytes and return their name. Raises StoreError."""
        if self.bucket is not None:
            try:
                return await self.bucket.save(artifact)
            except StoreError as error:
                _log.error("a paid answer stays on this machine until the bucket can be written to: %s", error)
        name = await self.folder.save(artifact)
        if self.bucket is not None:
            self._waiting.add(name)
            self.on_waiting()
        return name

    async def publish_all(self) -> None:
        """Upload the files that wait, also those of earlier processes on this machine. Raises StoreError."""
        if self.bucket is None:
            return
        self._waiting |= await asyncio.to_thread(self.folder.names)
        for name in tuple(self._waiting):
            if (file := await self.folder.find(name)) is not None:  # otherwise another worker of it was faster
                with file.source as source:
                    await self.bucket.put(name, await asyncio.to_thread(File.of, (name, source)))
                await self.folder.delete(name)
            self._waiting.discard(name)

    async def find(self, name: str) -> StoredFile | None:
        """Return the file of a name, or None if there is none or it has expired. Raises StoreError."""
        found = await self.folder.find(name)
        return found if found is not None or self.bucket is None else await self.bucket.find(name)


async def save_unusable(store: SalvageStore, *errors: ImpastoError) -> None:
    """Store the bytes of these errors, and add their place to the messages.

    An error for several images names all of their files: only its own message reaches the caller.
    """
    ends: dict[object, str] = {}  # by their content: each image that an answer lacks may have all of it in its error
    for error in dict.fromkeys(errors):  # the images of one request share theirs
        own: dict[str, None] = {}
        for content, artifact in (one for each in (error, *error.errors) for one in _artifacts(each)):
            if content not in ends:
                ends[content] = await save(store, artifact)
            own[ends[content]] = None
        error.message += "".join(own)


async def save(store: SalvageStore, artifact: Artifact) -> str:
    """Store the bytes, and return the end of an error's message that names their place: empty if that failed."""
    try:
        name = await store.save(artifact)
    except StoreError as error:
        _log.error("a paid answer that can't be used could not be stored: %s", error)
        return ""
    content = "the answer, which is not a usable image" if artifact.media_type == UNKNOWN_TYPE else "the image"
    hours = f"{store.seconds / 3600:g} hours"
    return f"; GET /v1/images/files/{name} has {content}, as the provider sent it, for {hours}"


def _artifacts(error: ImpastoError) -> Iterator[tuple[object, Artifact]]:
    """Yield blurred and partial images, a paid answer, or the beginning of one that broke off, but no proxy's page.

    Each comes with what tells it from others.
    """
    if error.artifacts:
        for each in error.artifacts:  # a plugin's images may have a type that no file here has
            yield each, each if is_storable(each.media_type) else attrs.evolve(each, media_type=UNKNOWN_TYPE)
    elif isinstance(error, ChargeUnknown | UnusableResult):
        content = error.file or File.of(error.raw)
        is_salvageable = isinstance(error, UnusableResult) or content.media_type != UNKNOWN_TYPE
        if is_salvageable and content.size:
            yield error.file or error.raw, Artifact(media_type=content.media_type, file=content)
