"""Who a call to AWS is from and where it goes: region, endpoint and credentials, as boto3 finds them.

All of botocore that waits or blocks (it loads long JSON files, asks STS, runs programs) runs in a thread and a short
loop of its own: nothing here belongs to a loop but the wait for it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidRegionError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.loaders import create_loader

from impasto import Account, ConfigError, ImpastoError, NotSent
from impasto.provider import check_base_url

T = TypeVar("T")

SIGNING_NAME = "bedrock"
_SERVICE = "bedrock-runtime"

_ours: ContextVar[bool] = ContextVar("_ours", default=False)
"""Whether what botocore does just now is done for us."""


class Identity:
    """An account's region, endpoint and credentials, of which those that expire are fetched anew."""

    def __init__(self, region: str, endpoint: str, *, bearer: str | None = None, credentials: Any = None) -> None:
        self.region = region
        self.endpoint = endpoint
        self._bearer = bearer
        self._credentials = credentials  # botocore has no types
        self._keys: ReadOnlyCredentials | None = None
        self._fetching: asyncio.Future[ReadOnlyCredentials] | None = None

    async def keys(self) -> ReadOnlyCredentials | None:
        """The credentials to sign with; None with a bearer token. Raises ConfigError or NotSent."""
        found = self._credentials
        if found is None or isinstance(found, ReadOnlyCredentials):
            return found
        if self._keys is None or getattr(found, "refresh_needed", bool)():
            fetching = self._fetch(found)
            if self._keys is None or found.refresh_needed(0):
                try:
                    await asyncio.shield(fetching)  # a call that is cancelled leaves it to the others
                except (BotoCoreError, ClientError, RuntimeError) as error:  # RuntimeError: what came is out of date
                    raise not_ready(error) from None
        return self._keys

    def _fetch(self, found: Any) -> asyncio.Future[ReadOnlyCredentials]:
        """One fetch at a time, whoever asks; nobody waits for it while what there is still holds."""
        if self._fetching is None or self._fetching.done():
            loop = asyncio.get_running_loop()
            self._fetching = loop.run_in_executor(None, _apart, found.get_frozen_credentials)
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, fetching: asyncio.Future[ReadOnlyCredentials]) -> None:
        if not fetching.cancelled() and fetching.exception() is None:
            self._keys = fetching.result()

    def signed(
        self, url: str, headers: Mapping[str, str], body: bytes | bytearray, keys: ReadOnlyCredentials | None
    ) -> dict[str, str]:
        """The headers of a POST, with those that say who sends it. Hashes the body."""
        if keys is None:
            return {**headers, "authorization": f"Bearer {self._bearer}"}
        request = AWSRequest("POST", url, headers=dict(headers), data=body)
        quiet = _ours.set(True)
        try:
            SigV4Auth(keys, SIGNING_NAME, self.region).add_auth(request)
        finally:
            _ours.reset(quiet)
        return dict(request.headers.items())


async def identify(account: Account) -> Identity:
    """Finds an account's identity. Raises ConfigError, saying what was looked for, or NotSent."""
    settings = account.settings
    identity = _given(settings)
    if identity is None:
        try:
            identity = await asyncio.to_thread(_apart, lambda: _found(settings))
        except ConfigError:  # a ValueError too
            raise
        except (BotoCoreError, ClientError, ValueError) as error:
            raise not_ready(error) from None
    await identity.keys()
    return identity


def _given(settings: Mapping[str, str]) -> Identity | None:
    """The identity of settings that leave nothing to look for."""
    region, endpoint = settings.get("region"), settings.get("endpoint")
    keys, bearer = _explicit(settings), settings.get("bearer")
    if region is None or endpoint is None or (keys or bearer) is None:
        return None
    return Identity(region, endpoint, bearer=bearer, credentials=keys)


def _explicit(settings: Mapping[str, str]) -> ReadOnlyCredentials | None:
    if "access_key_id" not in settings:
        return None
    return ReadOnlyCredentials(
        settings["access_key_id"], settings["secret_access_key"], settings.get("session_token"), None
    )


async def _found(settings: Mapping[str, str]) -> Identity:
    """What botocore finds. Its client, never used, knows the endpoint: variables, profile, FIPS, partition."""
    session = AioSession(profile=settings.get("profile"))
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    async with session.create_client(
        _SERVICE,
        region_name=settings.get("region"),
        endpoint_url=settings.get("endpoint"),
        config=AioConfig(signature_version=UNSIGNED),
    ) as client:
        region, endpoint = client.meta.region_name, _checked(client.meta.endpoint_url)
    bearer, credentials = settings.get("bearer"), _explicit(settings)
    if bearer is None and credentials is None:
        credentials = await session.get_credentials()
        if credentials is None:
            looked = (
                "aws_access_key_id and aws_secret_access_key, AWS_BEARER_TOKEN_BEDROCK, AWS_ACCESS_KEY_ID, "
                "the profile, web identity, SSO, the container endpoint and instance metadata"
            )
            raise ConfigError(f"no AWS credentials: looked at {looked}")
    return Identity(region, endpoint, bearer=bearer, credentials=credentials)


@functools.cache
def _loader(path: str | None) -> Any:
    """One for the process: its files, once read, serve the next account, and reading them holds the interpreter."""
    return create_loader(path)


def _checked(endpoint: str) -> str:
    """An endpoint of the environment's or the profile's, which may have a path."""
    parts = urlsplit(endpoint)
    return check_base_url(f"{parts.scheme}://{parts.netloc}", "the AWS endpoint URL") + parts.path.rstrip("/")


def _apart(make: Callable[[], Awaitable[T]]) -> T:
    """Runs a part of botocore's in this thread and a loop of its own."""
    _ours.set(True)  # a thread's context is its own
    _hush()
    return asyncio.run(_awaited(make))


async def _awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


def _hush() -> None:
    """botocore logs tokens, signatures and answers of STS at DEBUG: what it does for us is not logged at that level."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("botocore", "aiobotocore"):
            logging.getLogger(name).addFilter(_may_be_logged)  # one that is there already is not added again


def _may_be_logged(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG or not _ours.get()


_hush()


def not_ready(error: Exception) -> ImpastoError:
    """What botocore could not find, and where it looked; in words that hold nothing of what it found."""
    match error:
        case NoRegionError():
            looked = "aws_region, the ARN, AWS_REGION_NAME, AWS_REGION, AWS_DEFAULT_REGION and the profile"
            return ConfigError(f"no AWS region: looked at {looked}")
        case InvalidRegionError():
            return ConfigError("the AWS region is no region's name: give one such as us-west-2")
        case PartialCredentialsError():
            return ConfigError("half an AWS key pair: give the access key id and the secret access key together")
        case ProfileNotFound():
            return ConfigError("the AWS profile is not in the configuration files: check aws_profile or AWS_PROFILE")
        case ClientError():
            code = error.response.get("Error", {}).get("Code", "no code")
            return ConfigError(f"AWS credentials can't be had: {error.operation_name} was refused ({code})")
        case HTTPClientError():
            return NotSent(f"AWS credentials can't be fetched ({type(error).__name__}); nothing was sent")
        case CredentialRetrievalError():
            return ConfigError("AWS credentials can't be had: their source failed")
        case BotoCoreError():
            return ConfigError(f"AWS credentials can't be had: {type(error).__name__}")
        case RuntimeError():
            return ConfigError("AWS credentials can't be had: what was fetched is out of date")
        case _:
            return ConfigError("the AWS endpoint is not a URL: check bedrock_endpoint and AWS_ENDPOINT_URL")
