"""What a stop left open, closed: pictures that had come are put in their place, jobs are polled again, and of what
was asked for and did not come it is said that it may have been charged.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from impasto import Account, Artifact, Cost, Result
from impasto.ext import media_type_of
from impasto_plugins.batch.classification import made
from impasto_plugins.batch.filenames import fitting
from impasto_plugins.batch.tasks import Unit, key_of
from impasto_plugins.images import complete as pictures
from impasto_plugins.media import complete as media, mp3

from .filesystem import Disk, is_file_of
from .group_commit import Steps
from .log import Row, Rows
from .publication import linked, placed, staged_at
from .recorder import Keeping, kept_at, of_artifact
from .workspace import Folder, History

_STOPPED = "the run was stopped before the answer was kept; it may have been charged"
_PAGE = 4096
_NOT_WRITTEN = bytes(_PAGE)

_UNKNOWN_SEED = "it came as the run was stopped; its seed is not known"


@attrs.define
class Recovered:
    """What was found: pictures put in their place, those of which nothing is known, jobs that go on."""

    adopted: int = 0
    ambiguous: int = 0
    jobs: list[Unit] = attrs.field(factory=list[Unit])
    staged: list[Row] = attrs.field(factory=list[Row])
    """Pictures that are still to go up to a bucket."""
    others: int = 0
    """Jobs that were started with another key: only that one is told their results."""

    def notes(self) -> Iterator[str]:
        """What is to be said of it."""
        if self.adopted:
            yield f"{self.adopted:,} pictures that had come as the last run was stopped were put in their place"
        if self.ambiguous:
            yield f"{self.ambiguous:,} pictures were asked for as the last run was stopped; they may have been charged"
        if self.jobs:
            yield f"{len(self.jobs):,} jobs of an earlier run go on, and are polled again"
        if self.others:
            yield f"{self.others:,} jobs were started with another key or address; run with those to have their results"


def recall(accounts: Iterable[Account], history: History) -> frozenset[str]:
    """Counts what an earlier process sent towards the rates of these keys; returns them, as the ledger has them."""
    from impasto_plugins.middleware.limit import gate_of

    keys = set[str]()
    for account in accounts:
        keys.add(key_of(account))
        if (ages := history.sent_by(account)) and account.rate_limit is not None:
            gate_of(account).recall(ages, account.rate_limit)
    return frozenset(keys)


async def recover(folder: Folder, keeping: Keeping, keys: frozenset[str]) -> Recovered:
    """Closes what is open. ``keys``: those of the accounts that are called, as the ledger has them. Raises OSError."""
    found = await folder.post(_recovered(folder, keeping, keys))
    if keeping.uploader is not None:
        for row in found.staged:  # few: those of one stop
            await keeping.send(keeping.uploader, row)
    return found


def _recovered(folder: Folder, keeping: Keeping, keys: frozenset[str]) -> Steps[Recovered]:
    found = Recovered()
    left = _open_rows(folder)
    for row in left:
        if row["row"] == "accepted":
            if row["key"] in keys:
                found.jobs.append(_unit(row))
            else:
                found.others += 1
            continue
        staged = _claimed(folder, row) if row["row"] == "staged" else _whole(folder, keeping, row)
        if staged is not None and keeping.uploader is not None and is_file_of(_place(folder, staged), staged["sha256"]):
            if row["row"] != "staged":
                folder.write(staged)
            found.staged.append(staged)
            found.adopted += 1
        elif staged is not None and keeping.uploader is None and (yield from _adopted(folder, staged)):
            found.adopted += 1
        else:
            found.ambiguous += 1
            folder.write((yield from _lost(folder, row)))
    if left:
        yield "ledger"
    needed = {_place(folder, row) for row in found.staged}
    for path in folder.layout.staging.iterdir():  # nothing is in flight: no other row needs any of them
        if path not in needed:
            folder.disk.remove(path)
    return found


def _claimed(folder: Folder, row: Row) -> Row:
    """Return a staged row whose name is claimed; the file may have that name already."""
    if is_file_of(folder.layout.root / row["path"], row["sha256"]):
        return row
    return {**row, "path": folder.names.claim(fitting(row["path"]))}


def _place(folder: Folder, row: Row) -> Path:
    return staged_at(folder.layout, row["id"], row["index"])


def _open_rows(folder: Folder) -> list[Row]:
    places = list(folder.pictures.open())
    if not places:
        return []
    rows = Rows(folder.layout.ledger)
    try:
        return [rows.at(place) for place in places]
    finally:
        rows.close()


def _unit(row: Row) -> Unit:
    usd = row["usd"]
    return Unit(
        id=row["id"],
        index=row["index"],
        n=row["n"],
        model=row["model"],
        job=row.get("job"),
        key=row.get("key", ""),
        expires=row.get("expires"),
        cost=Cost(usd=usd, as_of="") if usd is not None else None,
        sha256=row["asks"],
    )


def _come(folder: Folder, row: Row) -> tuple[Path, bytes, str]:
    """The file in which a picture was put together, and what of it came."""
    path = staged_at(folder.layout, row["id"], row["index"])
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    media_type = media_type_of(data[:16]) or ""
    return path, _without_room(data, media_type), media_type


def _whole(folder: Folder, keeping: Keeping, intent: Row) -> Row | None:
    """The row of a picture that is whole in the staging folder, though no row says so yet."""
    path, data, media_type = _come(folder, intent)
    if not _is_whole(data, media_type):
        return None
    modified = _trim(folder.disk, path, len(data))
    unit = _unit(intent)
    artifact = Artifact(data=data, media_type=media_type)
    outcome = made(unit, Result(artifacts=(artifact,), warnings=(_UNKNOWN_SEED,)))
    named = folder.names.claim(keeping.named(unit, artifact))
    return of_artifact(unit, outcome, artifact, path=named, modified=modified)


def _trim(disk: Disk, path: Path, size: int) -> int:
    """Gives back the room behind what came, which is on the disk then. Returns when it was changed."""
    file = disk.reopen(path)
    try:
        disk.truncate(file, size)
        disk.sync(file)
        return os.fstat(file).st_mtime_ns
    finally:
        disk.close(file)


def _without_room(data: bytes, media_type: str) -> bytes:
    """What came, without what is left of the room that was set aside for it."""
    match media_type:
        case "image/webp" | "audio/wav":
            return data[: int.from_bytes(data[4:8], "little") + 8]
        case "model/gltf-binary":
            return data[: int.from_bytes(data[8:12], "little")]
        case "audio/mpeg":  # its last frame may end in zeros of its own
            return data[: mp3.end(io.BytesIO(data), len(data.rstrip(b"\0")))]
        case _:
            return data.rstrip(b"\0")


def _is_whole(data: bytes, media_type: str) -> bool:
    """Whether all of it came. A page of zeros is one that the machine had not written when it stopped."""
    is_complete = pictures.is_complete if media_type.startswith("image/") else media.is_complete
    pages = (data[at : at + _PAGE] for at in range(0, len(data), _PAGE))
    return is_complete(data, media_type) and _NOT_WRITTEN not in pages


def _adopted(folder: Folder, row: Row) -> Steps[bool]:
    """Puts a staged picture in its place. False where it is not there: the machine itself had stopped."""
    layout, sha256 = folder.layout, row["sha256"]
    staged = staged_at(layout, row["id"], row["index"])
    if not is_file_of(staged, sha256) and not is_file_of(layout.root / row["path"], sha256):
        return False
    yield from placed(folder, staged, row)
    return True


def _lost(folder: Folder, row: Row) -> Steps[Row]:
    """The row of a picture that can't be said to have come; what came of it is kept."""
    lost = {
        "row": "ambiguous",
        **{name: row[name] for name in ("id", "index", "n", "model", "usd", "asks")},
        "at": time.time(),
        "code": "charge_unknown",
        "message": _STOPPED,
        "billed": "unknown",
        "again": False,
    }
    path, data, media_type = _come(folder, row)
    if data:
        _trim(folder.disk, path, len(data))
        kept = kept_at(folder, row["id"], row["index"], media_type)
        linked(folder.disk, path, kept)
        yield kept.parent
        lost["kept"] = [str(kept.relative_to(folder.layout.root))]
    return lost
