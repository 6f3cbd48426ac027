"""A batch's folder: its lock, its ledger, its staging folder."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import attrs

from impasto import Account, ConfigError
from impasto_plugins.batch.filenames import KEPT_FOLDER, TakenNames
from impasto_plugins.batch.tasks import key_of
from impasto_plugins.concurrency import to_thread_shielded
from impasto_plugins.state.clock import StoreClock

from .evidence import check_evidence, check_links, set_aside
from .filesystem import Disk, is_file_of
from .group_commit import Writer, WriteSteps
from .high_water import HighWater, Mark
from .index import TaskIndex
from .log import ON_RESUME, Ledger, ReadPosition, Row, Rows, UntrustedLedger, rows

T = TypeVar("T")

HIDDEN = ".impasto"
VERSION = 1
"""Version of the ledger's rows."""

RESERVE_BYTES = 256 * 1024
"""Space that is released for the last rows of a run when the disk is full."""

RESTORED_SECONDS = 60.0
"""Seconds of send history restored into the rate limiter. Measured from the newest ledger entry; entries in the future
(clock set back) count as sent now.
"""

_LOCK_TRIES = 4

_PROCESS = secrets.token_hex(8)
"""An id of this process: its own sends are in its gates already."""


class LockedFolder(ConfigError):
    """Another process works in the folder."""


@attrs.frozen
class WorkspacePaths:
    """Paths in a batch's folder."""

    root: Path
    staging: Path = attrs.field(
        init=False,
        eq=False,
        repr=False,
        default=attrs.Factory(lambda self: self.root / HIDDEN / "staging", takes_self=True),
    )
    """The folder of unfinished images. Making a path takes longer than a system call: this one is made once."""

    @property
    def hidden(self) -> Path:
        """The folder of everything that is not output."""
        return self.root / HIDDEN

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.root / HIDDEN / "ledger.jsonl"

    @property
    def high_water(self) -> Path:
        """The ledger's high-water mark, outside its folder: removing or replacing that folder leaves the mark."""
        return self.root / ".impasto-mark"

    @property
    def stamp(self) -> Path:
        """The result files that the ledger wrote, see ``evidence.write_stamp``."""
        return self.root / HIDDEN / "stamp"

    @property
    def lock(self) -> Path:
        """The file whose lock the running process holds."""
        return self.root / HIDDEN / "lock"

    @property
    def reserve(self) -> Path:
        """The file whose space is released when the disk is full."""
        return self.root / HIDDEN / "reserve"

    @property
    def manifest(self) -> Path:
        """The manifest that came on standard input."""
        return self.root / HIDDEN / "manifest.jsonl"

    @property
    def salvage(self) -> Path:
        """The folder for bytes of calls without a usable image."""
        return self.root / KEPT_FOLDER


