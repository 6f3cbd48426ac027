"""The transport of Amazon Bedrock: JSON out and back, credentials and signatures by aiobotocore.

botocore signs and retries nothing; the exchange itself is the https transport's, so that the proof of what left,
deadlines, proxies, certificates and connections are the same on both routes.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from impasto import Account, Call, ConfigError, ImpastoError, NotSent, WireRequest, WireResponse, hookimpl
from impasto.options import Options

from .https import Https
from .json_body import MemoryPayload, json_body

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest

_OPTIONS = {
    "x-amzn-bedrock-guardrailidentifier": "guardrailIdentifier",
    "x-amzn-bedrock-guardrailversion": "guardrailVersion",
    "x-amzn-bedrock-trace": "trace",
}
"""Headers of a request, and what botocore calls them."""

_CONFIG = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "parameter_validation": False}


class Bedrock:
    """One botocore client per region and credentials, opened in a thread: opening blocks for up to a second."""

    def __init__(self, options: Options) -> None:
        self._https = Https(options)
        self._clients: dict[str, Any] = {}  # botocore makes its clients' classes at run time: they have no type
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Opens the connections' owner. Raises ConfigError."""
        await self._https.open()

    async def aclose(self) -> None:
        """Closes every client and connection."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.__aexit__(None, None, None)
        await self._https.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        account = wire.call.account
        client = self._clients.get(account.fingerprint)
        if client is None:
            client = await self._client(account)
        _check_region(client.meta.region_name, wire)
        body = await asyncio.to_thread(json_body, wire) if wire.files else json_body(wire)
        exchange = _Exchange(self._https, wire.call)
        token = _current.set(exchange)
        try:
            await client.invoke_model(
                modelId=wire.target,
                body=body,
                contentType="application/json",
                accept="application/json",
                **{_OPTIONS[name]: value for name, value in wire.headers.items()},
            )
        except ClientError:
            pass  # a refusal: the answer as it came is in the exchange
        except BotoCoreError as error:
            if exchange.answer is None:
                raise _not_ready(error) from error
        finally:
            _current.reset(token)
        if exchange.answer is None:
            raise NotSent("nothing was sent", retryable=False)
        return exchange.answer

    async def _client(self, account: Account) -> Any:
        async with self._opening:
            client = self._clients.get(account.fingerprint)
            if client is None:
                client = self._clients[account.fingerprint] = await asyncio.to_thread(_open, account)
            return client


class _Exchange:
    """One call on its way through botocore: how it goes out, and the answer as it came."""

    def __init__(self, https: Https, call: Call) -> None:
        self._https, self._call = https, call
        self.answer: WireResponse | None = None

    async def send(self, request: AWSPreparedRequest) -> WireResponse:
        headers = {
            name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
        }
        answer = await self._https.exchange(self._call, "POST", request.url, headers, MemoryPayload(request.body))
        if answer.status >= 300:  # botocore reads refusals; a picture it never sees
            answer = await self._call.whole(answer)
        self.answer = answer
        return answer


_current: ContextVar[_Exchange] = ContextVar("impasto_bedrock_exchange")


class _Session:
    """What botocore takes for its HTTP session: hands each signed request to the call that it belongs to."""

    def __init__(self, **_: object) -> None:
        """botocore's settings are not taken: connections are the https transport's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Owns nothing."""

    async def close(self) -> None:
        """Owns nothing."""

    async def send(self, request: AWSPreparedRequest) -> AioAWSResponse:
        answer = await _current.get().send(request)

        async def read() -> bytes:
            return answer.body

        return AioAWSResponse(request.url, answer.status, dict(answer.headers), SimpleNamespace(read=read))


def _open(account: Account) -> Any:
    """Makes a client, in a thread and a short loop of its own; nothing in it belongs to that loop."""
    return asyncio.run(_opened(account))


async def _opened(account: Account) -> Any:
    settings = account.settings
    try:
        session = AioSession(profile=settings.get("profile"))
        client = await session.create_client(
            "bedrock-runtime",
            region_name=settings.get("region"),
            endpoint_url=settings.get("endpoint"),
            aws_access_key_id=settings.get("access_key_id"),
            aws_secret_access_key=settings.get("secret_access_key"),
            aws_session_token=settings.get("session_token"),
            config=AioConfig(http_session_cls=_Session, signature_version=settings.get("signature"), **_CONFIG),
        ).__aenter__()
    except (BotoCoreError, ValueError) as error:
        raise _not_ready(error) from error
    return client


def _not_ready(error: Exception) -> ImpastoError:
    """What botocore could not find, and where it looked."""
    match error:
        case NoRegionError():
            looked = "aws_region, the ARN, AWS_REGION_NAME, AWS_REGION, AWS_DEFAULT_REGION and the profile"
            return ConfigError(f"no AWS region: looked at {looked}")
        case NoCredentialsError():
            looked = (
                "aws_access_key_id and aws_secret_access_key, AWS_BEARER_TOKEN_BEDROCK, AWS_ACCESS_KEY_ID, "
                "the profile, web identity, SSO, the container endpoint and instance metadata"
            )
            return ConfigError(f"no AWS credentials: looked at {looked}")
        case PartialCredentialsError():
            return ConfigError("half an AWS key pair: give the access key id and the secret access key together")
        case ProfileNotFound():
            return ConfigError("the AWS profile is not in the configuration files: check aws_profile or AWS_PROFILE")
        case BotoCoreError():
            return ConfigError(f"AWS credentials can't be had: {type(error).__name__}")
        case _:
            return ConfigError("the Bedrock endpoint is not a URL: check bedrock_endpoint")


def _check_region(region: str, wire: WireRequest) -> None:
    if wire.regions and region not in wire.regions and not wire.target.startswith("arn:"):
        raise ConfigError(f"{wire.target} is served from {', '.join(wire.regions)}, not {region}: set aws_region")
