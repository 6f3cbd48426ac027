"""The file: one JSON object in each line, with a request and its answer."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from impasto import ConfigError, File, WireRequest, WireResponse

BASE_URL = "https://cassette.invalid"
"""Replaces the provider's address in the file, since a replay may have another one."""

_OMITTED_HEADERS = frozenset({"set-cookie", "content-length", "connection", "date"})


def request_record(wire: WireRequest) -> dict[str, object]:
    """Return a request without its account and its base URL, with files by their hash. Reads files."""
    target = wire.target if wire.url is None else wire.url.replace(wire.call.account.base_url, BASE_URL)
    fields = json.loads(json.dumps(dict(wire.fields), default=lambda ref: _digest(ref.file)))
    files = [[name, _digest(file)] for name, file in wire.files]
    return {"method": wire.method, "target": target, "fields": fields, "files": files}


class Tape:
    """The recorded calls. Equal requests are answered in their order; the last answer to a GET is repeated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, list[WireResponse]] = defaultdict(list)
        self._played: dict[str, int] = defaultdict(int)

    @classmethod
    def read(cls, path: Path) -> Tape:
        """Return the tape of a file, empty if the file does not exist. Raises ConfigError."""
        tape = cls(path)
        try:
            lines = path.read_text("utf-8").splitlines() if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cassette: can't read {str(path)!r}: {error}") from None
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                tape._answers[_key(row["request"])].append(_response(row["response"]))
            except (ValueError, LookupError, TypeError, AttributeError):
                raise ConfigError(f"cassette: line {number} of {str(path)!r} is not a recorded call") from None
        return tape

    def play(self, request: Mapping[str, object]) -> WireResponse | None:
        """Return the next answer to a request, or None if none is left."""
        key = _key(request)
        answers, played = self._answers.get(key, []), self._played[key]
        if request["method"] == "GET" and answers:
            played = min(played, len(answers) - 1)
        if played >= len(answers):
            return None
        self._played[key] = played + 1
        return answers[played]

    def record(
        self, request: Mapping[str, object], response: WireResponse, base_url: str, secrets: Sequence[str]
    ) -> None:
        """Append a call to the file. Secrets in the answer are masked."""
        body = replace_address(response, base_url, BASE_URL).body
        for secret in secrets:
            body = body.replace(secret.encode(), b"*" * 8)
        headers = {name: value for name, value in response.headers.items() if name not in _OMITTED_HEADERS}
        row = {
            "request": request,
            "response": {
                "status": response.status,
                "headers": {n: value for n, value in headers.items() if not any(each in value for each in secrets)},
                "body": base64.b64encode(body).decode("ascii"),
            },
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _digest(file: File) -> str:
    digest = hashlib.sha256()
    with file.open() as source:
        while piece := source.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def replace_address(response: WireResponse, base_url: str, other: str) -> WireResponse:
    """Return the answer with another host in its addresses, if it is JSON."""
    if response.media_type != "application/json" or base_url.encode() not in response.body:
        return response
    body = response.body.replace(base_url.encode(), other.encode())
    return WireResponse(status=response.status, headers=response.headers, body=body)


def _key(request: Mapping[str, object]) -> str:
    return json.dumps(request, sort_keys=True)


def _response(row: Any) -> WireResponse:
    headers = {str(name): str(value) for name, value in dict(row["headers"]).items()}
    return WireResponse(status=int(row["status"]), headers=headers, body=base64.b64decode(row["body"], validate=True))