@attrs.define(eq=False)
class LedgerHistory:
    """The content of a ledger. ``sent``: by key, seconds since other processes' sends of the last minute.

    ``job_models`` are those of accepted jobs. ``missing`` are finished images that are missing or have changed; they
    are looked for with ``verify``. ``is_started_over``: images that the ledger does not know are ignored.
    """

    layout: WorkspacePaths
    images: TaskIndex = attrs.field(factory=TaskIndex)
    read: ReadPosition = attrs.field(factory=ReadPosition)
    run: Row | None = None
    sent: dict[str, list[float]] = attrs.field(factory=dict[str, list[float]])
    job_models: set[str] = attrs.field(factory=set[str])
    addresses: dict[str, str] = attrs.field(factory=dict[str, str])
    """The last address of each provider; a ledger of an earlier version has none."""
    missing: list[Row] = attrs.field(factory=list[Row])
    passed_over: int = 0
    """Invalid rows of the manifest that the last run skipped."""
    names: TakenNames = attrs.field(default=attrs.Factory(lambda self: TakenNames(self.layout.root), takes_self=True))
    is_started_over: bool = False
    clock: StoreClock = attrs.field(default=attrs.Factory(lambda self: StoreClock(self.layout.hidden), takes_self=True))
    """The time by which providers delete the results of jobs; an open folder loads it."""
    hosts: set[str] = attrs.field(factory=set[str])
    """In a batch on several hosts: the names that this folder's processes had."""
    exported: int = 0
    """The part of the ledger, in bytes, whose own rows are in the bucket."""
    imported: dict[str, int] = attrs.field(factory=dict[str, int])
    """The number of segments of each other host's log that are in the ledger."""
    _rows: Rows | None = None

    @property
    def is_vouched_for(self) -> bool:
        """True if the high-water mark proves that the ledger is whole and up to date."""
        return self.read.mark is not None and self.read.mark.size > 0

    def intent_of(self, id: str, index: int) -> Row:
        """Return the last row of an image in the ledger."""
        if self._rows is None:
            self._rows = Rows(self.layout.ledger)
        return self._rows.at(self.images.place(id, index))

    def recent_sends(self, account: Account) -> list[float]:
        """Return the seconds since other processes' sends with an account's key, in the last minute."""
        return self.sent.get(key_of(account), [])

    def close(self) -> None:
        """Close the file."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    @classmethod
    def read_ledger(cls, layout: WorkspacePaths, *, verify: bool = False) -> LedgerHistory:
        """Read a ledger. Raises UntrustedLedger, and ConfigError if it is of a later version."""
        history = cls(layout)
        try:
            history.read.mark = Mark.read(layout.high_water)  # before the ledger, to which a run may add rows meanwhile
        except OSError as error:
            raise unusable_folder(layout, error) from None
        add_name = history.names.add
        now = time.time()
        take, root = history.images.apply, f"{layout.root}/"
        sent: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        is_other = True
        for place, row in rows(layout.ledger, history.read, heads=ON_RESUME):
            take(row, place)
            kind = row["row"]
            if kind == "intent":
                if is_other and "from" not in row:
                    sent[row["key"]].append(row["at"])
            elif kind == "done":
                add_name(row["path"], is_local=row["modified"] is not None)
                if verify and not _is_there(root, row):
                    history.missing.append(row)
            elif kind == "invalid":
                history.passed_over += 1
            elif kind == "accepted":
                history.job_models.add(row["model"])
            elif kind == "shared":
                history.exported = row.get("exported", history.exported)
                history.imported |= row.get("imported", {})
            elif kind == "run":
                if row["version"] != VERSION:
                    raise ConfigError(f"{str(layout.ledger)!r} was written by a later version: upgrade impasto")
                history.run, history.passed_over = row, 0
                history.addresses |= row.get("addresses", {})
                history.is_started_over = history.is_started_over or "started_over" in row
                is_other = row["process"] != _PROCESS
                history.hosts |= {row["host"]} if "host" in row else set()
        for key, times in sent.items():
            since = max(times[-1], now) - RESTORED_SECONDS  # its last minute, where the clock was set back since
            if ages := [max(now - at, 0.0) for at in times if at > since]:
                history.sent[key] = ages
        return history


def _is_there(root: str, row: Row) -> bool:
    """Return True if an image exists unchanged. Its content is read only if its time changed."""
    if row["modified"] is None:  # it is in a bucket
        return True
    path = root + row["path"]
    try:
        found = os.lstat(path)  # a hundred thousand times: a Path would take twice as long
    except OSError:
        return False
    if found.st_size != row["bytes"]:
        return False
    return found.st_mtime_ns == row["modified"] or is_file_of(Path(path), row["sha256"])


class Workspace:
    """An open folder with one worker, this process. ``async with await Workspace.open(...)``."""

    def __init__(
        self, layout: WorkspacePaths, disk: Disk, history: LedgerHistory, ledger: Ledger, files: ExitStack
    ) -> None:
        self.layout = layout
        self.disk = disk
        self.history = history
        self.images = history.images
        self.names = history.names
        self.clock = history.clock
        self.ledger = ledger
        self.merge: Callable[[Row], Row | None] = lambda row: row
        """Returns each row as it is to be written, or None if the ledger has better evidence of its image."""
        self._files = files
        files.callback(layout.reserve.unlink, missing_ok=True)
        self._writer = Writer(disk, ledger)

    @classmethod
    async def open(
        cls, root: Path, disk: Disk, *, levels: int = 1, start_over: bool = False, is_begun: bool = False
    ) -> Workspace:
        """Create the folder if it is missing, and take its lock. Raises ConfigError.

        ``levels``: depth of the images' folders. ``start_over``: begin a new ledger if none can be trusted.
        ``is_begun``: see ``check_evidence``.
        """
        layout = WorkspacePaths(root)
        with ExitStack() as stack:
            open_files = partial(_open_files, levels=levels, start_over=start_over, is_begun=is_begun)
            history, ledger = await to_thread_shielded(open_files, layout, disk, stack)
            return cls(layout, disk, history, ledger, stack.pop_all())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_thread_shielded(self._close)  # also if it is cancelled: the lock must not outlast the run

    def submit(self, steps: WriteSteps[T]) -> asyncio.Future[T]:
        """Submit a job to the writer."""
        return self._writer.submit(steps)

    def write(self, row: Row) -> None:
        """Append a row and update the index, in the writer's thread. Raises OSError."""
        if (merged := self.merge(row)) is None:
            return
        row = merged
        try:
            place = self.ledger.append(row)
        except OSError:
            if not self.layout.reserve.exists():
                raise
            self.disk.remove(self.layout.reserve)  # a row of a charge must not be lost to a full disk
            place = self.ledger.append(row)
        self.images.apply(row, place)

    def write_row(self, row: Row, *, on_disk: bool) -> WriteSteps[None]:
        """Write one row: a job for the writer."""
        self.write(row)
        if on_disk:
            yield "ledger"

    async def flush(self) -> None:
        """Wait until every submitted row is in the ledger, also those that nobody waits for."""
        await self.submit(_nothing())

    def begin(
        self,
        images: int,
        *,
        manifest: str | None = None,
        orphans: Mapping[str, int] = MappingProxyType({}),
        target: object = None,
        orphan_extra: int = 0,
        host: str | None = None,
    ) -> WriteSteps[None]:
        """Begin a run of so many images: a job for the writer. ``target``: the bucket for them.

        ``host``: the name of this process in a batch on several hosts.
        ``orphans``: images of earlier manifests, counted by state; ``orphan_extra``: extra images beside the run's own.
        """
        row = {"row": "run", "version": VERSION, "at": time.time(), "process": _PROCESS, "pid": os.getpid()}
        more: dict[str, object] = {"target": str(target)} if target is not None else {}
        more |= {"stranger_extra": orphan_extra} if orphan_extra else {}
        more |= {"host": host} if host is not None else {}
        more |= {"started_over": True} if self.history.is_started_over else {}
        more |= {"addresses": dict(self.history.addresses)} if self.history.addresses else {}
        about = {"pictures": images, "manifest": manifest, "strangers": dict(orphans), **more}
        yield from self.write_row({**row, **about}, on_disk=True)

    def _close(self) -> None:
        self._writer.close()
        self.history.close()
        with suppress(OSError, ValueError):  # rows about charges were synced one by one; ValueError: it is closed
            self.ledger.sync()
        self._files.close()  # the second time it is empty: the numbers may be other files' by then


