"""Files of a command's artifacts. Nothing is overwritten unasked, and nothing paid is dropped."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import attrs

from impasto import Artifact, ChargeUnknown, ContentFiltered, ImpastoError, Problem, UnusableResult
from impasto.ext import EXTENSIONS, media_type_of
from impasto_plugins.cli.terminal.output import is_terminal, stdout

from .values import FORMATS, is_medium

STDOUT = Path("-")
_ROOM = 8 << 20
"""Bytes for an artifact that must fit on the disk before it is paid for: the largest that providers usually make."""


@attrs.frozen(kw_only=True)
class SavedArtifact:
    """An artifact and its file, which is None if no disk accepted it; ``place`` then says where its bytes are.

    ``trouble`` says what is wrong if it is not where it was wanted.
    """

    artifact: Artifact
    path: Path | None
    place: str
    trouble: str | None = None

    def name_problem(self) -> str | None:
        """Return the problem if the file's name shows another format than its bytes, or None.

        A model without ``output_format`` makes one format, and a job that is resumed has got its own.
        """
        if self.path is None:
            return None
        with self.artifact.content.open() as content:
            media_type = media_type_of(content.read(16)) or self.artifact.media_type
        ending = EXTENSIONS.get(media_type, "")
        from_name = FORMATS.get(self.path.suffix.lower())
        if from_name == FORMATS.get(ending) or (from_name is None and not is_medium(self.path)):
            return None
        advice = f"; rename it to end in {ending}" if ending else ""
        return f"{self.path} contains {media_type} data, which its name does not show{advice}"


@attrs.define(kw_only=True)
class ArtifactSaver:
    """The names of a call's artifacts: ``out``, numbered if ``n`` is above 1, or names of model and seed.

    ``to_stdout``: standard output takes the bytes that no disk accepts.
    """

    model: str
    out: Path | None
    n: int = 1
    force: bool = False
    to_stdout: bool = True
    _answers: dict[bytes, str] = attrs.field(factory=dict[bytes, str], repr=False)
    """The places of answers: several images that one of them lacks have it in each of their errors."""
    _at: int = 0
    """Bytes written to standard output."""

    def problems(self) -> Iterator[Problem]:
        """Yield problems that would prevent saving, before anything is paid: a file is created and removed."""
        if self.is_stdout:
            yield from self._problems_of_stdout()
            return
        folder = self.out.parent if self.out is not None else Path()
        try:
            if not folder.is_dir():
                yield Problem("-o", f"the folder {str(folder)!r} does not exist; create it, or give another place")
            elif not os.access(folder, os.W_OK | os.X_OK):
                yield Problem("-o", f"the folder {str(folder)!r} is not writable; give another place")
            else:
                yield from self._problems_of_names()
                _reserve(folder, _ROOM * self.n)
        except OSError as error:
            where = str(folder if error.filename is None or self.out is None else self.out)
            yield Problem("-o", f"{where!r} can't be written to: {error.strerror}; give another place")

    @property
    def is_stdout(self) -> bool:
        """True if standard output was asked for, by ``-o -``."""
        return self.out == STDOUT

    def _problems_of_stdout(self) -> Iterator[Problem]:
        if self.n > 1:
            yield Problem("-o", f"- takes one output, not {self.n}; give a file")
        if not self.to_stdout:
            yield Problem("-o", "- can't be combined with --json, which also prints to standard output; give a file")
        elif stdout() is None:
            yield Problem("-o", "- is standard output, which is closed; give a file")
        elif is_terminal(stdout()):
            yield Problem("-o", "- is standard output, which is a terminal; redirect it, or give a file")

    def _problems_of_names(self) -> Iterator[Problem]:
        if self.out is None:
            return
        if self.out.is_dir():
            yield Problem("-o", f"{str(self.out)!r} is a folder; give the name of a file in it")
            return
        for path in map(self._numbered, range(self.n)):
            if path is None or (mode := _mode_of(path)) is None:
                continue
            if not stat.S_ISREG(mode):
                yield Problem("-o", f"{str(path)!r} is not a regular file; give another name")
            elif not self.force:
                yield Problem("-o", f"{str(path)!r} already exists; use -f to overwrite it")

    def save(self, artifact: Artifact, index: int = 0, *, mark: str = "") -> SavedArtifact:
        """Write one artifact, to another place if the wanted one can't be written, and return where it is."""
        path = self._path_of(artifact, index, mark)
        is_wanted = self.out is not None and not mark and index < self.n
        try:
            data = artifact.content.read()
            if self.is_stdout and is_wanted:
                _write_to_stdout(data)
                return SavedArtifact(artifact=artifact, path=None, place="standard output")
            saved = _write(path, data, overwrite=self.force and is_wanted)
        except OSError as error:
            return self._save_elsewhere(artifact, path, error)
        is_taken = is_wanted and saved != path
        trouble = f"{str(path)!r} was created during the call; the output is in {saved}" if is_taken else None
        return SavedArtifact(artifact=artifact, path=saved, place=str(saved), trouble=trouble)

    def keep(self, error: ImpastoError, index: int = 0) -> None:
        """Save the artifacts of an error and of those inside it, and add a note with their place to each."""
        for mark, artifact in _came_with(error):
            place = self._answers.get(artifact.data) if mark == "unusable" else None
            if place is None:
                place = self._answers[artifact.data] = self.save(artifact, index, mark=mark).place
            error.add_note(f"the output was saved in {place}")
        for inner in error.errors:
            self.keep(inner, index)

    def _save_elsewhere(self, artifact: Artifact, wanted: Path, error: OSError) -> SavedArtifact:
        data = artifact.content.read()
        for folder in _other_folders():
            try:
                saved = _write(Path(tempfile.mkdtemp(prefix="impasto-", dir=folder)) / wanted.name, data)
            except OSError:
                continue
            target = "standard output" if self.is_stdout else repr(str(wanted))
            trouble = f"{target} could not be written: {error.strerror}; the output is in {saved}"
            return SavedArtifact(artifact=artifact, path=saved, place=str(saved), trouble=trouble)
        why = f"{str(wanted)!r} could not be saved, nor anywhere else: {error.strerror}"
        if self.to_stdout and not self.is_stdout and not is_terminal(stdout()):
            try:
                _write_to_stdout(data)
            except (OSError, ValueError, AttributeError):  # it is closed, full, or no stream of bytes
                pass
            else:
                begin, self._at = self._at, self._at + len(data)
                return _without_file(artifact, f"standard output, bytes {begin} to {self._at} ({why})")
        seed = f"; its seed was {artifact.seed}" if artifact.seed is not None else ""
        return _without_file(artifact, f"no file ({why}{seed})")

    @property
    def used_stdout(self) -> bool:
        """True if standard output holds an artifact's bytes: then nothing else may be printed there."""
        return self._at > 0 or self.is_stdout

    def _path_of(self, artifact: Artifact, index: int, mark: str) -> Path:
        ending = EXTENSIONS.get(artifact.media_type, ".bin")
        path = None if self.is_stdout else self._numbered(index)
        if path is None:
            seed = f"-{artifact.seed}" if artifact.seed is not None else ""
            path = Path(self.model.rpartition("/")[2].replace(":", "-") + seed + ending)
        return path.with_name(f"{path.stem}-{mark}{ending}") if mark else path

    def _numbered(self, index: int) -> Path | None:
        if self.out is None or (self.n == 1 and index == 0):
            return self.out
        return self.out.with_name(f"{self.out.stem}-{index + 1}{self.out.suffix}")


