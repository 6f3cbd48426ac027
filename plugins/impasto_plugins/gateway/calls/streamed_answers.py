"""Answers too large for memory: written to disk as they arrive, and streamed to the caller meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import attrs

from impasto import Call, Cost, File, Partial, Pending, WireRequest, WireResponse
from impasto_plugins.fetched_jobs import ProviderJob
from impasto_plugins.gateway.http.memory_budget import IMAGE_BYTES, MemoryReservation
from impasto_plugins.gateway.http.spool import SpoolFile
from impasto_plugins.gateway.storage.salvage import SalvageStore

MAX_MEMORY_BYTES = 8 << 20
"""Bytes of an answer that may stay in memory, if there is room."""

CHUNK_BYTES = 3 << 18
"""Bytes per write and read: a multiple of 3, whose base64 needs no padding."""

MAX_PARTIAL_IMAGES = 4
"""Partial images that wait for a caller who reads slowly: one more than OpenAI sends at most."""

_GROWTH_BYTES = 1 << 20

_COPIES_OF_EVENT = 4
"""Copies of an event in memory while it is read: its bytes, its text, its JSON and its image."""


@attrs.frozen
class Quote:
    """The price and the warnings of a call, known in advance."""

    cost: Cost | None
    warnings: tuple[str, ...]


@attrs.define(eq=False)
class SpooledAnswer:
    """One answer: a ``Spool`` of the core. If the disk is full the rest stays in memory: it is paid for."""

    _reservation: MemoryReservation
    _on_begin: Callable[[SpooledAnswer], object] | None
    _memory_limit: int
    _spool_file: SpoolFile = attrs.field(factory=SpoolFile)
    _buffer: bytearray = attrs.field(factory=bytearray)
    """Bytes after those on the disk."""
    _is_full: bool = False
    _is_complete: bool = False
    _new_data: asyncio.Event = attrs.field(factory=asyncio.Event)
    _file: File | None = None

    def fits_in_memory(self, size: int) -> bool:
        """Return True if so many bytes may stay in memory."""
        if size > self._memory_limit and size <= MAX_MEMORY_BYTES and self._reservation.try_reserve(_GROWTH_BYTES):
            self._memory_limit += _GROWTH_BYTES
        if size <= self._memory_limit:
            return True
        self._reservation.resize(self._reservation.size - self._memory_limit + IMAGE_BYTES)  # it goes to the disk
        self._memory_limit = IMAGE_BYTES
        return False

    async def write(self, data: bytes) -> None:
        """Write the next bytes."""
        if self._on_begin is not None:
            self._on_begin(self)
            self._on_begin = None
        self._buffer += data
        # After a full disk everything stays in memory, beyond its limit if need be: the image is paid for.
        if self._is_full:
            self._reservation.resize(self._reservation.size + len(data))
            self._new_data.set()
        elif len(self._buffer) >= CHUNK_BYTES:
            await self._flush()

    async def finish(self) -> File:
        """Return the whole answer as a file."""
        if not self._is_full:
            await self._flush()
        self._is_complete = True
        self._new_data.set()
        if self._is_full:
            return File.of(await self._read(0, self._size))
        self._file = await self._spool_file.to_file("answer")
        return self._file

    async def iter_chunks(self) -> AsyncIterator[bytes]:
        """Yield its bytes as they arrive, in pieces of PIECE bytes except the last, complete or not."""
        offset = 0
        while not self._is_complete or offset < self._size:
            # Whole pieces until the end: base64 of a shorter one would be padded in the middle of the image.
            if self._size - offset < CHUNK_BYTES and not self._is_complete:
                self._new_data.clear()
                await self._new_data.wait()
            else:
                chunk = await self._read(offset, min(CHUNK_BYTES, self._size - offset))
                offset += len(chunk)
                yield chunk

    def close(self) -> None:
        """Release the disk space."""
        if self._file is not None:
            self._file.close()
        self._spool_file.close()

    @property
    def _size(self) -> int:
        return self._spool_file.size + (len(self._buffer) if self._is_full else 0)

    async def _flush(self) -> None:
        try:
            await self._spool_file.append(self._buffer)
        except OSError:  # what was written stays readable; the buffer holds the rest
            self._is_full = True
            self._reservation.resize(self._reservation.size + len(self._buffer))
        else:
            self._buffer = bytearray()
        self._new_data.set()

    async def _read(self, offset: int, size: int) -> bytes:
        # A piece may begin on the disk and end in memory.
        on_disk = min(max(self._spool_file.size - offset, 0), size)
        data = await self._spool_file.read(offset, on_disk) if on_disk else b""
        buffer_offset = offset + on_disk - self._spool_file.size
        return data + self._buffer[buffer_offset : buffer_offset + size - on_disk] if on_disk < size else data


@attrs.define(eq=False)
class PartialImages:
    """Partial images that wait for the caller of a stream. A slow caller misses the older ones.

    So does any caller while memory is full: they are counted in ``_reservation``, and none is waited for.
    """

    _reservation: MemoryReservation
    _waiting: deque[Partial] = attrs.field(factory=deque[Partial])
    arrived: asyncio.Future[None] = attrs.field(factory=asyncio.Future[None])
    """Done if an image waits."""

    def add(self, partial: Partial) -> None:
        """Add an image, in place of the oldest ones if too many wait."""
        while not self._takes(partial.artifact.content.size):
            if not self._waiting:
                return
            self._release(self._waiting.popleft())
        self._waiting.append(partial)
        if not self.arrived.done():
            self.arrived.set_result(None)

    def take(self) -> Iterator[Partial]:
        """Yield the images that wait, and those that come meanwhile."""
        while self._waiting:
            partial = self._waiting.popleft()
            yield partial
            self._release(partial)
        if self.arrived.done():
            self.arrived = asyncio.Future()

    def _takes(self, size: int) -> bool:
        """Reserve the bytes of one more image, and return True if it may wait."""
        waiting = self._waiting
        is_short = not waiting or sum(each.artifact.content.size for each in waiting) + size <= MAX_MEMORY_BYTES
        return len(waiting) < MAX_PARTIAL_IMAGES and is_short and self._reservation.try_reserve(size)

    def _release(self, partial: Partial) -> None:
        self._reservation.resize(self._reservation.size - partial.artifact.content.size)


@attrs.define(eq=False)
class AnswerSpools:
    """The answers of one call."""

    reservation: MemoryReservation
    stack: ExitStack
    """Holds the answers' disk space, for as long as they may be read."""
    salvage_store: SalvageStore
    """The folder of paid answers that could not be used."""
    created: int
    """The call's beginning, in seconds since 1970."""
    is_single: bool = False
    """True if its one image may be read from ``streaming_answer`` while it arrives."""
    streaming_answer: asyncio.Future[StreamingAnswer] = attrs.field(factory=asyncio.Future)
    job_seconds: float | None = None
    """Seconds for which a job at a provider may run; None: as long as the call may take."""
    on_attempt: Callable[[], object] | None = None
    """Callback before a call is made."""
    before_sending: Callable[[], Awaitable[object]] | None = None
    """Awaited before a paid request is sent. Raises NotSent if it must not be."""
    partial_images: PartialImages | None = None
    """The partial images, if the caller takes a stream of them."""

    def new_spool(self, on_begin: Callable[[SpooledAnswer], object] | None = None) -> SpooledAnswer:
        """Return the spool of an answer. ``on_begin``: called with it before the first bytes are on the disk."""
        answer = SpooledAnswer(self.reservation, on_begin, IMAGE_BYTES)
        self.stack.callback(answer.close)
        return answer

    async def load(self, file: File) -> bytes:
        """Wait until there is room for the answer and what is parsed from it: many large ones may come at once."""
        await self.reservation.wait_for_paid(2 * file.size)
        return await asyncio.to_thread(file.read)

    async def hold(self, size: int) -> None:
        """Wait until there is room for more bytes of a stream, and for what is parsed from them."""
        await self.reservation.wait_for_paid(_COPIES_OF_EVENT * size)

    def announce(self, quote: Quote, answer: SpooledAnswer) -> None:
        """Note that the first bytes of the one image are on the disk."""
        if not self.streaming_answer.done():
            self.streaming_answer.set_result(StreamingAnswer(quote, answer))


