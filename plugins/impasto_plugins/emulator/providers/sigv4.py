"""Verifies AWS Signature Version 4 of a request, from the specification alone.

It shares nothing with the client's signing code, so that each checks the other.
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
MAX_CLOCK_SKEW = timedelta(minutes=5)
_FORMAT = "%Y%m%dT%H%M%SZ"


class SignatureRejected(Exception):
    """The request does not prove its sender: AWS's code, its status, and a message in its style."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


@attrs.frozen(kw_only=True)
class SignedRequest:
    """A request to verify. ``path`` and ``query`` are raw; header names are lower case; ``body_hash`` is a SHA-256."""

    method: str = "POST"
    path: str
    query: str = ""
    headers: Mapping[str, str]
    body_hash: str


@attrs.frozen(kw_only=True)
class Authorization:
    """The parts of the authorization header."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        """The credential scope: date, region and service."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def parse_access_key(authorization: str) -> str | None:
    """Return the access key id in a header, verified or not."""
    match = re.search(r"Credential=([^/,\s]+)/", authorization)
    return match[1] if authorization.startswith(ALGORITHM) and match else None


def parse_authorization(authorization: str) -> Authorization:
    """Parse the header. Raises SignatureRejected."""
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete("unknown algorithm")
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        parts[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not parts.get(name):
            raise _incomplete(f"missing parameter {name!r}")
    scope = parts["Credential"].split("/")
    if len(scope) != 5 or scope[4] != "aws4_request":
        raise _incomplete("the credential must have a scope of five parts")
    return Authorization(
        access_key=scope[0],
        date=scope[1],
        region=scope[2],
        service=scope[3],
        signed_headers=tuple(parts["SignedHeaders"].split(";")),
        signature=parts["Signature"],
    )


def verify_signature(
    request: SignedRequest, secrets: Mapping[str, str], *, service: str, now: datetime
) -> Authorization:
    """Verify that the access key's secret signed the request recently. Raises SignatureRejected."""
    headers = request.headers
    authorization = parse_authorization(headers.get("authorization", ""))
    stamp = headers.get("x-amz-date", "")
    try:
        signed_at = datetime.strptime(stamp, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise _incomplete("missing or invalid 'X-Amz-Date' header") from None
    if authorization.date != stamp[:8]:
        raise _mismatch("the date of the credential's scope is not that of the request")
    if authorization.service != service:
        raise _mismatch(f"the credential should be scoped to the service {service!r}")
    required_headers = {"host", *(name for name in headers if name.startswith("x-amz-"))}
    if missing := sorted(required_headers - set(authorization.signed_headers)):
        raise _mismatch(f"these headers are not signed: {', '.join(missing)}")
    if abs(now - signed_at) > MAX_CLOCK_SKEW:
        raise SignatureRejected(
            "RequestExpired", 400, f"Signature expired: {stamp} is not within 5 min. of {now:{_FORMAT}}"
        )
    secret = secrets.get(authorization.access_key)
    if secret is None:
        raise SignatureRejected(
            "UnrecognizedClientException", 403, "The security token included in the request is invalid."
        )
    expected_signature = _compute_signature(
        secret, authorization, stamp, build_canonical_request(request, authorization.signed_headers)
    )
    if not hmac.compare_digest(expected_signature, authorization.signature):
        raise _mismatch("The request signature we calculated does not match the signature you provided.")
    return authorization


def build_canonical_request(request: SignedRequest, signed_headers: tuple[str, ...]) -> str:
    """Return the canonical request. The path is encoded once more, even if it is encoded already."""
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


def _compute_signature(secret: str, authorization: Authorization, stamp: str, canonical_request: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in (authorization.date, authorization.region, authorization.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    return hmac.digest(key, f"{ALGORITHM}\n{stamp}\n{authorization.scope}\n{digest}".encode(), "sha256").hex()


def _incomplete(reason: str) -> SignatureRejected:
    return SignatureRejected("IncompleteSignature", 400, f"The authorization header is invalid: {reason}")


def _mismatch(reason: str) -> SignatureRejected:
    return SignatureRejected("InvalidSignatureException", 403, reason)
