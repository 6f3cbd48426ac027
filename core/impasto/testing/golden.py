"""A request as text for review and comparison, and the golden files with such texts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping

from impasto import File, Operation
from impasto.describe import describe
from impasto.ext import convert_files

from .recorder import RecordedRequest
from .subject import KEY

_BOUNDARY = re.compile(r'boundary="?([0-9A-Za-z_.\'()+,/:=?-]{1,70})"?')


def without_boundary(request: RecordedRequest) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the parts of a request that its parameters decide: all but the random boundary of its parts."""
    match = _BOUNDARY.search(request.header("content-type"))
    body = request.body.replace(match[1].encode(), b"BOUNDARY") if match is not None else request.body
    steady = [(name, value) for name, value in request.headers if name.lower() not in ("content-type", *UNSTEADY)]
    return request.target, steady, body


UNSTEADY = ("authorization", "date", "x-amz-date", "amz-sdk-invocation-id", "content-length")
"""Headers that differ between two equal requests, or follow from the rest."""


def request_text(
    request: RecordedRequest, urls: Mapping[str, str], files: Iterable[object], unsteady: Iterable[str]
) -> str:
    """Return a request as text: files by size, key and hosts by name, ``unsteady`` headers without their value."""
    hosts = {url.removeprefix("http://"): name.upper().replace("URL", "HOST") for name, url in urls.items()}
    match = _BOUNDARY.search(request.header("content-type"))
    boundary = match[1] if match is not None else "none"
    lines = [f"{request.method} {request.target}"]
    hidden = {name.lower() for name in unsteady}
    for name, value in request.headers:
        text_value = "..." if name.lower() in hidden else hosts.get(value, value.replace(KEY, "KEY"))
        lines.append(f"{name}: {text_value.replace(boundary, 'BOUNDARY')}")
    body = request.body
    for item in files:
        with File.of(item).open() as source:
            content = source.read()
        placeholder = f"<{len(content)} bytes>".encode()
        body = body.replace(content, placeholder).replace(base64.b64encode(content), placeholder)
    text = body.decode("utf-8", "backslashreplace").replace(boundary, "BOUNDARY").replace("\r\n", "\n")
    return "\n".join([*lines, "", text]) if text else "\n".join([*lines, ""])


def operation_text(operation: Operation) -> str:
    """Return an operation's parameters and price in words."""
    about = describe(operation.id, operation)
    whole = "no limit stated" if about.max_bytes is None else f"{about.max_bytes:,} bytes"
    lines = [f"{about.title}: {about.price or 'price not known'}"]
    for field in about.fields:
        notes = ["required"] if field.required else []
        notes += [f"default {field.default}"] if field.default is not None else []
        lines.append(f"{field.name}: {field.takes}" + (f" ({', '.join(notes)})" if notes else ""))
    lines += [f"rule: {rule}" for rule in about.rules]
    return "\n".join([*lines, f"whole request: {whole}", ""])


def files_of(operation: Operation, params: Mapping[str, object]) -> list[object]:
    """Return the files among the parameters."""
    found: list[object] = []
    convert_files(params, operation.file_arguments, found.append)
    return found
