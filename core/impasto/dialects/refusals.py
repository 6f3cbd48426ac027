"""The refusals of a provider, as a table: the error that an answer means by the provider's own form."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from impasto.advice import bytes_advice
from impasto.errors import (
    BadRequest,
    Billed,
    ChargeUnknown,
    ImpastoError,
    NotFound,
    PaymentRequired,
    PermissionDenied,
    ProviderFault,
    RateLimited,
    ResponseError,
    TooLarge,
    Unauthorized,
    Unprocessable,
    UnusableResult,
)
from impasto.redact import printable
from impasto.retry_after import bounded_wait, retry_after
from impasto.server_events import ServerEvent
from impasto.wire import WireResponse

Entry = TypeVar("Entry")

Kinds = Mapping[int | str | tuple[int, str], type[ResponseError]]
STATUSES: Kinds = {
    400: BadRequest,
    401: Unauthorized,
    402: PaymentRequired,
    403: PermissionDenied,
    404: NotFound,
    413: TooLarge,
    422: Unprocessable,
    429: RateLimited,
    500: ProviderFault,
    503: ProviderFault,
}
"""The usual meaning of a status, for tables of refusals: ``Refusals({**STATUSES, (400, "moderation"): ...})``."""

Advice = Mapping[int | str | tuple[int, str], str]

Place = str | tuple[str, ...]
"""The place of a text in a JSON answer: ``error.message``, or ``errors[].message`` in a list; or several places."""


class Refusals:
    """A provider's refusals. Called with an answer that is not a success, it returns the error that the answer means.

    ``kinds`` maps a status, a code, or both to a class of errors; the most exact entry counts. ``message`` and ``code``
    are the places of both texts, ``required`` those of texts that each refusal has. An answer without a message, or
    without an entry, is not the provider's own refusal: a proxy's page proves nothing, and becomes ChargeUnknown.
    ``advice`` explains them, by the same keys. The message of an Unauthorized is left out: it may repeat the key.
    ``media_types`` are those of the provider's refusals, such as ``application/problem+json``. ``retry_after`` is the
    place of the seconds to wait, such as ``error.details[].retryDelay``, for answers without the header.

        refusals = Refusals(
            {400: BadRequest, (400, "moderation"): ContentFiltered, 401: Unauthorized, 429: RateLimited},
            message="error.message", code="error.code", advice={401: "check ACME_API_KEY"},
        )
    """

    def __init__(
        self,
        kinds: Kinds,
        *,
        message: Place = "error.message",
        code: Place = "error.code",
        required: tuple[str, ...] = (),
        advice: Advice | None = None,
        media_types: Collection[str] = ("application/json",),
        retry_after: str | None = None,
    ) -> None:
        self._kinds, self._message, self._code = kinds, message, code
        self._required, self._advice, self._media_types = required, advice or {}, media_types
        self._retry_after = retry_after

    def __call__(self, response: WireResponse) -> ImpastoError:
        """Return the refusal, or ChargeUnknown."""
        return self.find(response) or charge_unknown(response)

    def find(self, response: WireResponse) -> ResponseError | None:
        """Return the refusal, or None if the answer is not one of the provider's own."""
        body = parse_json(response.body) if response.media_type in self._media_types else None
        status, (code, messages) = response.status, self._read(body)
        kind = _most_exact(self._kinds, status, code) if status >= 400 else None
        if messages is None or kind is None:
            return None
        text = f"HTTP {status}" if code in ("", str(status)) else f"{code} (HTTP {status})"
        error = self._error(kind, text, code, messages, status)
        error.request_id = response.request_id
        if isinstance(error, RateLimited):
            error.retry_after = retry_after(response.headers)
            if error.retry_after is None and self._retry_after is not None:
                error.retry_after = _seconds(_values(body, self._retry_after))
        return error

    def in_event(self, event: ServerEvent, *, billed: Billed = "unknown") -> ImpastoError:
        """Return the error that an event of a stream reports, by its code: a ProviderFault if no entry has that.

        A code may be a status, such as 429. ChargeUnknown if the event has no message in its place. ``billed``: the
        provider's word on such a stream.
        """
        body = parse_json(event.data)
        code, messages = self._read(body)
        if messages is None:
            return ChargeUnknown("the stream ended with an error; it may have been charged", raw=event.data.encode())
        codes = {key[1] if isinstance(key, tuple) else key: kind for key, kind in self._kinds.items()}
        kind = codes.get(code) or next(filter(None, map(self._kinds.get, self._statuses(body))), ProviderFault)
        error = self._error(kind, code or "the stream ended with an error", code, messages, 200)
        error.billed = billed
        return error

    def _read(self, body: object) -> tuple[str, tuple[str, ...] | None]:
        """Return the code and the messages of a refusal; None in their place if the body is not one."""
        messages = _texts(body, self._message)
        if messages is None or not all(_texts(body, place) for place in self._required):
            return "", None
        return next(iter(_texts(body, self._code) or ()), ""), messages

    def _statuses(self, body: object) -> Iterator[int]:
        """Yield the statuses that stand in the place of a code: an event has no status of its own."""
        for place in (self._code,) if isinstance(self._code, str) else self._code:
            for value in _values(body, place) or ():
                if type(value) is int or (isinstance(value, str) and _STATUS.fullmatch(value)):
                    yield int(value)

    def _error(
        self, kind: type[ResponseError], text: str, code: str, messages: tuple[str, ...], status: int
    ) -> ResponseError:
        if kind is Unauthorized:
            messages = ()
        explanation = "; ".join(messages) or _most_exact(self._advice, status, code) or "no reason given"
        return kind(f"{text}: {explanation}", status=status, name=code or None, messages=messages)


