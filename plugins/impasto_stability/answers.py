"""From a complete answer to a result: what the direct route and Bedrock share."""

from __future__ import annotations

from impasto import Artifact, ContentFiltered, File, Result, UnusableResult, WireResponse
from impasto.files import media_type_of
from impasto.redact import printable
from impasto_pictures.complete import is_complete

PICTURES = frozenset({"image/png", "image/jpeg", "image/webp"})
FILTERED = "CONTENT_FILTERED"


def request_id(response: WireResponse) -> str | None:
    """The provider's id of the exchange, safe to log."""
    given = response.request_id
    return printable(given) if given is not None else None


def picture(response: WireResponse, data: bytes | File, reason: object, seed: object) -> Result:
    """The result of a complete answer. Raises UnusableResult or ContentFiltered."""
    file = data if isinstance(data, File) else None
    media_type = media_type_of(data[:16]) if isinstance(data, bytes) else data.media_type
    if media_type is None or media_type not in PICTURES:
        raise unusable("is no picture", response)
    if not is_complete(data, media_type):
        raise unusable("holds a picture cut short", response)
    artifact = Artifact(
        data=data if isinstance(data, bytes) else b"",
        media_type=media_type,
        seed=_seed(seed),
        finish_reason=printable(reason) if isinstance(reason, str) else None,
        file=file,
    )
    if reason == FILTERED:
        error = ContentFiltered(
            "the picture broke the provider's content policy and came back blurred",
            status=response.status,
            name=FILTERED,
            request_id=request_id(response),
        )
        error.artifacts = (artifact,)
        error.billed = "unknown"
        raise error
    return Result(artifacts=(artifact,), request_id=request_id(response))


def _seed(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if type(value) is int else None


def unusable(what: str, response: WireResponse) -> UnusableResult:
    """The error of an answer that was paid for and holds no usable picture; its bytes are kept."""
    size, where = (len(response.body), "raw") if response.file is None else (response.file.size, "file")
    return UnusableResult(
        f"the answer {what}; it was paid for, and its {size:,} bytes are kept in .{where}",
        raw=response.body,
        media_type=response.media_type,
        request_id=request_id(response),
    )
