"""Where a command puts its pictures. Nothing is overwritten unasked, and nothing that was paid for is dropped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import click

from impasto import Artifact, ChargeUnknown, ContentFiltered, ImpastoError, Problem, UnusableResult
from impasto.ext import media_type_of

_ENDINGS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
    "model/gltf-binary": ".glb",
}


@attrs.frozen(kw_only=True)
class Saving:
    """The names of a call's pictures: ``out``, numbered where ``n`` is above 1, or names made of model and seed."""

    model: str
    out: Path | None
    n: int = 1
    force: bool = False

    def problems(self) -> Iterator[Problem]:
        """What would stop the saving, found before anything is paid for."""
        folder = self.out.parent if self.out is not None else Path()
        if not folder.is_dir():
            yield Problem("-o", f"there is no folder {str(folder)!r}")
        elif not os.access(folder, os.W_OK):
            yield Problem("-o", f"the folder {str(folder)!r} can't be written to")
        elif self.out is None:
            return
        elif self.out.is_dir():
            yield Problem("-o", f"{str(self.out)!r} is a folder; give a file in it")
        elif not self.force:
            for path in map(self._numbered, range(self.n)):
                if path is not None and path.exists():
                    yield Problem("-o", f"{str(path)!r} exists; -f overwrites it")

    def save(self, artifact: Artifact, index: int = 0, *, mark: str = "") -> Path:
        """Writes one picture and returns its path, which is another where the wanted one can't be written.

        Raises ClickException where neither can.
        """
        path = self._named(artifact, index, mark)
        try:
            return _write(path, artifact.data, overwrite=self.force and self.out is not None and not mark)
        except OSError as error:
            try:
                return _write(Path(tempfile.mkdtemp(prefix="impasto-")) / path.name, artifact.data)
            except OSError:
                seed = f"; its seed was {artifact.seed}" if artifact.seed is not None else ""
                raise click.ClickException(f"{str(path)!r} could not be saved: {error.strerror}{seed}") from None

    def keep(self, error: ImpastoError, index: int = 0) -> None:
        """Saves what came with an error, or with the others of a fan-out, and notes on it where."""
        for each in (error, *error.errors):
            for mark, artifact in _came_with(each):
                path = self.save(artifact, index, mark=mark)
                each.add_note(f"what came is kept in {path}")

    def _named(self, artifact: Artifact, index: int, mark: str) -> Path:
        ending = _ENDINGS.get(artifact.media_type, ".bin")
        path = self._numbered(index)
        if path is None:
            seed = f"-{artifact.seed}" if artifact.seed is not None else ""
            path = Path(self.model.rpartition("/")[2].replace(":", "-") + seed + ending)
        return path.with_name(f"{path.stem}-{mark}{ending}") if mark else path

    def _numbered(self, index: int) -> Path | None:
        if self.out is None or self.n == 1:
            return self.out
        return self.out.with_name(f"{self.out.stem}-{index + 1}{self.out.suffix}")


def _write(path: Path, data: bytes, *, overwrite: bool = False) -> Path:
    """Writes a whole file or none, under the next free name where ``path`` is taken and not to be overwritten."""
    if overwrite:
        return _write(path.with_name(f"{path.name}.part"), data).replace(path)
    wanted, number = path, 1
    while True:
        try:
            file = path.open("xb")
        except FileExistsError:  # also one that came up while the picture was made
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
    if isinstance(error, ContentFiltered):
        for artifact in error.artifacts:
            yield "filtered", artifact
    elif isinstance(error, UnusableResult | ChargeUnknown) and error.raw:
        yield "unusable", Artifact(data=error.raw, media_type=media_type_of(error.raw[:16]) or "")