def _most_exact(table: Mapping[Any, Entry], status: int, code: str) -> Entry | None:  # keys of one kind, or several
    return table.get((status, code)) or table.get(code) or table.get(status)


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
        f"the answer {problem}; it was charged{bytes_advice(size, attribute)}",
        raw=response.body,
        media_type=response.media_type,
        request_id=response.request_id,
    )


def parse_json(body: bytes | str) -> object:
    """Return the JSON value of a body, or ``INVALID``."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return INVALID


INVALID = object()


def _texts(body: object, places: Place) -> tuple[str, ...] | None:
    """Return the texts at the first place that has any, or None."""
    for place in (places,) if isinstance(places, str) else places:
        if (found := _values(body, place)) is not None:
            texts = tuple(printable(each) for each in found[:_MAX_TEXTS] if isinstance(each, str))
            return texts if texts or place.endswith("[]") else None
    return None


def _seconds(values: list[object] | None) -> float | None:
    """Return the first wait: a number, or text such as ``30`` and, in Google's refusals, ``58.9s``."""
    waits = (
        retry_after({"retry-after": each.removesuffix("s")}) if isinstance(each, str) else bounded_wait(each)
        for each in values or ()
    )
    return next((each for each in waits if each is not None), None)


def _values(body: object, place: str) -> list[object] | None:
    found: list[object] | None = [body]
    for name in place.split("."):
        found = _step(found, name)
    return found


def _step(values: list[object] | None, name: str) -> list[object] | None:
    """Return what has this name in each of the values; of a list (``name[]``) its entries."""
    key = name.removesuffix("[]")
    found = [value[key] for value in values or () if isinstance(value, dict) and key in value]
    if key == name:
        return found if found and not isinstance(found[0], list) else None
    lists = [value for value in found if isinstance(value, list)]
    return [each for value in lists for each in value] if lists else None


_MAX_TEXTS = 10
_STATUS = re.compile("[1-5][0-9]{2}", re.ASCII)


def json_object(response: WireResponse) -> Mapping[str, object]:
    """Return the JSON object of a paid answer. Raises UnusableResult."""
    body = parse_json(response.body)
    if body is INVALID:  # a text in another encoding costs no image
        body = parse_json(response.body.decode("utf-8", "replace"))
    if not isinstance(body, dict):
        raise unusable("is invalid JSON" if body is INVALID else "is JSON, but not an object", response)
    return body