def _nothing() -> WriteSteps[None]:
    yield from ()


def _open_files(
    layout: WorkspacePaths, disk: Disk, stack: ExitStack, *, levels: int, start_over: bool, is_begun: bool
) -> tuple[LedgerHistory, Ledger]:
    """Open a folder's lock and ledger; ``stack`` closes them again, the lock last."""
    try:
        check_links(layout, levels)
        disk.make_folder(layout.staging)
        lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        stack.callback(os.close, lock)
        ledger = Ledger(layout.ledger, disk, HighWater(layout.high_water, disk))
        stack.callback(ledger.close)
        _lock(layout, lock)
        try:
            history = read_trusted(layout, is_begun=is_begun)
        except UntrustedLedger:
            if not start_over:
                raise
            set_aside(layout, disk)
            history = LedgerHistory(layout)
        if start_over and not history.is_vouched_for:
            history.is_started_over = True
        ledger.open(history.read)
        history.clock.load()
        stack.callback(history.clock.save)
        _create_reserve(layout, disk)
    except OSError as error:
        raise unusable_folder(layout, error) from None
    return history, ledger


def read_trusted(layout: WorkspacePaths, *, is_begun: bool = False) -> LedgerHistory:
    """Read a ledger that nothing in its folder contradicts. Raises UntrustedLedger, ConfigError."""
    history = LedgerHistory.read_ledger(layout, verify=True)
    check_evidence(history, is_begun=is_begun)
    return history


def _lock(layout: WorkspacePaths, lock: int) -> None:
    for _ in range(_LOCK_TRIES):
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # it may be `status`, which holds it for a moment
    raise LockedFolder(
        f"{str(layout.root)!r} is locked by another run; wait until it ends, or check it with `impasto batch status`"
    )


def _create_reserve(layout: WorkspacePaths, disk: Disk) -> None:
    file = disk.create(layout.reserve)
    try:
        disk.reserve(file, RESERVE_BYTES)
    finally:
        disk.close(file)


def unusable_folder(layout: WorkspacePaths, error: OSError) -> ConfigError:
    """Return the error for a folder that can't be written."""
    reason = error.strerror or str(error)
    return ConfigError(f"can't use {str(layout.root)!r}: {reason}; give another folder")
