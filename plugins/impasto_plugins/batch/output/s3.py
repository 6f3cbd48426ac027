"""``--out s3://bucket/prefix``: pictures and results go up; the ledger and what is on its way stay in a local folder.

A picture is up before its row says that it is done, and leaves the local folder after that. What a stop leaves between
the two goes up again: the same content under the same name changes nothing, and is not paid for.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path, PurePosixPath

import aiohttp
import attrs

from impasto import ConfigError, File, ImpastoError, MissingExtra
from impasto_plugins.batch.ledger.high_water import Mark
from impasto_plugins.batch.ledger.log import Row, untrusted
from impasto_plugins.batch.ledger.workspace import HIDDEN, History, Layout, state_folder
from impasto_plugins.transports.s3 import NotStored, Objects

SCHEME = "s3://"
TRIES = 8
"""How often an upload is tried: a bucket that asks for less comes back within a minute or two."""

_MARK = ".impasto-batch"
"""The object that says which batch a prefix belongs to."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/ ()+=@-]{0,200}")
_TYPES = {".jsonl": "application/jsonl", ".html": "text/html; charset=utf-8"}
_ADVICE = {
    "NoSuchBucket": "there is no such bucket",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "AccessDenied": "these credentials may not: they need s3:PutObject and s3:GetObject there",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret access key does not fit the access key",
}


@attrs.frozen
class Target:
    """A bucket and a prefix, as ``--out`` names them."""

    bucket: str
    prefix: str
    endpoint: str | None = None

    @classmethod
    def of(cls, text: str, endpoint: str | None = None) -> Target:
        """Reads ``s3://bucket/prefix``. Raises ConfigError."""
        bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
        prefix = prefix.strip("/")
        parts = prefix.split("/") if prefix else []
        if _BUCKET.fullmatch(bucket) is None or _PREFIX.fullmatch(prefix) is None or {"", ".", ".."} & {*parts}:
            raise ConfigError(f"--out must be a folder or s3://bucket/prefix, of plain letters, not {text[:200]!r}")
        if endpoint is not None and re.fullmatch(r"https?://[^/\s?#@]+/?", endpoint) is None:
            raise ConfigError("--s3-endpoint must be a URL such as https://minio.example:9000")
        return cls(bucket, prefix, endpoint and endpoint.rstrip("/"))

    @property
    def staging(self) -> Path:
        """The local folder of a batch that goes there, where none is given."""
        name = re.sub(r"[^a-z0-9.-]+", "-", f"{self.bucket}-{self.prefix}".lower()).strip("-")[:100]
        return state_folder() / "staging" / f"{name}-{hashlib.sha256(str(self).encode()).hexdigest()[:10]}"

    def url(self, name: str) -> str:
        """What names an object of it."""
        return f"{self}/{name}"

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


def target_of(out: str, staging: object, endpoint: str | None) -> Target | None:
    """The bucket that ``--out`` names, if any. Raises ConfigError, also where an option is given that needs one."""
    if out.startswith(SCHEME):
        return Target.of(out, endpoint)
    for option, given in (("staging", staging), ("s3-endpoint", endpoint)):
        if given is not None:
            raise ConfigError(f"--{option} goes with --out s3://bucket/prefix")
    return None


def local_folder(text: str) -> Path:
    """The local folder of a batch that is named by its ``--out``."""
    return Target.of(text).staging if text.startswith(SCHEME) else Path(text)


