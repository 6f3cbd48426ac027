"""Helpers for authors of providers, made of public records only. A plugin that uses none of them is as good."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping

import attrs

from .errors import ChargeUnknown, ImpastoError, RateLimited, ResponseError, Unauthorized, UnusableResult
from .files import File, media_type_of
from .operation import Operation
from .records import Artifact, FailedArtifact, Pending, Result
from .redact import printable
from .retry_after import retry_after
from .tokens import Token, TokenCache
from .wire import JSONValue, WireRequest, WireResponse

__all__ = [
    "DATA_URI",
    "Place",
    "Refusals",
    "Token",
    "TokenCache",
    "charge_unknown",
    "decode_base64",
    "images_from_base64",
    "json_object",
    "pending_from_url",
    "split_files",
    "unusable",
]

Place = str | tuple[str, ...]
"""The place of a text in a JSON answer: ``error.message``, or ``errors[].message`` in a list; or several places."""


class Refusals:
    """A provider's refusals. Called with an answer that is no success, it returns the error that the answer means.

    ``kinds`` maps a status, a code, or both to a class of errors; the most exact entry counts. ``message`` and ``code``
    are the places of both texts, ``required`` those of texts that each refusal has. An answer without a message, or
    without an entry, is not the provider's own refusal: a proxy's page proves nothing, and becomes ChargeUnknown.
    ``advice`` explains a status. The message of a 401 is left out, since it may repeat the key.

        refusals = Refusals(
            {400: BadRequest, (400, "moderation"): ContentFiltered, 401: Unauthorized, 429: RateLimited},
            message="error.message", code="error.code", advice={401: "check ACME_API_KEY"},
        )
    """

    def __init__(
        self,
        kinds: Mapping[int | str | tuple[int, str], type[ResponseError]],
        *,
        message: Place = "error.message",
        code: Place = "error.code",
        required: tuple[str, ...] = (),
        advice: Mapping[int, str] | None = None,
    ) -> None:
        self._kinds, self._message, self._code = kinds, message, code
        self._required, self._advice = required, advice or {}

    def __call__(self, response: WireResponse) -> ImpastoError:
        """Return the refusal, or ChargeUnknown."""
        return self.find(response) or charge_unknown(response)

    def find(self, response: WireResponse) -> ResponseError | None:
        """Return the refusal, or None if the answer is not one of the provider's own."""
        body = _parse(response.body) if response.media_type == "application/json" else None
        status, messages = response.status, _texts(body, self._message)
        if messages is None or status < 400 or not all(_texts(body, place) for place in self._required):
            return None
        code = next(iter(_texts(body, self._code) or ()), "")
        kind = self._kinds.get((status, code)) or self._kinds.get(code) or self._kinds.get(status)
        if kind is None:
            return None
        if kind is Unauthorized:
            messages = ()
        explanation = "; ".join(messages) or self._advice.get(status, "no reason given")
        error = kind(
            f"{code} (HTTP {status}): {explanation}" if code else f"HTTP {status}: {explanation}",
            status=status,
            name=code or None,
            messages=messages,
            request_id=response.request_id,
        )
        if isinstance(error, RateLimited):
            error.retry_after = retry_after(response.headers)
        return error


def charge_unknown(response: WireResponse) -> ChargeUnknown:
    """Return the error for an answer that is not the provider's own."""
    media_type = printable(response.media_type[:60]) or "no media type"
    return ChargeUnknown(
        f"HTTP {response.status} ({media_type}) is not the provider's own answer; it may have been charged",
        status=response.status,
        raw=response.body,
        request_id=response.request_id,
    )


def unusable(problem: str, response: WireResponse) -> UnusableResult:
    """Return the error for a paid answer without a usable result, such as "has no image". It has the answer's bytes."""
    size, attribute = (len(response.body), "raw") if response.file is None else (response.file.size, "file")
    return UnusableResult(
        f"the answer {problem}; it was charged, and its {size:,} bytes are in the error's .{attribute}",
        raw=response.body,
        media_type=response.media_type,
        request_id=response.request_id,
    )


def json_object(response: WireResponse) -> Mapping[str, object]:
    """Return the JSON object of a paid answer. Raises UnusableResult."""
    body = _parse(response.body)
    if not isinstance(body, dict):
        raise unusable("is invalid JSON" if body is _INVALID else "is JSON, but not an object", response)
    return body


