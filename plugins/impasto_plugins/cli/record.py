"""Whether the files of a distribution are those that its wheel installed, by the RECORD that came with them."""

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
    from impasto.ext import Owner

_INSTALLERS = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"})
"""Written by whoever installed it: they differ where the same wheel was installed."""

_PIECE = 1 << 20
_TOLD = 3


class Files(NamedTuple):
    """``digest``: of all files' hashes, the same wherever the same wheel was installed; None where they are not known.

    ``state``: ``as installed``, ``changed``, or ``unknown`` where there is no RECORD. ``text`` says it to a reader.
    """

    digest: str | None
    state: Literal["as installed", "changed", "unknown"]
    text: str


def files_of(owner: Owner) -> Files:
    """Hashes every file of the wheel where it is installed, and compares it with the RECORD."""
    try:
        listed = sorted(_listed(owner.read_text("RECORD") or ""))
    except (OSError, ValueError, csv.Error):
        return Files(None, "unknown", "the RECORD of its files can't be read, so they can't be checked")
    if not listed:
        return Files(None, "unknown", "there is no RECORD of its files, so they can't be checked")
    digest = hashlib.sha256("\n".join(f"{path},{said}" for path, said in listed).encode()).hexdigest()
    found = [(path, _hash(owner.distribution.locate_file(path)), said) for path, said in listed]
    wrong = [f"{path} ({'changed' if '=' in now else now})" for path, now, said in found if now != said]
    if wrong:
        more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        told = ", ".join(wrong[:_TOLD])
        return Files(digest, "changed", f"its files are not those that were installed: {told}{more}; install it again")
    elsewhere = any(path.endswith(".pth") for path, _ in listed)
    editable = " (editable: its code lies elsewhere and is not checked)" if elsewhere else ""
    return Files(digest, "as installed", f"{len(listed)} files as installed, sha256 {digest[:16]}{editable}")


def _listed(record: str) -> Iterator[tuple[str, str]]:
    """The wheel's files and what RECORD says that they hash to. Not scripts, which are made where it is installed."""
    for row in csv.reader(record.splitlines()):
        path, said, *_ = [*row, "", ""]
        folder, _, name = path.rpartition("/")
        by_installer = folder.endswith(".dist-info") and name in _INSTALLERS
        outside = path.startswith("/") or ".." in path.split("/")
        if said.startswith("sha256=") and not by_installer and not outside:
            yield path, said


def _hash(path: object) -> str:
    """The hash of a file as RECORD has it, or why there is none."""
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
