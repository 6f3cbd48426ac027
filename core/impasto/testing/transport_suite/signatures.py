"""Checks of the requests of a provider that signs them: the hook ``sign`` gets what is sent, as it is sent."""

from __future__ import annotations

from hashlib import sha256

from impasto import Account, ImpastoError, Provider, hookimpl
from impasto.testing.probe import GOOD, MODEL, JobDialect
from impasto.testing.recorder import RecordedRequest, always, recording
from impasto.testing.watch import check, run

from .requests import FILE, PROMPT, RequestChecks

_SIGNATURE = "x-signature"


def _signature(method: str, url: str, media_type: str, body: bytes) -> str:
    return sha256(f"{method}\n{url}\n{media_type}\n".encode() + body).hexdigest()


class _Signing(Provider):
    """A provider that signs each request."""

    @hookimpl
    def sign(self, account: Account, method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """Return the signature."""
        media_type = {name.lower(): value for name, value in headers.items()}.get("content-type", "")
        return {_SIGNATURE: _signature(method, url, media_type, body)}


class SignatureChecks(RequestChecks):
    """Checks of signatures."""

    @check
    def test_a_request_is_signed_as_it_is_sent(self) -> None:
        """Check that ``wire.sign`` signs JSON, a form, both with a file, and a GET: address, media type and bytes."""
        for encoding in ("json", "form"):
            requests, url = run(self._signed(encoding))
            for what, request in zip((f"a POST (encoding={encoding!r})", "a GET"), requests, strict=True):
                found = request.header(_SIGNATURE)
                assert found, (
                    f"{what} is not signed: call wire.sign(method=..., url=..., headers=..., body=...) if it is not "
                    "None, and add the headers that it returns"
                )
                media_type = request.header("content-type") if request.method == "POST" else ""
                expected = _signature(request.method, url + request.target, media_type, request.body)
                assert found == expected, (
                    f"the signature of {what} is not that of the request which arrived: wire.sign gets the method, the "
                    "whole address, the headers with the content-type, and the very bytes of the body"
                )

    async def _signed(self, encoding: str) -> tuple[list[RecordedRequest], str]:
        """Return a POST with a file and a GET as they arrive, and the address of the provider."""
        dialect = JobDialect(encoding=encoding, provider=_Signing)
        async with recording(always(GOOD)) as recorder, self.client(recorder.url, dialect) as client:
            try:
                await client.invoke(MODEL, {"prompt": PROMPT, "image": FILE})
                await client.resume(MODEL, "7")
            except ImpastoError as error:
                raise AssertionError(f"a call of a provider that signs its requests ended in {error!r}") from error
            return recorder.requests, recorder.url