@attrs.frozen(eq=False)
class Bucket:
    """A target that can be written to."""

    target: Target
    objects: Objects
    is_started_over: bool = False
    """Whether the ledger was begun anew on purpose, and may be shorter than before."""

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target, *, is_started_over: bool = False) -> AsyncIterator[Bucket]:
        """Raises ConfigError or MissingExtra."""
        async with aiohttp.ClientSession(trust_env=True) as session:
            try:
                objects = await Objects.open(target.bucket, target.prefix, {"endpoint": target.endpoint}, session)
            except MissingExtra:
                raise
            except ImpastoError as error:
                raise ConfigError(f"--out {target}: {error.message}") from None
            yield cls(target, objects, is_started_over)

    async def look(self, layout: Layout) -> bool:
        """Return True if the prefix is this batch's already; change nothing.

        Raises ConfigError if it is another's, or if the ledger here is older than the one that the last run had.
        """
        try:
            found = await self.objects.get(_MARK)
        except NotStored as error:
            raise self._refused(error) from None
        if found is None:
            return False
        token, _, line = found.partition(b" ")
        if token != await asyncio.to_thread(_token_in, layout):
            raise ConfigError(
                f"--out {self.target} holds another batch: give another prefix, or with --staging the folder of its"
                " ledger"
            )
        before, now = Mark.parse(line), await asyncio.to_thread(Mark.read, layout.high_water)
        if before is not None and now is not None and now.size < before.size and not self.is_started_over:
            said = f"has {now.size:,} whole bytes, and the last run that went to {self.target} had {before.size:,}"
            raise untrusted(layout.ledger, f"{said}: it is an older copy")
        return True

    async def remember(self, layout: Layout) -> None:
        """Note in the bucket how long the ledger is: an older copy of it is known by that. Raises OSError."""
        token, mark = await asyncio.to_thread(lambda: (_token(layout), Mark.read(layout.high_water)))
        content = File.of(token + b" " + mark.line if mark is not None else token)
        await self._put(_MARK, content, "text/plain", only_new=False)

    async def claim(self, layout: Layout) -> None:
        """Makes the prefix this batch's, which proves that it can be written to. Raises ConfigError, OSError."""
        token = File.of(await asyncio.to_thread(_token, layout))
        is_new = not await self.look(layout)
        try:
            if not is_new:
                await self.remember(layout)
            elif not await self.objects.put(_MARK, token, "text/plain", tries=TRIES, only_new=True):
                await self.look(layout)  # somebody was faster
        except NotStored as error:
            raise self._refused(error) from None

    async def keep(self, staged: Path, row: Row) -> str:
        """Puts a staged picture up under its name, or another where that is another's. Gives it. Raises OSError."""
        wanted, number = PurePosixPath(row["path"]), 0
        name = str(wanted)
        content = await asyncio.to_thread(File.of, staged)
        while not await self._put(name, content, row["media_type"], only_new=True):
            if hashlib.sha256(await self._there(name)).hexdigest() == row["sha256"]:
                break  # an earlier run put it up, and stopped
            number += 1
            name = str(wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}"))
        return name

    def url(self, name: str) -> str:
        """Return the URL of an object."""
        return self.target.url(name)

    async def publish(self, paths: Sequence[Path]) -> None:
        """Puts files up in the place of what was there. Raises OSError."""
        for path in paths:
            content = await asyncio.to_thread(File.of, path)
            await self._put(path.name, content, _TYPES[path.suffix], only_new=False)

    async def _put(self, name: str, content: File, media_type: str, *, only_new: bool) -> bool:
        try:
            return await self.objects.put(name, content, media_type, tries=TRIES, only_new=only_new)
        except (NotStored, ImpastoError) as error:
            raise self._failed(error) from None

    async def _there(self, name: str) -> bytes:
        try:
            return await self.objects.get(name) or b""
        except (NotStored, ImpastoError) as error:
            raise self._failed(error) from None

    def _failed(self, error: NotStored | ImpastoError) -> OSError:
        return OSError(errno.EIO, f"{self.target}: {error}")

    def _refused(self, error: NotStored) -> ConfigError:
        said = _ADVICE.get(error.code, "it can't be written to")
        return ConfigError(f"--out {self.target}: {said} ({error}); nothing was sent")


def check_target(history: History, out: Path, target: Target | None) -> None:
    """Raises ConfigError where what was made before is elsewhere."""
    before = history.run
    if before is not None and before.get("target") != (str(target) if target is not None else None):
        where = before.get("target") or repr(str(out))
        raise ConfigError(f"this batch was run with --out {where}: go on with that, or give another folder")


async def claimed(stack: AsyncExitStack, target: Target | None, history: History) -> Bucket | None:
    """The bucket that a batch goes up to, if any, open until ``stack`` closes it. Raises ConfigError, OSError."""
    if target is None:
        return None
    bucket = await stack.enter_async_context(Bucket.open(target, is_started_over=history.is_started_over))
    await bucket.claim(history.layout)
    return bucket


def _token(layout: Layout) -> bytes:
    """What tells this batch from others, made where there is none."""
    if (there := _token_in(layout)) is not None:
        return there
    path, token = layout.root / HIDDEN / _MARK, secrets.token_hex(16).encode()
    part = path.with_suffix(".part")
    part.write_bytes(token)
    part.replace(path)
    return token


def _token_in(layout: Layout) -> bytes | None:
    path = layout.root / HIDDEN / _MARK
    return path.read_bytes() if path.is_file() else None
