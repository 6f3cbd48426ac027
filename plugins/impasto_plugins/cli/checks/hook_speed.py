"""Test if a model's plain hooks block the loop, for `impasto doctor` and other people's plugins."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial

from impasto import Account, ImpastoError, Operation, WireResponse
from impasto.fields import Field

LONG_SECONDS = 0.1
_TRIES = 3
"""A hook that is slow only sometimes was slowed by the machine."""

_ANSWERS = (
    WireResponse(status=500, headers={}),
    WireResponse(status=200, headers={"content-type": "application/json"}, body=b"{}"),
)


def slow_hook(operation: Operation, name: str) -> str | None:
    """Return a text about the first slow hook, or None if none is slow or no sample call can be made."""
    arguments = {each: _sample_value(field) for each, field in operation.fields.items() if field.required}
    try:
        request = operation.request(name, arguments)
    except ImpastoError:
        return None
    classify = partial(operation.classify_error, request=request)
    account = Account(provider=operation.provider, base_url="https://example.invalid", headers={})
    normalize = partial(operation.normalize_response, request=request, account=account)
    trials: list[tuple[str, Callable[[], object]]] = [
        ("the check of its parameters", partial(operation.request, name, arguments)),
        ("transform_request", partial(operation.transform_request, request=request, account=account)),
        *(("classify_error", partial(classify, response=answer)) for answer in _ANSWERS),
        *(("normalize_response", partial(normalize, response=answer)) for answer in _ANSWERS),
    ]
    for hook, ask in trials:
        seconds = min(_measure(ask) for _ in range(_TRIES))
        if seconds > LONG_SECONDS:
            return f"{hook} takes {seconds:.1f} s and blocks the event loop meanwhile"
    return None


def _measure(ask: Callable[[], object]) -> float:
    start = time.monotonic()
    try:
        ask()
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001, S110 - only the time counts here, not the result
        pass
    return time.monotonic() - start


def _sample_value(field: Field) -> object:
    match field.kind:
        case "text":
            return "x" * max(int(field.minimum or 0), 1)
        case "choice":
            return field.choices[0]
        case "file":
            return _image()
        case "files" | "texts" | "numbers" | "groups":
            item = field.item
            return [_sample_value(item)] * max(int(field.minimum or 0), 1) if item is not None else []
        case "boolean":
            return True
        case "color":
            return "#808080"
        case "group":
            return {name: _sample_value(each) for name, each in field.fields.items() if each.required}
        case _:
            return field.minimum or 1


def _image() -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.new("RGB", (512, 512)).save(target, "png")
    return target.getvalue()
