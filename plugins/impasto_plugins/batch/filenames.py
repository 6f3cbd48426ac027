"""File names of images, from ids in any form: safe on every file system."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import attrs

from impasto import ConfigError
from impasto.ext import kind_in_words
from impasto.fields import format_value

FIELDS = ("id", "index", "model", "seed")
"""Fields of a template."""

LONGEST_ID = 512
_LONGEST_PLAIN = 120
_LONGEST_SLUG = 100
_LONGEST_COMPONENT = 200
"""In bytes, as file systems count: they allow 255, and a number and an ending may follow."""
_SLUG_DIGITS = 10
"""Digits that make a name short, not unique: ``TakenNames`` does that."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_LITERAL = re.compile(r"[A-Za-z0-9._/ ()+=@-]*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]) *(\.|$)", re.IGNORECASE)
"""Names that Windows, where a folder may be opened later, reserves."""

KEPT_FOLDER = "kept"
"""The folder for bytes of answers without a usable image."""

_RESERVED = re.compile(rf"(results|errors)\.jsonl|report(-[0-9]+)?\.html|{KEPT_FOLDER}")

ANY_SEED = "\0"
"""Stands in a path for an unknown seed."""


def wrong_id(id: object) -> str | None:
    """Return the reason why a value can't be an id, or None."""
    if not isinstance(id, str):
        return f"must be text, not {kind_in_words(id)}" if id is not None else "required"
    if not id.strip():
        return "is blank"
    if len(id) > LONGEST_ID:
        return f"must have at most {LONGEST_ID} characters, not {len(id):,}"
    if not id.isprintable():
        return f"must not contain control characters, line breaks or invisible characters: {id[:60]!a}"
    if "/" in id or "\\" in id or id in (".", ".."):
        return f"is used as a file name: it must not contain a slash or be . or .., not {format_value(id)}"
    return None


def is_plain(id: str) -> bool:
    """Return True if an id is safe in a name as it is."""
    return len(id) <= _LONGEST_PLAIN and _PLAIN.fullmatch(id) is not None


def case_folded(name: str) -> str:
    """Return a name in the form that macOS and Windows compare: case and Unicode forms folded."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def is_reserved(name: str) -> bool:
    """Return True for the names in a batch's folder that are not an image's."""
    return _RESERVED.fullmatch(case_folded(name)) is not None


def safe_name(text: str) -> str:
    """Return the text if it can be part of any file's name; otherwise its safe characters and a hash of all of it."""
    if len(text) <= _LONGEST_PLAIN and _PLAIN.fullmatch(text) and not _DEVICES.match(text) and not is_reserved(text):
        return text
    slug = re.sub(r"[^\w]+", "-", unicodedata.normalize("NFC", text)).strip("-_")
    slug = slug.encode()[:_LONGEST_SLUG].decode(errors="ignore").rstrip("-_")
    return "-".join(filter(None, (slug, digest(text)[:_SLUG_DIGITS])))


def _short(model: str) -> str:
    return re.sub(r"[^\w.-]", "-", model.rpartition("/")[2])


def digest(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal: a name that no other text has."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


Parts = tuple[tuple[str, str | None], ...]
"""Pieces of a template: literal text, and the field that follows it."""


def _parts(template: Template) -> Parts:
    text = template.text
    try:
        return tuple(_parse_template(text))
    except ValueError as error:
        allowed = ", ".join(f"{{{name}}}" for name in FIELDS)
        message = f"names: {format_value(text)} {error}; allowed are {allowed}, as in {{model}}/{{id}}"
        raise ConfigError(message) from None


def _parse_template(text: str) -> Iterator[tuple[str, str | None]]:
    for literal, field, spec, conversion in Formatter().parse(text):
        if not _LITERAL.fullmatch(literal):
            raise ValueError("contains a character that is not safe in a file name")
        if field is not None and (field not in FIELDS or spec or conversion):
            raise ValueError(f"contains {{{field}}}, which is not a field")
        yield literal, field
    if any(each.strip() in ("", ".", "..") or each != each.strip() or each[0] in ".-" for each in text.split("/")):
        raise ValueError("is not a path inside the folder")
    if is_reserved(text.partition("/")[0]) and "/" in text:
        raise ValueError("begins with a name that the batch uses itself")
    if "{id}" not in text and "{seed}" not in text:
        raise ValueError("would give several images the same name: it must contain {id} or {seed}")


@attrs.frozen
class Template:
    """A pattern for images' names, such as ``{model}/{id}``; the ending follows from the image. Raises ConfigError."""

    text: str = "{id}"
    parts: Parts = attrs.field(init=False, repr=False, default=attrs.Factory(_parts, takes_self=True))

    @property
    def levels(self) -> int:
        """Depth of the images' folders, the batch's own counted."""
        return self.text.count("/") + 1

    def path(self, *, id: str, index: int, n: int, model: str, seed: int | str | None) -> str:
        """Return an image's path below the folder, without its ending. ``n``: the number of images of its row."""
        values = {"id": safe_name(id), "index": str(index), "model": _short(model), "seed": str(seed or 0)}
        path = "".join(literal + (values[field] if field is not None else "") for literal, field in self.parts)
        if n > 1 and "{index}" not in self.text:
            path = f"{path}-{index}"
        if self.text == "{id}":
            return path  # which is safe by itself
        return "/".join(map(_component, path.split("/")))


def fit_components(path: str) -> str:
    """Return an image's path with each component short enough for file systems; the ending stays."""
    stem, dot, ending = path.rpartition(".")
    return "/".join(map(_shorten_component, stem.split("/"))) + dot + ending


def _component(name: str) -> str:
    """Return a folder's or file's name that is safe on every system."""
    name = name.rstrip(". ")
    return _shorten_component(f"_{name}" if not name or name[0] in ".-" or _DEVICES.match(name) else name)


def _shorten_component(name: str) -> str:
    """Return a name of at most 200 bytes: the beginning of a longer one, and a hash of all of it."""
    if len(name.encode()) <= _LONGEST_COMPONENT:
        return name
    slug = name.encode()[: _LONGEST_COMPONENT - _SLUG_DIGITS - 1].decode(errors="ignore").rstrip("-_. ")
    return f"{slug}-{digest(name)[:_SLUG_DIGITS]}"


class TakenNames:
    """Names in a batch's folder, compared as file systems do that fold case and Unicode forms.

    Names in folded form are forgotten once a file has them, since the file system knows them. All names in a bucket are
    remembered, since it is never listed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._hashes: set[int] = set()

    def add(self, name: str, *, is_local: bool) -> None:
        """Remember the name of a published image."""
        key = case_folded(name)
        if is_local and key == name:
            self._hashes.discard(hash(key))
        else:
            self._hashes.add(hash(key))

    def claim(self, name: str) -> str:
        """Take a free name, this one or one like it with a number, and return it."""
        stem, dot, ending = name.rpartition(".")
        candidate, number = name, 0
        while not self._is_free(candidate):
            number += 1
            candidate = f"{stem}-{number}{dot}{ending}"
        self._hashes.add(hash(case_folded(candidate)))
        return candidate

    def _is_free(self, name: str) -> bool:
        key = case_folded(name)
        return hash(key) not in self._hashes and (key == name or not os.path.lexists(self._root / key))
