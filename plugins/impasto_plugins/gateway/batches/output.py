"""What a batch leaves: lines in OpenAI's batch output shape.

A file of results holds no picture: each of its lines is a JSON list, in which text and names of picture files take
turns. The pictures are put in, as base64, while the file goes out: they are on the disk once, and never in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from impasto import File, ImpastoError
from impasto.ext import opened
from impasto_plugins.batch.ledger.log import Row
from impasto_plugins.gateway.api import response_body
from impasto_plugins.gateway.errors import INVALID, SERVER, Failure, failure_of

from .input_lines import Line

_PIECE = 1 << 18
_USAGE = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Told = Mapping[str, object]


class Refused(ImpastoError):
    """The gateway's own refusal of a picture: a limit of the key's. Nothing was sent."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def told(error: ImpastoError) -> Told:
    """What the ledger has of an error, so that it can be told as the path itself tells it."""
    failure = error.failure if isinstance(error, Refused) else failure_of(error)
    names = ("status", "type", "param", "code", "message")
    return {name: getattr(failure, name) for name in names}


@attrs.frozen(kw_only=True)
class Left:
    """What is said of a picture that was never asked for."""

    code: str
    message: str


CANCELLED = Left(code="batch_cancelled", message="the batch was cancelled before this was asked for")
EXPIRED = Left(code="batch_expired", message="this request could not be executed before the completion window expired")


@attrs.define(kw_only=True)
class Ended:
    """A line that is through: the last rows of its pictures, of those that were asked for.

    ``urls``: where the pictures that came are, if they were asked for as URLs. ``unfit``: why it can't be run any more.
    """

    line: Line
    rows: Sequence[Row]
    urls: Sequence[str] = ()
    notes: Sequence[str] = ()
    unfit: Failure | None = None

    @property
    def done(self) -> list[Row]:
        """Of pictures that came."""
        return [row for row in self.rows if row["row"] == "done"]

    def parts(self, left: Left) -> list[str]:
        """The line: text, and the names of pictures between it."""
        return self._made() if self.done else [_encode(self._failed(left)) + "\n"]

    def _made(self) -> list[str]:
        done = self.done
        parts = [
            f'{{"id":"{line_id(self.line.id)}","custom_id":{_encode(self.line.id)},"response":{{"status_code":200,'
        ]
        parts[0] += f'"request_id":{_encode(done[0]["request_id"])},"body":{{"created":{int(done[0]["at"])},"data":['
        for number, row in enumerate(done):
            parts[-1] += "," if number else ""
            if number < len(self.urls):
                parts[-1] += _encode({"url": self.urls[number], **_about(row)})
            else:
                parts[-1] += '{"b64_json":"'
                parts += [row["path"], f'",{_encode(_about(row))[1:]}']
        parts[-1] += f'],{_encode(self._rest())[1:]}}},"error":null}}\n'
        return parts

    def _rest(self) -> Told:
        done = self.done
        kinds = {row["media_type"].rpartition("/")[2] for row in done}
        costs = [row["usd"] for row in done]
        body: dict[str, Any] = {"output_format": kinds.pop()} if len(kinds) == 1 else {}
        body["usage"] = _USAGE
        body["cost_usd"] = None if None in costs else round(sum(costs), 10)
        if warnings := dict.fromkeys((*self.notes, *(each for row in done for each in row["warnings"]))):
            body["warnings"] = list(warnings)
        lost = [{"index": row["index"], **_error(row)} for row in self.rows if row["row"] != "done"]
        if lost:
            body["errors"] = lost
        return body

    def _failed(self, left: Left) -> Told:
        line: dict[str, object] = {"id": line_id(self.line.id), "custom_id": self.line.id, "response": None}
        if self.unfit is not None:
            failure = self.unfit
            response = {"status_code": failure.status, "request_id": line["id"], "body": failure.body()}
            error = {"code": failure.code, "message": failure.message, "billed": "no"}
            return {**line, "response": response, "error": error}
        if not self.rows:
            return {**line, "error": {"code": left.code, "message": left.message, "billed": "no"}}
        row = min(self.rows, key=lambda row: row["index"])
        told = _error(row)
        body = {"error": {name: told[name] for name in ("message", "type", "param", "code")}}
        response = {"status_code": row.get("status", 502), "request_id": row.get("request_id"), "body": body}
        return {**line, "response": response, "error": {name: told[name] for name in ("code", "message", "billed")}}


def line_id(id: str) -> str:
    """The id of a line of results."""
    return f"batch_req_{hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _about(row: Row) -> Told:
    names = ("seed", "finish_reason", "sha256", "bytes", "media_type")
    return {name: row[name] for name in names if row[name] is not None}


def _error(row: Row) -> dict[str, object]:
    """What came instead of a picture; of one whose job can't be fetched any more it is not known."""
    return {
        "message": row.get("message", "its job is still with the provider, under a key that is gone: see its account"),
        "type": row.get("type", SERVER if row.get("billed") != "no" else INVALID),
        "param": row.get("param"),
        "code": row.get("code", "charge_unknown"),
        "billed": row.get("billed", "unknown"),
    }


@attrs.define(eq=False)
class Writing:
    """A file of results on its way: whole, or not there. It is for a thread. ``size``: bytes as it will go out."""

    path: Path
    size: int = 0
    _file: BinaryIO | None = None

    def add(self, parts: Sequence[str]) -> None:
        """Writes a line. Raises OSError."""
        for number, part in enumerate(parts):
            is_text = number % 2 == 0
            size = len(part.encode()) if is_text else (self.path.parent / part).stat().st_size
            self.size += size if is_text else (size + 2) // 3 * 4
        if self._file is None:
            self._file = self._part.open("wb")
        self._file.write(json.dumps(parts).encode() + b"\n")

    def finish(self) -> bool:
        """Puts it in its place; False where nothing was written. Raises OSError."""
        if self._file is None:
            return False
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._file = None
        self._part.rename(self.path)
        return True

    def close(self) -> None:
        """Gives up what is not finished."""
        if self._file is not None:
            self._file.close()

    @property
    def _part(self) -> Path:
        return self.path.with_suffix(".part")


async def pieces(path: Path, *, composed: bool) -> AsyncIterator[bytes]:
    """The bytes of a file as they go out; ``composed``: of one of results. Raises OSError."""
    async with opened(lambda: path.open("rb")) as source:
        if not composed:
            while piece := await asyncio.to_thread(source.read, _PIECE):
                yield piece
            return
        while lines := await asyncio.to_thread(source.readlines, _PIECE):
            text = bytearray()
            for number, part in _parts(lines):
                if number % 2 == 0:
                    text += part.encode()
                    continue
                yield bytes(text)
                text.clear()
                picture = await asyncio.to_thread(File.of, path.parent / part)
                async for piece in response_body.pieces([picture]):
                    yield piece
            yield bytes(text)


def _parts(lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    for line in lines:
        yield from enumerate(json.loads(line))
