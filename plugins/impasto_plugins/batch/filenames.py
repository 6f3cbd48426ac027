"""Names of pictures: made of ids that anybody wrote, and safe on every file system."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from string import Formatter

import attrs

from impasto import ConfigError
from impasto.fields import shown

FIELDS = ("id", "index", "model", "seed")
"""What a template may name."""

LONGEST_ID = 512
_LONGEST_PLAIN = 120
_LONGEST_SLUG = 100
"""In bytes, as file systems count."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_LITERAL = re.compile(r"[A-Za-z0-9._/ ()+=@-]*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
"""Names that Windows, where a folder may be looked at later, keeps for itself."""

ENDINGS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
    "model/gltf-binary": ".glb",
}


def wrong_id(id: object) -> str | None:
    """Why something can't be an id, or None."""
    if not isinstance(id, str):
        return f"must be text, not {type(id).__name__}" if id is not None else "required"
    if not id.strip():
        return "is blank"
    if len(id) > LONGEST_ID:
        return f"must be of at most {LONGEST_ID} characters, not {len(id):,}"
    if not id.isprintable():
        return f"must hold no control characters, line breaks or invisible marks: {id[:60]!a}"
    if "/" in id or "\\" in id or id in (".", ".."):
        return f"becomes the name of a file: it must hold no slash and be more than dots, not {shown(id)}"
    return None


def is_plain(id: str) -> bool:
    """Whether an id is plainly one, and safe in a name as it is."""
    return len(id) <= _LONGEST_PLAIN and _PLAIN.fullmatch(id) is not None


def safe(text: str) -> str:
    """The text where it can be a part of any file's name; else what can be of it, and a hash of all of it."""
    if len(text) <= _LONGEST_PLAIN and _PLAIN.fullmatch(text) and not _DEVICES.match(text):
        return text
    slug = re.sub(r"[^\w]+", "-", unicodedata.normalize("NFC", text)).strip("-_")
    slug = slug.encode()[:_LONGEST_SLUG].decode(errors="ignore").rstrip("-_")
    return "-".join(filter(None, (slug, hashed(text))))


def _short(model: str) -> str:
    return re.sub(r"[^\w.-]", "-", model.rpartition("/")[2])


def hashed(text: str) -> str:
    """What stands for a text where its own letters can't."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


Parts = tuple[tuple[str, str | None], ...]
"""Pieces of a template: what stands in it, and the field that follows."""


def _parts(template: Template) -> Parts:
    text = template.text
    try:
        return tuple(_parsed(text))
    except ValueError as error:
        allowed = ", ".join(f"{{{name}}}" for name in FIELDS)
        said = f"names: {shown(text)} {error}; it may hold {allowed}, such as {{model}}/{{id}}"
        raise ConfigError(said) from None


def _parsed(text: str) -> Iterator[tuple[str, str | None]]:
    for literal, field, spec, conversion in Formatter().parse(text):
        if not _LITERAL.fullmatch(literal):
            raise ValueError("holds a character that is not safe in the name of a file")
        if field is not None and (field not in FIELDS or spec or conversion):
            raise ValueError(f"names {{{field}}}, which is none of its fields")
        yield literal, field
    if any(each.strip() in ("", ".", "..") or each != each.strip() or each[0] in ".-" for each in text.split("/")):
        raise ValueError("is no path below the folder")
    if "{id}" not in text and "{seed}" not in text:
        raise ValueError("would give many pictures one name: it must hold {id} or {seed}")


@attrs.frozen
class Template:
    """How pictures are named, such as ``{model}/{id}``; the ending follows from the picture. Raises ConfigError."""

    text: str = "{id}"
    parts: Parts = attrs.field(init=False, repr=False, default=attrs.Factory(_parts, takes_self=True))

    def path(self, *, id: str, index: int, n: int, model: str, seed: int | None) -> str:
        """A picture's path below the folder, without its ending. ``n``: how many pictures its row asked for."""
        values = {"id": safe(id), "index": str(index), "model": _short(model), "seed": str(seed or 0)}
        made = "".join(literal + (values[field] if field is not None else "") for literal, field in self.parts)
        return f"{made}-{index}" if n > 1 and "{index}" not in self.text else made