def _without_file(artifact: Artifact, place: str) -> SavedArtifact:
    return SavedArtifact(artifact=artifact, path=None, place=place, trouble=f"the output is in {place}")


def _mode_of(path: Path) -> int | None:
    """Return the mode of the file at a path, or None without one. Raises OSError."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return stat.S_IFREG if path.is_symlink() else None  # a link to nowhere


def _reserve(folder: Path, size: int) -> None:
    """Take so much room of the disk for a moment. Raises OSError if there is less."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except (OSError, AttributeError) as error:  # macOS has none, and some file systems don't know it
            if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            file.write(b"\0")
            file.flush()


def _write_to_stdout(data: bytes) -> None:
    """Write to standard output past its buffer, whose leftovers would fail again at the exit."""
    stream = stdout()
    if stream is None:
        raise BrokenPipeError
    stream.flush()
    target = cast("IO[bytes]", getattr(stream.buffer, "raw", stream.buffer))
    left = memoryview(data)
    while left:
        if not (written := target.write(left)):
            raise BlockingIOError
        left = left[written:]
    target.flush()


def _other_folders() -> Iterator[Path | None]:
    yield None  # the folder for temporary files
    yield Path()
    try:
        yield Path.home()
    except RuntimeError:  # nobody's
        return


def _write(path: Path, data: bytes, *, overwrite: bool = False) -> Path:
    """Write a whole file or none, under the next free name if ``path`` is taken and not to be overwritten."""
    if overwrite:
        part = _write(path.with_name(f".impasto-{secrets.token_hex(8)}"), data)  # of a length that every disk takes
        try:
            return part.replace(path)
        except OSError:
            part.unlink()
            raise
    wanted, number = path, 1
    while True:
        try:
            file = path.open("xb")
        except FileExistsError:  # also one that came up while the image was made
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        else:
            break
    try:
        with file:
            file.write(data)
    except OSError:
        path.unlink()
        raise
    return path


def _came_with(error: ImpastoError) -> Iterator[tuple[str, Artifact]]:
    for artifact in error.artifacts:  # a blurred image, or the last partial one of a stream
        yield "filtered" if isinstance(error, ContentFiltered) else "partial", artifact
    if isinstance(error, UnusableResult | ChargeUnknown) and (error.raw or error.file is not None):
        data = error.raw or (error.file.read() if error.file is not None else b"")
        yield "unusable", Artifact(data=data, media_type=media_type_of(data[:16]) or "")
