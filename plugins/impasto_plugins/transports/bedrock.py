"""The transport of Amazon Bedrock: JSON out and back, credentials and signatures by botocore.

The https transport makes the exchange: evidence of sending, deadlines, proxies, certificates and connections are the
same on both routes, and botocore can't send anything twice.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from impasto import Account, BrokenPlugin, ConfigError, MissingExtra, WireRequest, WireResponse, hookimpl
from impasto.ext import Options

from .https import HttpsTransport
from .json_body import JSONBody
from .request_body import RequestBody
from .tls import Trust, tls_of

try:
    import pybase64  # noqa: F401 - if it is missing, that is reported before an answer is paid for that needs it

    from .aws import Identity, Once, ca_bundle, explicit_identity, find_identity
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("aiobotocore", "botocore", "pybase64"):
        raise
    raise MissingExtra(f"Bedrock needs {error.name}: pip install 'impasto[bedrock]'") from None

_JSON = {"content-type": "application/json", "accept": "application/json"}


class BedrockTransport:
    """The transport. An account's identity is resolved once, in a thread: that blocks for up to a second."""

    def __init__(self, options: Options) -> None:
        self._https = HttpsTransport(options)
        self._options = options
        self._tls: dict[str | None, Trust] = {}
        self._identities: dict[str, Identity] = {}
        self._searches: dict[str, Once[Identity]] = {}

    async def open(self) -> None:
        """Open the connections. Raises ConfigError."""
        await self._https.open()
        await self._trust(self._options.aws_profile)  # a CA file that can't be read is reported here

    async def aclose(self) -> None:
        """Close every connection."""
        await self._https.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Sign and send one request. Raises BrokenPlugin, ConfigError, InvalidRequest, NotSent or ChargeUnknown."""
        if wire.method != "POST" or wire.url is not None:
            raise BrokenPlugin(
                "the transport 'bedrock' invokes models only: a plugin's request must be a POST without url"
            )
        call = wire.call
        identity = self._identities.get(call.account.fingerprint) or await self._identify(call.account)
        _check_region(identity.region, wire)
        url = f"{identity.endpoint}/model/{quote(wire.target, safe='')}/invoke"
        keys = await identity.keys()
        if keys is not None:
            call.secrets = (*call.account.secrets, keys.access_key, keys.secret_key, keys.token or "")

        content = JSONBody.of(wire)

        def encode() -> tuple[bytearray, dict[str, str]]:
            body = content.encode()
            return body, identity.sign(url, {**_JSON, **wire.headers}, body, keys)

        await self._https.turns()
        # Images are read, encoded and hashed in a thread; text takes less time than the way there.
        body, headers = await asyncio.to_thread(encode) if content.files else encode()
        tls = await self._trust(call.account.settings.get("profile", self._options.aws_profile))
        return await self._https.exchange(call, "POST", url, headers, RequestBody("application/json", [body]), tls=tls)

    async def _trust(self, profile: str | None) -> Trust:
        """Return the trusted certificates: the CA of the settings, or as boto3 finds it for the profile."""
        if (tls := self._tls.get(profile)) is None:
            trust = self._options.ssl or await asyncio.to_thread(ca_bundle, profile)
            tls = self._tls[profile] = await asyncio.to_thread(tls_of, trust)
        return tls

    async def _identify(self, account: Account) -> Identity:
        settings, name = account.settings, account.fingerprint
        identity = explicit_identity(settings)
        if identity is None:
            find = self._searches.setdefault(name, Once(lambda: find_identity(settings, self._options)))
            identity = await find()
        return self._identities.setdefault(name, identity)


def _check_region(region: str, wire: WireRequest) -> None:
    if wire.regions and region not in wire.regions and not wire.target.startswith("arn:"):
        raise ConfigError(f"{wire.target} is available in {', '.join(wire.regions)}, not in {region}: set aws_region")
