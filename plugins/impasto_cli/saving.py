"""Where a command puts its pictures. Nothing is overwritten unasked, and nothing that was paid for is dropped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from impasto import Artifact, ChargeUnknown, ContentFiltered, ImpastoError, Problem, UnusableResult
from impasto.files import media_type_of

_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


@attrs.frozen(kw_only=True)
class Saving:
    """The names of a call's pictures: ``out``, numbered where ``n`` is above 1, or names made of model and seed."""

    model: str
    out: Path | None
    n: int = 1
    force: bool = False

    def problems(self) -> Iterator[Problem]:
        """What would stop the saving, found before anything is paid for."""
        if self.out is None:
            return
        folder = self.out.parent
        if not folder.is_dir():
            yield Problem("-o", f"there is no folder {str(folder)!r}")
        elif self.out.is_dir():
            yield Problem("-o", f"{str(self.out)!r} is a folder; give a file in it")
        elif not self.force:
            for path in map(self._numbered, range(self.n)):
                if path is not None and path.exists():
                    yield Problem("-o", f"{str(path)!r} exists; -f overwrites it")

    def save(self, artifact: Artifact, index: int = 0, *, mark: str = "") -> Path:
        """Writes one picture and returns its path, which is another where the wanted one can't be written."""
        path = self._numbered(index)
        ending = _ENDINGS.get(artifact.media_type, ".bin")
        if path is None:
            seed = f"-{artifact.seed}" if artifact.seed is not None else ""
            path = Path(self.model.rpartition("/")[2].replace(":", "-") + seed + ending)
        if mark:
            path = path.with_name(f"{path.stem}-{mark}{ending}")
        free = self.out is None or bool(mark)
        try:
            return _write(path, artifact.data, free=free, force=self.force)
        except OSError:
            return _write(Path(tempfile.mkdtemp(prefix="impasto-")) / path.name, artifact.data, free=True)

    def keep(self, error: ImpastoError, index: int = 0) -> None:
        """Saves what came with an error, or with the others of a fan-out, and notes on it where."""
        for each in (error, *error.errors):
            for mark, artifact in _came_with(each):
                path = self.save(artifact, index, mark=mark)
                each.add_note(f"what came is kept in {path}")

    def _numbered(self, index: int) -> Path | None:
        if self.out is None or self.n == 1:
            return self.out
        return self.out.with_name(f"{self.out.stem}-{index + 1}{self.out.suffix}")


def _write(path: Path, data: bytes, *, free: bool, force: bool = False) -> Path:
    """Writes the file. ``free``: under the next free name; else ``force`` says whether to overwrite."""
    if force and not free:
        path.write_bytes(data)
        return path
    wanted, number = path, 1
    while True:
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:  # also one that came up while the picture was made
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        else:
            return path


def _came_with(error: ImpastoError) -> Iterator[tuple[str, Artifact]]:
    if isinstance(error, ContentFiltered):
        for artifact in error.artifacts:
            yield "filtered", artifact
    elif isinstance(error, UnusableResult | ChargeUnknown) and error.raw:
        yield "unusable", Artifact(data=error.raw, media_type=media_type_of(error.raw[:16]) or "")
