"""The fingerprint of a request: its caller, and the parsed fields with the files' contents, or an Idempotency-Key."""

from __future__ import annotations

import asyncio
import hashlib
import re

import attrs
from aiohttp import web

from impasto_plugins.fingerprints import IDEMPOTENCY_KEY, canonical_json
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.arguments import CallArguments
from impasto_plugins.gateway.errors import APIError

KEY_HEADER = "Idempotency-Key"
COUNT_HEADER = "x-stainless-retry-count"
"""The header in which OpenAI's SDKs count their attempts, from 0."""

_COUNT = re.compile(r"[0-9]{1,6}")
_SMALL_BODY_BYTES = 64 * 1024


@attrs.frozen(kw_only=True, eq=False)
class Fingerprint:
    """A request's fingerprint. ``content`` is that of its content and caller; ``key`` that of its idempotency key.

    ``owner`` is the hash of the caller's key. ``count`` is that of an SDK's attempt, None without an SDK.
    """

    request: web.BaseRequest
    owner: bytes
    content: bytes
    key: bytes | None
    count: int | None

    @classmethod
    async def create(cls, request: web.BaseRequest, caller: Caller, kind: str, call_args: CallArguments) -> Fingerprint:
        """Return the fingerprint of a request. Raises APIError if its headers are invalid."""
        keys = request.headers.getall(KEY_HEADER, [])
        if keys and (len(keys) > 1 or IDEMPOTENCY_KEY.fullmatch(keys[0]) is None):
            message = f"{KEY_HEADER}: must be one header of 1 to 255 printable ASCII characters"
            raise APIError(400, message, code="invalid_value", param=KEY_HEADER)
        count = _COUNT.fullmatch(request.headers.get(COUNT_HEADER, ""))
        size = request.content_length
        if size is not None and size < _SMALL_BODY_BYTES and not call_args.has_disk_files:
            content = _hash_content(caller, kind, call_args)
        else:
            content = await asyncio.to_thread(_hash_content, caller, kind, call_args)
        key = hashlib.sha256(b"key\0" + caller.digest + keys[0].encode()).digest() if keys else None
        return cls(
            request=request,
            owner=caller.digest,
            content=content,
            key=key,
            count=int(count[0]) if count is not None else None,
        )


def _hash_content(caller: Caller, kind: str, call_args: CallArguments) -> bytes:
    values = [kind, call_args.model, call_args.stream, call_args.params]
    return hashlib.sha256(caller.digest + canonical_json(values).encode()).digest()