@attrs.frozen
class StreamingAnswer:
    """A large answer that is still arriving, and its headers."""

    quote: Quote
    answer: SpooledAnswer


@attrs.define(eq=False)
class Attempt:
    """The requests of one attempt of a call. ``on_job`` is awaited when a job was accepted, with all jobs so far."""

    on_job: Callable[[Sequence[ProviderJob]], Awaitable[object]]
    jobs: list[ProviderJob] = attrs.field(factory=list[ProviderJob])
    images: int = 0
    """Images of the requests so far."""


class GatewayCall(Call):
    """A call whose answers are spooled, and whose job is recorded."""

    has_spools = True
    is_recorded = True

    def __init__(self, spools: AnswerSpools, quote: Quote, attempt: Attempt, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._spools, self._quote, self._attempt = spools, quote, attempt
        self._place = attempt.images  # the calls of a fan-out begin in the order of its images
        attempt.images += self.request.count
        if spools.on_attempt is not None:
            spools.on_attempt()
        if spools.partial_images is not None:
            self.request = attrs.evolve(self.request, stream=True)
            self.on_partial = spools.partial_images.add

    def spool(self, response: WireResponse) -> SpooledAnswer:
        """Return the spool of an answer; an image without JSON around it may be streamed."""
        spools, on_begin = self._spools, None
        if spools.is_single and self.job is None and response.media_type != "application/json":  # that has text around
            on_begin = partial(spools.announce, self._quote)
        return spools.new_spool(on_begin)

    def text_spool(self, response: WireResponse) -> SpooledAnswer:
        """Return the spool of an answer that is parsed in memory, if there is room."""
        return self._spools.new_spool()

    async def load(self, file: File) -> bytes:
        """Return a spooled answer that is parsed in memory, once there is room."""
        return await self._spools.load(file)

    async def hold(self, size: int) -> None:
        """Wait until so many more bytes of a stream may be in memory."""
        await self._spools.hold(size)

    def mark_job_accepted(self, pending: Pending) -> None:
        """Give the job its time."""
        super().mark_job_accepted(pending)
        if (seconds := self._spools.job_seconds) is not None:
            self.timeout = seconds
            self.deadline.extend(seconds)

    async def record_job(self, pending: Pending) -> None:
        """Add the job to those of the attempt, and await ``on_job``."""
        self._attempt.jobs.append(ProviderJob.of(pending, place=self._place, count=self.request.count))
        await self._attempt.on_job(self._attempt.jobs)

    async def before_send(self, wire: WireRequest) -> None:
        """Await ``before_sending``. Raises NotSent if nothing may be sent."""
        if wire.method == "POST" and self._spools.before_sending is not None:
            await self._spools.before_sending()
