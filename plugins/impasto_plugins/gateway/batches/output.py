"""Output files of a batch: lines in OpenAI's batch output shape.

A results file holds no image: each of its lines is a JSON list in which text and names of image files alternate. The
images are inserted, as base64, while the file is downloaded: they are on the disk once, and never in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from impasto import File, ImpastoError
from impasto_plugins.batch.ledger.log import Row
from impasto_plugins.batch.output.results import usage_of
from impasto_plugins.concurrency import open_in_thread
from impasto_plugins.gateway.api import response_body
from impasto_plugins.gateway.errors import INVALID, SERVER, APIError, to_api_error

from .input_lines import InputLine

_CHUNK_BYTES = 1 << 18
_USAGE = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Payload = Mapping[str, object]


class KeyLimitRefusal(ImpastoError):
    """The gateway's own refusal of an image: a limit of the key. Nothing was sent."""

    def __init__(self, failure: APIError) -> None:
        super().__init__(failure.message)
        self.failure = failure


def to_openai_error(error: ImpastoError) -> Payload:
    """Return the ledger's data of an error, enough to return the endpoint's own error later."""
    failure = error.failure if isinstance(error, KeyLimitRefusal) else to_api_error(error)
    names = ("status", "type", "param", "code", "message")
    return {name: getattr(failure, name) for name in names}


@attrs.frozen(kw_only=True)
class UnprocessedReason:
    """The reason for an image that was never requested."""

    code: str
    message: str


BATCH_CANCELLED = UnprocessedReason(code="batch_cancelled", message="the batch was cancelled before this was requested")
BATCH_EXPIRED = UnprocessedReason(
    code="batch_expired", message="this request could not be executed before the completion window expired"
)


@attrs.define(kw_only=True)
class FinishedLine:
    """A finished line: the last rows of its images, of those that were requested.

    ``urls``: URLs of its images, if requested. ``error``: the reason why it can't be run any more. ``places``: by the
    index of an image that did not come, the end of its message that names the file of what came instead.
    """

    line: InputLine
    rows: Sequence[Row]
    urls: Sequence[str] = ()
    notes: Sequence[str] = ()
    error: APIError | None = None
    places: dict[int, str] = attrs.field(factory=dict[int, str])

    @property
    def done_rows(self) -> list[Row]:
        """Rows of images that came."""
        return [row for row in self.rows if row["row"] == "done"]

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of the images that came, by name."""
        return {row["path"]: row["bytes"] for row in self.done_rows}

    @property
    def failed_rows(self) -> list[Row]:
        """Rows of images that did not come."""
        return [row for row in self.rows if row["row"] != "done"]

    def parts(self, unprocessed_reason: UnprocessedReason) -> list[str]:
        """Return the line: text, and the names of images between it."""
        return self._success_parts() if self.done_rows else [_encode(self._error_line(unprocessed_reason)) + "\n"]

    def _success_parts(self) -> list[str]:
        rows = self.done_rows
        parts = [
            f'{{"id":"{line_id(self.line.id)}","custom_id":{_encode(self.line.id)},"response":{{"status_code":200,'
        ]
        parts[0] += f'"request_id":{_encode(rows[0]["request_id"])},"body":{{"created":{int(rows[0]["at"])},"data":['
        for number, row in enumerate(rows):
            parts[-1] += "," if number else ""
            if number < len(self.urls):
                parts[-1] += _encode({"url": self.urls[number], **_image_fields(row)})
            else:
                parts[-1] += '{"b64_json":"'
                parts += [row["path"], f'",{_encode(_image_fields(row))[1:]}']
        parts[-1] += f'],{_encode(self._success_fields())[1:]}}},"error":null}}\n'
        return parts

    def _success_fields(self) -> Payload:
        rows = self.done_rows
        formats = {row["media_type"].rpartition("/")[2] for row in rows}
        costs = [row["usd"] for row in self.rows if row["row"] == "done" or _billed(row) == "yes"]
        body: dict[str, Any] = {"output_format": formats.pop()} if len(formats) == 1 else {}
        body["usage"] = usage_of(rows) or _USAGE
        body["cost_usd"] = None if None in costs else round(sum(costs), 10)
        if warnings := dict.fromkeys((*self.notes, *(each for row in rows for each in row["warnings"]))):
            body["warnings"] = list(warnings)
        errors = [
            {"index": row["index"], **_error_fields(row, self.places.get(row["index"], ""))} for row in self.failed_rows
        ]
        if errors:
            body["errors"] = errors
        return body

    def _error_line(self, unprocessed_reason: UnprocessedReason) -> Payload:
        line: dict[str, object] = {"id": line_id(self.line.id), "custom_id": self.line.id, "response": None}
        if self.error is not None:
            failure = self.error
            response = {"status_code": failure.status, "request_id": line["id"], "body": failure.to_json()}
            error = {"code": failure.code, "message": failure.message, "billed": "no"}
            return {**line, "response": response, "error": error}
        if not self.rows:
            return {
                **line,
                "error": {"code": unprocessed_reason.code, "message": unprocessed_reason.message, "billed": "no"},
            }
        row = min(self.rows, key=lambda row: (row.get("billed") == "no", row["index"]))  # money comes first
        error_fields = _error_fields(row, "".join(dict.fromkeys(self.places.values())))
        body = {"error": {name: error_fields[name] for name in ("message", "type", "param", "code")}}
        response = {"status_code": row.get("status", 502), "request_id": row.get("request_id"), "body": body}
        return {
            **line,
            "response": response,
            "error": {name: error_fields[name] for name in ("code", "message", "billed")},
        }


def line_id(id: str) -> str:
    """Return the id of a line of results."""
    return f"batch_req_{hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _image_fields(row: Row) -> Payload:
    names = ("revised_prompt", "seed", "finish_reason", "sha256", "bytes", "media_type")
    return {name: row[name] for name in names if row.get(name) is not None}


def _error_fields(row: Row, place: str) -> dict[str, object]:
    """Return the error in place of an image; the outcome of a job that can't be fetched any more is unknown."""
    message = row.get("message") or row.get(
        "unfetched",
        "its job is still at the provider, and its key is no longer configured; look at the provider's account",
    )
    return {
        "message": message + place,
        "type": row.get("type", SERVER if row.get("billed") != "no" else INVALID),
        "param": row.get("param"),
        "code": row.get("code", "charge_unknown"),
        "billed": _billed(row),
    }


