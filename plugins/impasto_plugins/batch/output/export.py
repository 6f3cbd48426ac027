"""Training sets from a batch: images with their requests, as Parquet or WebDataset shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Literal

from impasto import ConfigError, MissingExtra
from impasto.ext import EXTENSIONS
from impasto_plugins.batch.ledger.log import Row
from impasto_plugins.batch.ledger.workspace import LedgerHistory, WorkspacePaths
from impasto_plugins.cli.terminal.output import count_of

from .results import final_rows

Form = Literal["parquet", "webdataset"]
A_SHARD = 1_000
"""Images in a shard."""

_AT_ONCE = 100
_NOTED = ("id", "index", "model", "seed", "sha256", "media_type", "finish_reason", "usd")

DoneRow = tuple[Row, Mapping[str, object]]


def export(history: LedgerHistory, out: Path, form: Form, *, shard: int = A_SHARD) -> list[Path]:
    """Write the shards into a new folder and return their paths. Raises ConfigError, MissingExtra, OSError."""
    layout = history.layout
    _check_here(layout, history)
    write = _parquet() if form == "parquet" else _tar
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(f"{str(out)!r} exists; give a folder that does not exist") from None
    done = _done_rows(layout, history)
    written: list[Path] = []
    while piece := list(islice(done, shard)):
        path = out / f"{len(written):05d}.{'parquet' if form == 'parquet' else 'tar'}"
        write(layout, path, piece)
        written.append(path)
    return written


def _check_here(layout: WorkspacePaths, history: LedgerHistory) -> None:
    """Raise ConfigError if images are in a bucket and not in the folder."""
    target = history.run["target"] if history.run is not None and "target" in history.run else None
    if target is None:
        return
    done = (row for row, _ in final_rows(layout, history.images) if row["row"] == "done")
    if missing := sum(not (layout.root / row["path"]).is_file() for row in done):
        raise ConfigError(
            f"{target} has {count_of(missing, 'image')} that the local folder lacks: copy them first, for example with"
            f" aws s3 sync {quote(target)} {quote(str(layout.root))}"
        )


def _done_rows(layout: WorkspacePaths, history: LedgerHistory) -> Iterator[DoneRow]:
    missing = {(row["id"], row["index"]) for row in history.missing}
    for row, intent in final_rows(layout, history.images):
        if row["row"] == "done" and (row["id"], row["index"]) not in missing:
            yield row, intent["request"] if intent is not None else {}


def _facts(row: Row, request: Mapping[str, object]) -> dict[str, object]:
    return {**{name: row[name] for name in _NOTED}, "prompt": request.get("prompt"), "request": request}


def _tar(layout: WorkspacePaths, path: Path, piece: list[DoneRow]) -> None:
    """Write samples: KEY.png (or its format), KEY.json with all facts, KEY.txt with the prompt."""
    with tarfile.open(path, "w") as tar:
        for number, (row, request) in enumerate(piece):
            key = f"{path.stem}-{number:06d}"
            facts = _facts(row, request)
            _add(tar, key + EXTENSIONS.get(row["media_type"], ".bin"), (layout.root / row["path"]).read_bytes())
            _add(tar, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace"))
            _add(tar, f"{key}.txt", str(facts["prompt"] or "").encode("utf-8", "replace"))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _parquet() -> Callable[[WorkspacePaths, Path, list[DoneRow]], None]:
    """Return the writer of Parquet shards, with an ``image`` column as in image data sets. Raises MissingExtra."""
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types; an extra
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise MissingExtra("Parquet needs pyarrow: pip install 'impasto[batch]'") from None
    text, whole = pa.string(), pa.int64()
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", text)])),
            ("id", text), ("index", whole), ("model", text), ("prompt", text), ("seed", whole), ("sha256", text),
            ("media_type", text), ("finish_reason", text), ("usd", pa.float64()), ("request", text),
        ]
    )  # fmt: skip

    def write(layout: WorkspacePaths, path: Path, piece: list[DoneRow]) -> None:
        with parquet.ParquetWriter(path, schema) as writer:
            for first in range(0, len(piece), _AT_ONCE):
                rows = [_row(layout, *facts) for facts in piece[first : first + _AT_ONCE]]
                writer.write_table(pa.Table.from_pylist(rows, schema))

    return write


def _row(layout: WorkspacePaths, row: Row, request: Mapping[str, object]) -> dict[str, object]:
    facts = _facts(row, request)
    image = {"bytes": (layout.root / row["path"]).read_bytes(), "path": row["path"]}
    return {**facts, "image": image, "request": json.dumps(request, ensure_ascii=False)}
