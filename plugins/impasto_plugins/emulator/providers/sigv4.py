"""Verifies AWS Signature Version 4 of a request as it came, from the specification alone.

It shares nothing with what signs on the client's side, so that the one is a witness of the other.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

import attrs

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=5)
_FORMAT = "%Y%m%dT%H%M%SZ"


class Rejected(Exception):
    """The request does not prove who sent it: AWS's code, its status, and a message in its style."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


@attrs.frozen(kw_only=True)
class Signed:
    """A request as it came. ``path`` and ``query`` are raw; header names are lower case; ``body_hash`` is the
    body's SHA-256 in hexadecimal."""

    method: str = "POST"
    path: str
    query: str = ""
    headers: Mapping[str, str]
    body_hash: str


@attrs.frozen(kw_only=True)
class Authorization:
    """What the header says."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def access_key_of(authorization: str) -> str | None:
    """The access key id that a header names, verified or not."""
    found = re.search(r"Credential=([^/,\s]+)/", authorization)
    return found[1] if authorization.startswith(ALGORITHM) and found else None


def parse(authorization: str) -> Authorization:
    """Takes the header apart. Raises Rejected."""
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete("its algorithm is not known")
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        parts[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not parts.get(name):
            raise _incomplete(f"it needs the parameter {name!r}")
    scope = parts["Credential"].split("/")
    if len(scope) != 5 or scope[4] != "aws4_request":
        raise _incomplete("its credential has no scope of five parts")
    return Authorization(
        access_key=scope[0],
        date=scope[1],
        region=scope[2],
        service=scope[3],
        signed_headers=tuple(parts["SignedHeaders"].split(";")),
        signature=parts["Signature"],
    )


def verify(request: Signed, secrets: Mapping[str, str], *, service: str, now: datetime) -> Authorization:
    """Checks that the secret of its access key signed the request, lately. Raises Rejected."""
    headers = request.headers
    given = parse(headers.get("authorization", ""))
    stamp = headers.get("x-amz-date", "")
    try:
        signed_at = datetime.strptime(stamp, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise _incomplete("it goes with an 'X-Amz-Date' header") from None
    if given.date != stamp[:8]:
        raise _mismatch("the date of the credential's scope is not that of the request")
    if given.service != service:
        raise _mismatch(f"the credential should be scoped to the service {service!r}")
    must = {"host", *(name for name in headers if name.startswith("x-amz-"))}
    if missing := sorted(must - set(given.signed_headers)):
        raise _mismatch(f"these headers are not signed: {', '.join(missing)}")
    if abs(now - signed_at) > SKEW:
        raise Rejected("RequestExpired", 400, f"Signature expired: {stamp} is not within 5 min. of {now:{_FORMAT}}")
    secret = secrets.get(given.access_key)
    if secret is None:
        raise Rejected("UnrecognizedClientException", 403, "The security token included in the request is invalid.")
    expected = _signature(secret, given, stamp, canonical(request, given.signed_headers))
    if not hmac.compare_digest(expected, given.signature):
        raise _mismatch("The request signature we calculated does not match the signature you provided.")
    return given


def canonical(request: Signed, signed_headers: tuple[str, ...]) -> str:
    """The canonical request. The path is encoded once more, whatever is encoded in it already."""
    query = sorted((quote(k, safe="~"), quote(v, safe="~")) for k, v in parse_qsl(request.query, True))
    headers = (f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in signed_headers)
    return "\n".join(
        (
            request.method,
            quote(request.path, safe="/~"),
            "&".join(f"{name}={value}" for name, value in query),
            "".join(headers),
            ";".join(signed_headers),
            request.body_hash,
        )
    )


def _signature(secret: str, given: Authorization, stamp: str, canonical_request: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in (given.date, given.region, given.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    return hmac.digest(key, f"{ALGORITHM}\n{stamp}\n{given.scope}\n{digest}".encode(), "sha256").hex()


def _incomplete(why: str) -> Rejected:
    return Rejected("IncompleteSignature", 400, f"The authorization header can't be used: {why}")


def _mismatch(why: str) -> Rejected:
    return Rejected("InvalidSignatureException", 403, why)
