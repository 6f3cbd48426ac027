"""Recovery after an interrupted run.

Staged images are published, jobs are resumed, and requests without an answer are marked as possibly charged.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from impasto import Account, Artifact, Cost, Result
from impasto.ext import media_type_of
from impasto_plugins.batch.classification import outcome_of_result
from impasto_plugins.batch.filenames import fit_components
from impasto_plugins.batch.tasks import ImageTask, join_jobs, key_of
from impasto_plugins.cli.terminal.output import count_of
from impasto_plugins.images import completeness as images
from impasto_plugins.media import completeness as media, mp3

from .filesystem import Disk, is_file_of
from .group_commit import WriteSteps
from .log import Row, rows_at
from .publication import link_or_rename, publish, salvage_path, staging_path
from .recorder import LedgerRecorder, artifact_row
from .workspace import LedgerHistory, Workspace

_STOPPED = "the run was stopped before the image was saved; it may have been charged"
_PAGE = 4096
_NOT_WRITTEN = bytes(_PAGE)

_UNKNOWN_SEED = "it came while the run was stopping; its seed is unknown"


@attrs.define
class RecoverySummary:
    """The result of a recovery: published images, requests without an answer, jobs to resume."""

    adopted: int = 0
    ambiguous: int = 0
    jobs: list[ImageTask] = attrs.field(factory=list[ImageTask])
    staged: list[Row] = attrs.field(factory=list[Row])
    """Images that still have to be uploaded."""
    jobs_of_other_accounts: int = 0
    """Jobs that were started with another key; only that key can fetch their results."""

    def notes(self) -> Iterator[str]:
        """Yield the notes for the user."""
        if self.adopted:
            yield f"recovered {count_of(self.adopted, 'image')} that came while the last run was stopping"
        if self.ambiguous:
            yield f"the last run stopped before {count_of(self.ambiguous, 'image')} came that may have been charged"
        if self.jobs:
            yield f"polling {count_of(len(self.jobs), 'job')} of an earlier run again"
        if self.jobs_of_other_accounts:
            jobs = count_of(self.jobs_of_other_accounts, "job")
            yield f"not polling {jobs} of another key or address; run with that one to fetch the results"


def restore_sends(accounts: Iterable[Account], history: LedgerHistory) -> frozenset[str]:
    """Count sends of earlier processes towards these keys' rates. Return the keys in the ledger's form."""
    from impasto_plugins.middleware.gate import gate_of

    keys = set[str]()
    for account in accounts:
        keys.add(key_of(account))
        if (ages := history.recent_sends(account)) and account.rate_limit is not None:
            gate_of(account).restore_history(ages, account.rate_limit)
    return frozenset(keys)


async def recover(folder: Workspace, keeping: LedgerRecorder, keys: frozenset[str]) -> RecoverySummary:
    """Close what an earlier run left open. ``keys``: those of the accounts in use, as in the ledger. Raises OSError."""
    found = await folder.submit(_recover(folder, keeping, keys))
    if keeping.uploader is not None:
        for row in found.staged:  # few: those of one stop
            await keeping.upload(keeping.uploader, row)
    return found


def _recover(folder: Workspace, keeping: LedgerRecorder, keys: frozenset[str]) -> WriteSteps[RecoverySummary]:
    found, jobs = RecoverySummary(), list[ImageTask]()
    # The last row of each image that is not finished; another host's is settled by the end of its lease
    left = [row for row in rows_at(folder.layout.ledger, folder.images.open()) if "from" not in row]
    for row in left:
        if row["row"] == "accepted":
            if row["key"] in keys:
                jobs.append(task_of_row(row, folder.clock()))
            else:
                found.jobs_of_other_accounts += 1
            continue
        # An intent without a staged row may still have its whole image: the row comes after the bytes
        staged = _with_free_name(folder, row) if row["row"] == "staged" else _adopt_whole(folder, keeping, row)
        if (
            staged is not None
            and keeping.uploader is not None
            and is_file_of(_publish_staged(folder, staged), staged["sha256"])
        ):
            if row["row"] != "staged":  # before the upload, which may fail: the charge is certain from here on
                folder.write(staged)
            found.staged.append(staged)
            found.adopted += 1
        elif staged is not None and keeping.uploader is None and (yield from _write_adopted(folder, staged)):
            found.adopted += 1
        else:
            found.ambiguous += 1
            folder.write((yield from _write_ambiguous(folder, row)))
    found.jobs += join_jobs(jobs)
    if left:
        yield "ledger"
    needed = {_publish_staged(folder, row) for row in found.staged}
    for path in folder.layout.staging.iterdir():  # nothing is in flight: no other row needs any of them
        if path not in needed:
            folder.disk.remove(path)
    return found


def _with_free_name(folder: Workspace, row: Row) -> Row:
    """Return a staged row with its name claimed; the file may have that name already."""
    if is_file_of(folder.layout.root / row["path"], row["sha256"]):
        return row
    return {**row, "path": folder.names.claim(fit_components(row["path"]))}


def _publish_staged(folder: Workspace, row: Row) -> Path:
    return staging_path(folder.layout, row["id"], row["index"])


def task_of_row(row: Row, now: float) -> ImageTask:
    """Return the task of an image that a run has left open. ``now``: the time by the clock of its folder."""
    usd, expires = row["usd"], row.get("expires")
    return ImageTask(
        id=row["id"],
        index=row["index"],
        n=row["n"],
        model=row["model"],
        job=row.get("job"),
        statements=row.get("statements", {}),
        key=row.get("key", ""),
        is_kept=expires is None or now < expires,
        cost=Cost(usd=usd, as_of="") if usd is not None else None,
        sha256=row["asks"],
        place=row.get("place", 0),
        requested=row.get("requested", 1),
    )


def _find_image(folder: Workspace, row: Row) -> tuple[Path, bytes, str]:
    """Return the staging file of an image, and its bytes."""
    path = staging_path(folder.layout, row["id"], row["index"])
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    media_type = media_type_of(data[:16]) or ""
    return path, _without_room(data, media_type), media_type


def _adopt_whole(folder: Workspace, keeping: LedgerRecorder, intent: Row) -> Row | None:
    """Write the row of an image that is whole in the staging folder but has no row yet."""
    path, data, media_type = _find_image(folder, intent)
    if not _is_whole(data, media_type):
        return None
    modified = _trim(folder.disk, path, len(data))
    unit = task_of_row(intent, folder.clock())
    artifact = Artifact(data=data, media_type=media_type)
    outcome = outcome_of_result(unit, Result(artifacts=(artifact,), warnings=(_UNKNOWN_SEED,)))
    name = folder.names.claim(keeping.image_name(unit, artifact))
    return artifact_row(unit, outcome, artifact, path=name, modified=modified)


def _trim(disk: Disk, path: Path, size: int) -> int:
    """Release the reserved space behind the image and sync it. Return its modification time."""
    file = disk.reopen(path)
    try:
        disk.truncate(file, size)
        disk.sync(file)
        return os.fstat(file).st_mtime_ns
    finally:
        disk.close(file)


def _without_room(data: bytes, media_type: str) -> bytes:
    """Return the bytes without the rest of the reserved space."""
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
    """Return True if the image is complete. A page of zeros was not written yet when the machine stopped."""
    is_complete = images.is_complete if media_type.startswith("image/") else media.is_complete
    pages = (data[at : at + _PAGE] for at in range(0, len(data), _PAGE))
    return is_complete(data, media_type) and _NOT_WRITTEN not in pages


def _write_adopted(folder: Workspace, row: Row) -> WriteSteps[bool]:
    """Publish a staged image. Return False if it is missing: the machine itself had stopped."""
    layout, sha256 = folder.layout, row["sha256"]
    staged = staging_path(layout, row["id"], row["index"])
    if not is_file_of(staged, sha256) and not is_file_of(layout.root / row["path"], sha256):
        return False
    yield from publish(folder, staged, row)
    return True


def _write_ambiguous(folder: Workspace, row: Row) -> WriteSteps[Row]:
    """Write the row of an image that may have been charged, and store the bytes that came."""
    ambiguous = {
        "row": "ambiguous",
        **{name: row[name] for name in ("id", "index", "n", "model", "usd", "asks")},
        "at": time.time(),
        "code": "charge_unknown",
        "message": _STOPPED,
        "billed": "unknown",
        "again": False,
    }
    path, data, media_type = _find_image(folder, row)
    if data:
        _trim(folder.disk, path, len(data))
        target = salvage_path(folder, row["id"], hashlib.sha256(data).hexdigest(), media_type)
        folder.disk.remove(target)  # of an attempt before, or cut by a loss of power
        link_or_rename(folder.disk, path, target)
        yield target.parent
        ambiguous["kept"] = [str(target.relative_to(folder.layout.root))]
    return ambiguous