def _billed(row: Row) -> str:
    """Return ``billed`` of an image's last row; a job's has none."""
    return str(row.get("billed", "yes" if "unfetched" in row else "unknown"))


@attrs.define(eq=False)
class ResultsFile:
    """A results file that is being written: whole, or absent. Use it in a thread. ``size``: bytes after insertion."""

    path: Path
    size: int = 0
    _file: BinaryIO | None = None

    def add(self, parts: Sequence[str], sizes: Mapping[str, int]) -> None:
        """Write a line. ``sizes``: bytes of its images by name. Raises OSError."""
        for number, part in enumerate(parts):
            self.size += len(part.encode()) if number % 2 == 0 else (sizes[part] + 2) // 3 * 4
        if self._file is None:
            self._file = self._part.open("wb")
        self._file.write(json.dumps(parts).encode() + b"\n")

    def finish(self) -> bool:
        """Rename it to its place; return False if nothing was written. Raises OSError."""
        if self._file is None:
            return False
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._file = None
        self._part.rename(self.path)
        return True

    def close(self) -> None:
        """Delete an unfinished file."""
        if self._file is not None:
            self._file.close()

    @property
    def _part(self) -> Path:
        return self.path.with_suffix(".part")


async def read_content(file: File, open_image: Callable[[str], Awaitable[File]] | None) -> AsyncIterator[bytes]:
    """Yield the bytes of a file. ``open_image``: it is a results file, into which these images are inserted.

    Raises OSError, and the errors of ``open_image``.
    """
    async with open_in_thread(file.open) as source:
        if open_image is None:
            while chunk := await asyncio.to_thread(source.read, _CHUNK_BYTES):
                yield chunk
            return
        while lines := await asyncio.to_thread(source.readlines, _CHUNK_BYTES):
            text = bytearray()
            for number, part in _parts(lines):
                if number % 2 == 0:
                    text += part.encode()
                    continue
                yield bytes(text)
                text.clear()
                image = await open_image(part)
                try:
                    async for chunk in response_body.encode_segments([image]):
                        yield chunk
                finally:
                    image.close()
            yield bytes(text)


def _parts(lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    for line in lines:
        yield from enumerate(json.loads(line))
