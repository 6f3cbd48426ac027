"""AWS identity of a call: region, endpoint and credentials, as boto3 finds them.

All work of botocore that waits or blocks (it loads long JSON files, calls STS, runs programs) runs in a thread with a
loop of its own. The caller's loop only waits for the result.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectionError as BotoConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidConfigError,
    InvalidRegionError,
    LoginError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.loaders import create_loader

from impasto import ConfigError, ImpastoError, NotSent
from impasto.ext import Options, check_base_url, check_key, printable

T = TypeVar("T")

SIGNING_NAME = "bedrock"
_SERVICE = "bedrock-runtime"

_at_work: ContextVar[bool] = ContextVar("_at_work", default=False)
"""True while botocore works for impasto in this context: then its log lines are not the user's."""


class Once(Generic[T]):
    """Work of botocore that runs once for all callers that wait for it, in a thread and a loop of its own.

    It continues if a waiting caller is cancelled. The next caller after its end starts it again.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._running: asyncio.Future[T] | None = None

    def start(self) -> asyncio.Future[T]:
        """Return the running work, or start it."""
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().run_in_executor(None, run_in_loop_of_its_own, self._work)
            self._running.add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # raised for those who wait; if nobody does, asyncio would report it as lost
        return self._running

    async def __call__(self) -> T:
        """Return its result. Raises ConfigError or NotSent."""
        try:
            return await asyncio.shield(self.start())
        except Exception as error:  # noqa: BLE001 - credential sources run any code: files, programs, servers
            raise to_identity_error(error) from None


class Identity:
    """An account's region, endpoint and credentials.

    ``keys`` are explicit ones. ``source`` finds botocore's at first use; those that expire are fetched again.
    """

    def __init__(
        self,
        region: str,
        endpoint: str,
        *,
        bearer: str | None = None,
        keys: ReadOnlyCredentials | None = None,
        source: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self.region = region
        self.endpoint = endpoint
        self._bearer = bearer
        self._keys = keys
        self._source = source
        self._credentials: Any = None  # botocore has no types
        self._fetch = Once(self._fetch_keys)

    async def keys(self) -> ReadOnlyCredentials | None:
        """Return the credentials to sign with, None with a bearer token. Raises ConfigError or NotSent."""
        if self._source is not None:
            if self._keys is None or self._is_due(0):
                await self._fetch()
            elif self._is_due():  # they are still valid: fetch new ones in the background, nobody waits
                self._fetch.start()
        return self._keys

    def _is_due(self, *seconds: float) -> bool:
        """Return True if the credentials end in so many seconds; by default in botocore's own 15 minutes."""
        due: Callable[..., bool] | None = getattr(self._credentials, "refresh_needed", None)
        return due is not None and due(*seconds)

    async def _fetch_keys(self) -> None:
        if self._source is not None and self._credentials is None:
            self._credentials = await self._source()
            if self._credentials is None:
                raise NoCredentialsError
        keys = await self._credentials.get_frozen_credentials()
        check_key(keys.access_key, "the AWS access key id that was found")
        check_key(keys.secret_key, "the AWS secret access key that was found")
        if keys.token:
            check_key(keys.token, "the AWS session token that was found")
        self._keys = keys

    def sign(
        self, url: str, headers: Mapping[str, str], body: bytes | bytearray, keys: ReadOnlyCredentials | None
    ) -> dict[str, str]:
        """Return the headers of a signed POST. Hashes the body."""
        if keys is None:
            return {**headers, "authorization": f"Bearer {self._bearer}"}
        request = AWSRequest("POST", url, headers=dict(headers), data=body)
        with silenced_botocore():  # at DEBUG it logs the canonical request and the signature
            SigV4Auth(keys, SIGNING_NAME, self.region).add_auth(request)
        return dict(request.headers.items())


def explicit_identity(settings: Mapping[str, str]) -> Identity | None:
    """Return the identity of an account whose settings are complete, or None."""
    region, endpoint = settings.get("region"), settings.get("endpoint")
    keys, bearer = _explicit(settings), settings.get("bearer")
    if region is None or endpoint is None or (keys or bearer) is None:
        return None
    return Identity(region, endpoint, bearer=bearer, keys=keys)


def _explicit(settings: Mapping[str, str]) -> ReadOnlyCredentials | None:
    if "access_key_id" not in settings:
        return None
    return ReadOnlyCredentials(
        settings["access_key_id"], settings["secret_access_key"], settings.get("session_token"), None
    )


async def find_identity(settings: Mapping[str, str], options: Options) -> Identity:
    """Return the identity that botocore finds for Bedrock.

    botocore's client resolves the endpoint from variables, profile and partition. It sends no request.
    """
    session = create_session(settings)
    if options.proxy is not None:  # for STS and SSO too, and so is an own CA
        session.set_default_client_config(AioConfig(proxies={"https": options.proxy}))
    if isinstance(options.ssl, str | os.PathLike):
        session.set_config_variable("ca_bundle", os.fspath(options.ssl))
    async with open_client(session, _SERVICE, settings, AioConfig(signature_version=UNSIGNED)) as client:
        region = client.meta.region_name
        endpoint = check_base_url(client.meta.endpoint_url, "the AWS endpoint URL", with_path=True)
    keys, bearer = _explicit(settings), settings.get("bearer")
    source = session.get_credentials if (keys or bearer) is None else None
    return Identity(region, endpoint, bearer=bearer, keys=keys, source=source)


