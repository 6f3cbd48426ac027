"""Fingerprints of requests: equal for equal content, whatever the order of keys and the paths of files."""

from __future__ import annotations

import hashlib
import json
import re

import attrs

from impasto import File

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
"""A valid idempotency key: 1 to 255 printable ASCII characters, without a space at an end."""


def _plain(value: object) -> object:
    """Return the SHA-256 of a file, and the fields of a record."""
    if isinstance(value, File):
        with value.open() as source:
            digest = hashlib.sha256()
            while piece := source.read(1 << 20):
                digest.update(piece)
            return digest.hexdigest()
    if attrs.has(kind := type(value)):
        return {field.name: getattr(value, field.name) for field in attrs.fields(kind)}
    raise TypeError(f"{type(value).__name__} is not a value of JSON")


canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain).encode
"""Return values as JSON, with the SHA-256 of files in their place. Blocks while it reads files."""
