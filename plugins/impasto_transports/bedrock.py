"""The transport of Amazon Bedrock: JSON out and back, credentials and signatures by botocore.

The exchange itself is the https transport's: the proof of what left, deadlines, proxies, certificates and
connections are the same on both routes, and nothing of botocore's can send twice.
"""

from __future__ import annotations

import asyncio
import os
from urllib.parse import quote

import attrs

from impasto import ConfigError, WireRequest, WireResponse, hookimpl
from impasto.options import Options

from .aws import Identity, identify
from .https import Https
from .json_body import MemoryPayload, json_body

_JSON = {"content-type": "application/json", "accept": "application/json"}


class Bedrock:
    """One identity per account, found once, in a thread: that blocks for up to a second."""

    def __init__(self, options: Options) -> None:
        # boto3's variable for an own CA, where none is given: the same proxy stands before all of AWS.
        self._https = Https(attrs.evolve(options, ssl=options.ssl or os.environ.get("AWS_CA_BUNDLE") or None))
        self._identities: dict[str, Identity] = {}
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Opens the connections' owner. Raises ConfigError."""
        await self._https.open()

    async def aclose(self) -> None:
        """Closes every connection."""
        await self._https.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        identity = self._identities.get(wire.call.account.fingerprint) or await self._identify(wire)
        _check_region(identity.region, wire)
        url = f"{identity.endpoint}/model/{quote(wire.target, safe='')}/invoke"
        keys = await identity.keys()

        def written() -> tuple[bytearray, dict[str, str]]:
            body = json_body(wire)
            return body, identity.signed(url, {**_JSON, **wire.headers}, body, keys)

        # Pictures are read, encoded and hashed outside the loop; text takes less than the way to a thread.
        body, headers = await asyncio.to_thread(written) if wire.files else written()
        return await self._https.exchange(wire.call, "POST", url, headers, MemoryPayload(body))

    async def _identify(self, wire: WireRequest) -> Identity:
        account = wire.call.account
        async with self._opening:
            identity = self._identities.get(account.fingerprint)
            if identity is None:
                identity = self._identities[account.fingerprint] = await identify(account)
            return identity


def _check_region(region: str, wire: WireRequest) -> None:
    if wire.regions and region not in wire.regions and not wire.target.startswith("arn:"):
        raise ConfigError(f"{wire.target} is served from {', '.join(wire.regions)}, not {region}: set aws_region")