def create_session(settings: Mapping[str, str]) -> AioSession:
    """Return a session of botocore with an account's profile."""
    session = AioSession(profile=settings.get("profile"))
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@asynccontextmanager
async def open_client(
    session: AioSession, service: str, settings: Mapping[str, str], config: AioConfig, verify: str | None = None
) -> AsyncIterator[Any]:
    """Open botocore's client of a service. ``verify`` is a file of CA certificates. Raises ConfigError."""
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(
                session.create_client(
                    service,
                    region_name=settings.get("region"),
                    endpoint_url=settings.get("endpoint"),
                    verify=verify,
                    config=config,
                )
            )
        except ValueError as error:
            if isinstance(error, BotoCoreError):
                raise
            raise ConfigError("the AWS endpoint is not a URL: check the configured one and AWS_ENDPOINT_URL") from None
        yield client


def ca_bundle(profile: str | None) -> str | None:
    """Return the CA file or folder that boto3 would use: AWS_CA_BUNDLE, the profile's, or REQUESTS_CA_BUNDLE.

    Reads the AWS configuration file, so run it in a thread.
    """
    with silenced_botocore():
        try:
            path: str | None = AioSession(profile=profile).get_config_variable("ca_bundle")
        except BotoCoreError:  # a wrong profile or file is reported when credentials are needed
            path = os.environ.get("AWS_CA_BUNDLE")
    return path or os.environ.get("REQUESTS_CA_BUNDLE") or None


@functools.cache
def _loader(path: str | None) -> Any:
    """Return botocore's loader, one for the process: parsing its JSON files takes long and blocks other threads."""
    return create_loader(path)


@contextmanager
def silenced_botocore() -> Iterator[None]:
    """Mark work of botocore in this context as impasto's: its log lines below warnings are dropped."""
    quiet = _at_work.set(True)
    try:
        yield
    finally:
        _at_work.reset(quiet)


def run_in_loop_of_its_own(work: Callable[[], Awaitable[T]]) -> T:
    """Run work of botocore in this thread with a loop of its own."""
    _at_work.set(True)  # a thread's context is its own
    _silence_botocore()  # again: botocore creates loggers when it is used
    return asyncio.run(_await(work))


async def _await(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _silence_botocore() -> None:
    """Drop botocore's log lines below warnings while it works for impasto: at DEBUG it logs tokens and signatures.

    A user's own use of botocore in the same process is logged as before.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("botocore", "aiobotocore"):
            logging.getLogger(name).addFilter(_filter_record)  # adding it again changes nothing


def _filter_record(record: logging.LogRecord) -> bool:
    if not _at_work.get():
        return True
    record.exc_info = None  # may quote a server's or a program's output, and so a secret
    return record.levelno >= logging.WARNING


_silence_botocore()


def to_identity_error(error: Exception) -> ImpastoError:
    """Return the error for an identity that botocore could not find: the places it searched, and no secret."""
    match error:
        case ImpastoError():
            return copy.copy(error)  # each caller that waited raises its own
        case NoRegionError():
            places = "aws_region, the ARN, AWS_REGION_NAME, AWS_REGION, AWS_DEFAULT_REGION and the profile"
            return ConfigError(f"no AWS region found in {places}: set one of them")
        case InvalidRegionError():
            return ConfigError("invalid AWS region: give one such as us-west-2")
        case NoCredentialsError():
            places = (
                "api_key, aws_access_key_id and aws_secret_access_key, AWS_BEARER_TOKEN_BEDROCK, AWS_ACCESS_KEY_ID, "
                "the profile, web identity, SSO, the container endpoint and instance metadata"
            )
            return ConfigError(f"no AWS credentials found in {places}: set one of them")
        case PartialCredentialsError():
            provider, missing = error.kwargs["provider"], error.kwargs["cred_var"]
            return ConfigError(f"incomplete AWS credentials ({provider}): {missing} is missing; give both keys")
        case ProfileNotFound():
            return ConfigError("the AWS profile is not in the configuration files: check aws_profile or AWS_PROFILE")
        case ConfigParseError():
            return ConfigError("invalid AWS configuration or credentials file: check its syntax")
        case InvalidConfigError():
            return ConfigError(f"the AWS profile can't be used: {printable(str(error))}")
        case SSOError() | LoginError() | TokenRetrievalError():
            return ConfigError("the AWS sign-in of the profile is missing or has expired: run aws sso login")
        case ClientError():
            code = printable(str(error.response.get("Error", {}).get("Code", "no code")))
            return ConfigError(f"can't get AWS credentials: {error.operation_name} was refused ({code})")
        case BotoConnectionError() | HTTPClientError():
            message = f"can't fetch AWS credentials ({type(error).__name__}); nothing was sent"
            return NotSent(message, retryable=not isinstance(error, SSLError))
        case CredentialRetrievalError():
            return ConfigError(f"can't get AWS credentials: their source failed ({error.kwargs['provider']})")
        case _:
            return ConfigError(f"can't get AWS credentials: {type(error).__name__}")
