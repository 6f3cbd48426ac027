"""A request as text that can be reviewed and compared, and the golden files that hold it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping

from impasto import File, Operation
from impasto.describe import describe

from .recorder import Seen
from .requirements import KEY

_BOUNDARY = re.compile(r'boundary="?([0-9A-Za-z_.\'()+,/:=?-]{1,70})"?')


def without_boundary(seen: Seen) -> tuple[str, list[tuple[str, str]], bytes]:
    """What of a request its parameters decide: all but the mark between its parts, which is made by chance."""
    found = _BOUNDARY.search(seen.header("content-type"))
    body = seen.body.replace(found[1].encode(), b"BOUNDARY") if found is not None else seen.body
    steady = [(name, value) for name, value in seen.headers if name.lower() not in ("content-type", *UNSTEADY)]
    return seen.target, steady, body


UNSTEADY = ("authorization", "date", "x-amz-date", "amz-sdk-invocation-id", "content-length")
"""Headers that differ between two equal requests, or follow from the rest."""


def request_text(seen: Seen, url: str, files: Iterable[object], unsteady: Iterable[str]) -> str:
    """A request, its files by their size and its key by name. ``unsteady`` headers are shown without their value."""
    host = url.removeprefix("http://")
    found = _BOUNDARY.search(seen.header("content-type"))
    boundary = found[1] if found is not None else "none"
    lines = [f"{seen.method} {seen.target}"]
    hidden = {name.lower() for name in unsteady}
    for name, value in seen.headers:
        shown = "..." if name.lower() in hidden else value.replace(KEY, "KEY").replace(host, "HOST")
        lines.append(f"{name}: {shown.replace(boundary, 'BOUNDARY')}")
    body = seen.body
    for given in files:
        with File.of(given).open() as source:
            content = source.read()
        told = f"<{len(content)} bytes>".encode()
        body = body.replace(content, told).replace(base64.b64encode(content), told)
    text = body.decode("utf-8", "backslashreplace").replace(boundary, "BOUNDARY").replace("\r\n", "\n")
    return "\n".join([*lines, "", text]) if text else "\n".join([*lines, ""])


def operation_text(operation: Operation) -> str:
    """What an operation takes and costs, in words."""
    about = describe(operation.id, operation)
    whole = "no limit stated" if about.max_bytes is None else f"{about.max_bytes:,} bytes"
    lines = [f"{about.title}: {about.price or 'price not known'}"]
    for field in about.fields:
        notes = ["required"] if field.required else []
        notes += [f"default {field.default}"] if field.default is not None else []
        lines.append(f"{field.name}: {field.takes}" + (f" ({', '.join(notes)})" if notes else ""))
    lines += [f"rule: {rule}" for rule in about.rules]
    return "\n".join([*lines, f"whole request: {whole}", ""])


def files_of(operation: Operation, given: Mapping[str, object]) -> list[object]:
    """The files among what was given."""
    return [given[name] for name in operation.file_fields if given.get(name) is not None]
