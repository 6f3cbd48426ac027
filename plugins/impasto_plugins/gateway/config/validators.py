"""What a configuration's values must be beyond their types. Each function gives what is wrong, or None."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

from impasto import ConfigError, RateLimit

_SHOWN = re.compile(r"[!-~]+")
_HOST = re.compile(r"(?:\*\.)?(?![-.])[a-z0-9_.-]{1,253}(?<!\.)|[0-9a-f:.]*:[0-9a-f:.]*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_USUAL_PORT = re.compile(r"(http://.*:80|https://.*:443)")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]*[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]+")
_EMPTY = hashlib.sha256(b"").hexdigest()


def wrong_with_key(key: str) -> str | None:
    """A key that callers show in a header."""
    return None if _SHOWN.fullmatch(key) else "must be printable ASCII without spaces, as callers show it in a header"


def wrong_with_hash(digest: str) -> str | None:
    """The SHA-256 of such a key."""
    if set(digest) - set("0123456789abcdef"):
        return "must be 64 hexadecimal digits, small letters"
    return "is that of an empty key; give that of the key itself" if digest == _EMPTY else None


def wrong_with_host(host: str) -> str | None:
    """A name that stands in a ``Host`` header, in small letters, or a pattern of such names."""
    if _HOST.fullmatch(host):
        return None
    return "must be names of hosts, without scheme, port or path, such as images.example, or *.example for all below it"


def wrong_with_origin(origin: str) -> str | None:
    """Return what is wrong with an ``Origin`` header's value in small letters, or None."""
    if origin == "*":
        return "must not be *, which lets every web page use the gateway from its visitors' browsers; name each origin"
    if "*" in origin:
        return "must name each origin whole, without *"
    if _ORIGIN.fullmatch(origin) is None or _USUAL_PORT.fullmatch(origin):
        return "must be origins as browsers send them: scheme, host and unusual port only, such as https://app.example"
    return None


def wrong_with_rate(rate: str) -> str | None:
    """Return what is wrong with a rate such as ``150/10s``, or None."""
    try:
        RateLimit.parse(rate)
    except ConfigError as error:
        return error.message
    return None


def wrong_with_url(url: str) -> str | None:
    """An address that others are told."""
    said = "must be http:// or https://, a host, and a path at most, as https://images.example"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return said
    plain = _SHOWN.fullmatch(url) and not (parts.query or parts.fragment or "@" in parts.netloc)
    return None if sound and plain else said


def wrong_with_bucket(name: str) -> str | None:
    """Return what is wrong with the name of an S3 bucket, or None."""
    return None if _BUCKET.fullmatch(name) else "must be a bucket's name: small letters, digits, dots, dashes"


def wrong_with_prefix(prefix: str) -> str | None:
    """Return what is wrong with the beginning of names in a bucket, or None."""
    return None if _PREFIX.fullmatch(prefix) else "may have letters, digits and ._/- only"


def wrong_with_endpoint(url: str) -> str | None:
    """Return what is wrong with the URL of an S3 service, or None."""
    return None if url.startswith(("https://", "http://")) else "must begin with https://"
