"""Compare a distribution's files with the RECORD of its wheel."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from impasto.ext import Distribution

_INSTALLERS = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"})
"""Files written by installers: they differ between installations of the same wheel."""

_PIECE = 1 << 20
_MAX_LISTED = 3


class InstalledFiles(NamedTuple):
    """The state of a distribution's files: ``as installed``, ``changed``, or ``unknown`` without a RECORD.

    ``digest`` is over all files' hashes and equal wherever the same wheel was installed; None if they are unknown.
    ``text`` describes the state.
    """

    digest: str | None
    state: Literal["as installed", "changed", "unknown"]
    text: str


def files_of(owner: Distribution) -> InstalledFiles:
    """Hash every file of the installed wheel and compare it with the RECORD."""
    try:
        listed = sorted(_listed(owner.read_text("RECORD") or ""))
    except (OSError, ValueError, csv.Error):
        return InstalledFiles(None, "unknown", "its RECORD can't be read, so its files can't be checked")
    if not listed:
        return InstalledFiles(None, "unknown", "its RECORD is missing, so its files can't be checked")
    digest = hashlib.sha256("\n".join(f"{path},{expected}" for path, expected in listed).encode()).hexdigest()
    found = [(path, _hash(owner.installed.locate_file(path)), expected) for path, expected in listed]
    wrong = [f"{path} ({'changed' if '=' in now else now})" for path, now, expected in found if now != expected]
    if wrong:
        more = f" and {len(wrong) - _MAX_LISTED} more" if len(wrong) > _MAX_LISTED else ""
        listing = ", ".join(wrong[:_MAX_LISTED])
        return InstalledFiles(
            digest, "changed", f"its files differ from those that were installed: {listing}{more}; install it again"
        )
    elsewhere = any(path.endswith(".pth") for path, _ in listed)
    editable = " (editable: its code lies elsewhere and is not checked)" if elsewhere else ""
    return InstalledFiles(digest, "as installed", f"{len(listed)} files as installed, sha256 {digest[:16]}{editable}")


def _listed(record: str) -> Iterator[tuple[str, str]]:
    """Yield the wheel's files and their hashes in RECORD, without scripts, which are generated at installation."""
    for row in csv.reader(record.splitlines()):
        path, expected, *_ = [*row, "", ""]
        folder, _, name = path.rpartition("/")
        by_installer = folder.endswith(".dist-info") and name in _INSTALLERS
        outside = path.startswith("/") or ".." in path.split("/")
        if expected.startswith("sha256=") and not by_installer and not outside:
            yield path, expected


def _hash(path: object) -> str:
    """Return the hash of a file in RECORD's form, or the reason why there is none."""
    found = hashlib.sha256()
    try:
        if not isinstance(path, os.PathLike):  # in a zip file
            found.update(path.read_bytes())  # type: ignore[attr-defined]  # a zipfile.Path
        elif not stat.S_ISREG(Path(path).stat().st_mode):  # a FIFO or a device may have no end
            return "is not a file"
        else:
            with open(path, "rb") as source:
                while piece := source.read(_PIECE):
                    found.update(piece)
    except (FileNotFoundError, KeyError):
        return "missing"
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError):
            return "can't be read"
        return error.strerror or "can't be read"
    return f"sha256={urlsafe_b64encode(found.digest()).rstrip(b'=').decode('ascii')}"
