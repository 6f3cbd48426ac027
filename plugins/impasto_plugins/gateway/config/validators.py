"""Checks of configuration values beyond their types. Each function returns a problem, or None."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

from impasto import ConfigError
from impasto_plugins.middleware.rates import parse_rate

_PRINTABLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"(?:\*\.)?(?![-.])[a-z0-9_.-]{1,253}(?<!\.)|[0-9a-f:.]*:[0-9a-f:.]*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_USUAL_PORT = re.compile(r"(http://.*:80|https://.*:443)")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]+")
_EMPTY_HASH = hashlib.sha256(b"").hexdigest()


def validate_key(key: str) -> str | None:
    """Return the problem of a key that callers send in a header, or None."""
    return (
        None
        if _PRINTABLE.fullmatch(key)
        else "must be printable ASCII without spaces, since callers send it in a header"
    )


def validate_hash(digest: str) -> str | None:
    """Return the problem of a key's SHA-256, or None."""
    if set(digest) - set("0123456789abcdef"):
        return "must be 64 hexadecimal digits in lower case"
    return "is the hash of an empty key; give the hash of the key itself" if digest == _EMPTY_HASH else None


def validate_host(host: str) -> str | None:
    """Return the problem of a lower-case host name, or a pattern of such names, or None."""
    if _HOST.fullmatch(host):
        return None
    return (
        "must be host names without scheme, port or path, such as images.example, or *.example for all names below it"
    )


def validate_origin(origin: str) -> str | None:
    """Return the problem of an ``Origin`` header's value in lower case, or None."""
    if origin == "*":
        return "must not be *: every web page could use the gateway from its visitors' browsers; name each origin"
    if "*" in origin:
        return "must name each whole origin, without *"
    if _ORIGIN.fullmatch(origin) is None or _USUAL_PORT.fullmatch(origin):
        return "must be an origin as browsers send it: scheme, host and any unusual port, such as https://app.example"
    return None


def validate_rate(rate: str) -> str | None:
    """Return the problem of a rate such as ``150/10s``, or None."""
    try:
        parse_rate(rate)
    except ConfigError as error:
        return error.message
    return None


def validate_folder(path: str) -> str | None:
    """Return the problem of a folder's path, which may begin with ``~``, or None."""
    try:
        Path(path).expanduser()
    except RuntimeError:
        return "begins with ~ and the name of no user; write ./~ for a folder of that name"
    return None


def validate_url(url: str) -> str | None:
    """Return the problem of a public address, or None."""
    message = "must be an http or https URL without query, such as https://images.example"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return message
    is_plain = _PRINTABLE.fullmatch(url) and not (parts.query or parts.fragment or "@" in parts.netloc)
    return None if is_valid and is_plain else message


def validate_bucket(name: str) -> str | None:
    """Return the problem of the name of an S3 bucket, or None."""
    return None if _BUCKET_NAME.fullmatch(name) else "must be a bucket's name: lower-case letters, digits, dots, dashes"


def validate_prefix(prefix: str) -> str | None:
    """Return the problem of a prefix in a bucket, or None."""
    return None if _PREFIX.fullmatch(prefix) else "must have letters, digits and ._/- only"


def validate_endpoint(url: str) -> str | None:
    """Return the problem of the URL of an S3 service, or None."""
    return None if url.startswith(("https://", "http://")) else "must begin with https://"