def split_files(
    operation: Operation, params: attrs.AttrsInstance, wire_names: Mapping[str, str] | None = None
) -> tuple[dict[str, JSONValue], list[tuple[str, File]]]:
    """Return the fields that the caller gave, and apart from them the files; several of one field repeat its name.

    ``wire_names``: names on the wire that differ from the parameters'.
    """
    fields: dict[str, JSONValue] = {}
    files: list[tuple[str, File]] = []
    for name in operation.fields:
        value, wire_name = getattr(params, name), (wire_names or {}).get(name, name)
        if isinstance(value, File):
            files.append((wire_name, value))
        elif isinstance(value, tuple) and value and all(isinstance(each, File) for each in value):
            files += [(wire_name, each) for each in value]
        elif value is not None:
            fields[wire_name] = value
    return fields, files


def images_from_base64(
    texts: Iterable[object], response: WireResponse, is_complete: Callable[[bytes, str], bool]
) -> Result:
    """Return the images of a paid answer, each a base64 text. A damaged one drops no other: it is in ``errors``.

    ``is_complete(data, media_type)`` returns False for an image that is cut short. Raises UnusableResult if no image
    is usable.
    """
    artifacts: list[Artifact] = []
    errors: list[FailedArtifact] = []
    for index, text in enumerate(texts):
        try:
            data = decode_base64(text) if isinstance(text, str) else b""
        except ValueError:
            data = b""
        media_type = media_type_of(data[:16])
        if media_type is not None and is_complete(data, media_type):
            artifacts.append(Artifact(data=data, media_type=media_type))
        else:
            errors.append(FailedArtifact(index=index, error=unusable(f"has no complete image {index}", response)))
    if not artifacts:
        raise unusable("has no complete image", response)
    return Result(artifacts=tuple(artifacts), errors=tuple(errors), request_id=response.request_id)


def pending_from_url(
    url: object,
    response: WireResponse,
    *,
    id: str,
    anonymous: bool = False,
    result_ttl: float | None = None,
    is_ready: bool = False,
) -> Pending:
    """Return a Pending whose poll is a GET of a whole address in an answer. Raises UnusableResult if it is no text.

    The route lets it lead to the provider's own hosts only. ``anonymous``: without the key.
    """
    if not isinstance(url, str) or not url:
        raise unusable("has no address of the result", response)
    poll = WireRequest(url=url, method="GET", anonymous=anonymous)
    return Pending(id=id, poll=poll, result_ttl=result_ttl, is_ready=is_ready)


DATA_URI = re.compile(rb"data:[^,\"]{0,200},", re.IGNORECASE)
"""The beginning of a ``data:`` URI. Its media type is ignored: the content has its own."""

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """Decode base64 of either alphabet, also in a ``data:`` URI, with line breaks in it, or without its padding.

    Raises:
        ValueError: bytes are missing or damaged.
    """
    data = text.encode("ascii")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        pass
    data = data.strip()
    if (prefix := DATA_URI.match(data)) is not None:
        data = data[prefix.end() :]
    if b"%" in data:
        from urllib.parse import unquote_to_bytes  # only for URIs that quote + and =

        data = unquote_to_bytes(data)
    data = b"".join(data.split()).translate(_TO_STANDARD).rstrip(b"=")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)


def _parse(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _INVALID


_INVALID = object()


def _texts(body: object, places: Place) -> tuple[str, ...] | None:
    """Return the texts at the first place that has any, or None."""
    for place in (places,) if isinstance(places, str) else places:
        found: list[object] | None = [body]
        for name in place.split("."):
            found = _step(found, name)
        if found is not None:
            texts = tuple(printable(each) for each in found[:_MAX_TEXTS] if isinstance(each, str))
            return texts if texts or place.endswith("[]") else None
    return None


def _step(values: list[object] | None, name: str) -> list[object] | None:
    """Return what has this name in each of the values; of a list (``name[]``) its entries."""
    key = name.removesuffix("[]")
    found = [value[key] for value in values or () if isinstance(value, dict) and key in value]
    if key == name:
        return found if found and not isinstance(found[0], list) else None
    lists = [value for value in found if isinstance(value, list)]
    return [each for value in lists for each in value] if lists else None


_MAX_TEXTS = 10
