"""What makes two requests the same: who asks, and the parsed fields with the files' contents, or an Idempotency-Key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re

import attrs
from aiohttp import web

from impasto import File
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.arguments import Asked
from impasto_plugins.gateway.errors import Failure

KEY_HEADER = "Idempotency-Key"
COUNT_HEADER = "x-stainless-retry-count"
"""OpenAI's SDKs count their attempts in it, from 0."""

_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_COUNT = re.compile(r"[0-9]{1,6}")
_SMALL = 64 * 1024


@attrs.frozen(kw_only=True, eq=False)
class Identity:
    """A request's. ``content`` is what it asks for, and of whom; ``key``, where it has one, what it must be known by.

    ``owner`` is the hash of the key of whoever asks. ``count`` is that of an SDK's attempt, None where no SDK asks.
    """

    request: web.BaseRequest
    owner: bytes
    content: bytes
    key: bytes | None
    count: int | None

    @classmethod
    async def of(cls, request: web.BaseRequest, caller: Caller, kind: str, asked: Asked) -> Identity:
        """Raises Failure where the headers that belong to it are wrong."""
        given = request.headers.getall(KEY_HEADER, [])
        if given and (len(given) > 1 or _KEY.fullmatch(given[0]) is None):
            said = f"{KEY_HEADER}: must be one header of 1 to 255 printable ASCII characters"
            raise Failure(400, said, code="invalid_value", param=KEY_HEADER)
        count = _COUNT.fullmatch(request.headers.get(COUNT_HEADER, ""))
        size = request.content_length
        if size is not None and size < _SMALL and not asked.reads_disk:
            content = _content(caller, kind, asked)
        else:
            content = await asyncio.to_thread(_content, caller, kind, asked)
        key = hashlib.sha256(b"key\0" + caller.digest + given[0].encode()).digest() if given else None
        return cls(
            request=request,
            owner=caller.digest,
            content=content,
            key=key,
            count=int(count[0]) if count is not None else None,
        )


def _content(caller: Caller, kind: str, asked: Asked) -> bytes:
    whole = [kind, asked.model, asked.stream, asked.given]
    return hashlib.sha256(caller.digest + _json(whole).encode()).digest()


def _hashed(file: File) -> str:
    with file.open() as source:
        return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto where it matters


_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_hashed).encode
