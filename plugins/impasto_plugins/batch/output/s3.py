"""``--out s3://bucket/prefix``: images and results are uploaded; the ledger and unfinished images stay in a folder.

An image is uploaded before its row says that it is done, and leaves the local folder afterwards. An image that a stop
leaves between the two is uploaded again: the same content under the same name changes nothing, and is not paid for.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path, PurePosixPath

import attrs

from impasto import ConfigError, File, ImpastoError, MissingExtra
from impasto.ext import machine_folder
from impasto_plugins.batch.ledger.high_water import Mark
from impasto_plugins.batch.ledger.log import Row, untrusted_ledger
from impasto_plugins.batch.ledger.workspace import HIDDEN, LedgerHistory, WorkspacePaths
from impasto_plugins.transports.s3 import NotStored, Objects, S3Clients

SCHEME = "s3://"
TRIES = 8
"""Tries of an upload: an overloaded bucket recovers within a minute or two."""

_MARK = ".impasto-batch"
"""The object that names the batch of a prefix."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/ ()+=@-]{0,200}")
_TYPES = {".jsonl": "application/jsonl", ".html": "text/html; charset=utf-8"}
_ADVICE = {
    "NoSuchBucket": "the bucket does not exist",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "AccessDenied": (
        "access denied: these credentials need s3:PutObject and s3:GetObject there, and s3:ListBucket with --join"
    ),
    "InvalidAccessKeyId": "the access key does not exist there",
    "SignatureDoesNotMatch": "the secret access key does not match the access key",
}


@attrs.frozen
class BucketTarget:
    """A bucket and a prefix, as ``--out`` names them."""

    bucket: str
    prefix: str
    endpoint: str | None = None

    @classmethod
    def parse(cls, text: str, endpoint: str | None = None) -> BucketTarget:
        """Parse ``s3://bucket/prefix``. Raises ConfigError."""
        bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
        prefix = prefix.strip("/")
        parts = prefix.split("/") if prefix else []
        if _BUCKET.fullmatch(bucket) is None:
            rule = "3 to 63 lowercase letters, digits, dots and hyphens, with a letter or digit at both ends"
            raise ConfigError(f"--out {text[:200]!r}: {bucket[:80]!r} is not a bucket name; S3 allows {rule}")
        if _PREFIX.fullmatch(prefix) is None or {"", ".", ".."} & {*parts}:
            allowed = "up to 200 ASCII letters, digits, spaces and . _ - / ( ) + = @, without empty parts, . and .."
            raise ConfigError(f"--out {text[:200]!r}: invalid prefix; allowed are {allowed}")
        if endpoint is not None and re.fullmatch(r"https?://[^/\s?#@]+/?", endpoint) is None:
            raise ConfigError("--s3-endpoint must be a URL such as https://minio.example:9000")
        return cls(bucket, prefix, endpoint and endpoint.rstrip("/"))

    @property
    def staging(self) -> Path:
        """Return the default local folder of a batch with this target."""
        name = re.sub(r"[^a-z0-9.-]+", "-", f"{self.bucket}-{self.prefix}".lower()).strip("-")[:100]
        return machine_folder() / "staging" / f"{name}-{hashlib.sha256(str(self).encode()).hexdigest()[:10]}"

    def url(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self}/{name}"

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


def target_of(out: str, staging: object, endpoint: str | None) -> BucketTarget | None:
    """Return the bucket of ``--out``, if any. Raises ConfigError, also for an option that needs one."""
    if out.startswith(SCHEME):
        return BucketTarget.parse(out, endpoint)
    for option, value in (("staging", staging), ("s3-endpoint", endpoint)):
        if value is not None:
            raise ConfigError(f"--{option} needs --out s3://bucket/prefix")
    return None


def local_folder(text: str) -> Path:
    """Return the local folder of a batch named by its ``--out``. Raises ConfigError."""
    if not text:  # a shell's variable without a value; Path would take the current folder
        raise ConfigError("the output folder has an empty name; give a folder, such as . for the current one")
    return BucketTarget.parse(text).staging if text.startswith(SCHEME) else Path(text)


@attrs.frozen(eq=False)
class ImageBucket:
    """An open bucket."""

    target: BucketTarget
    objects: Objects
    is_started_over: bool = False
    """True if the ledger was started over on purpose, and may be shorter than before."""

    @classmethod
    @asynccontextmanager
    async def open(cls, target: BucketTarget, *, is_started_over: bool = False) -> AsyncIterator[ImageBucket]:
        """Open a bucket. Raises ConfigError or MissingExtra."""
        async with S3Clients() as clients:
            try:
                objects = await Objects.open(target.bucket, target.prefix, {"endpoint": target.endpoint}, clients)
            except MissingExtra:
                raise
            except ImpastoError as error:
                raise ConfigError(f"--out {target}: {error.message}") from None
            yield cls(target, objects, is_started_over)

    async def inspect(self, layout: WorkspacePaths) -> bool:
        """Return True if the prefix belongs to this batch already; change nothing.

        Raises ConfigError if it belongs to another, or if the ledger here is older than that of the last run.
        """
        try:
            found = await self.objects.get(_MARK)
        except NotStored as error:
            raise self._configuration_error(error) from None
        if found is None:
            return False
        if found.startswith(b"{"):
            raise ConfigError(f"--out {self.target} contains a batch on several hosts: give --join, or another prefix")
        token, _, line = found.partition(b" ")
        if token != await asyncio.to_thread(_token_in, layout):
            raise ConfigError(
                f"--out {self.target} contains another batch: give another prefix, or the folder of its ledger"
                " with --staging"
            )
        before, now = Mark.parse(line), await asyncio.to_thread(Mark.read, layout.high_water)
        if before is not None and now is not None and now.size < before.size and not self.is_started_over:
            reason = f"has {now.size:,} valid bytes, but the last run to {self.target} had {before.size:,}"
            raise untrusted_ledger(layout.ledger, f"{reason}: it is an older copy")
        return True

    async def record_size(self, layout: WorkspacePaths) -> None:
        """Store the ledger's length in the bucket, to recognize an older copy of it. Raises OSError."""
        token, mark = await asyncio.to_thread(lambda: (_token(layout), Mark.read(layout.high_water)))
        content = File.of(token + b" " + mark.line if mark is not None else token)
        await self._put(_MARK, content, "text/plain", only_new=False)

    async def claim(self, layout: WorkspacePaths) -> None:
        """Claim the prefix for this batch, which proves that it can be written. Raises ConfigError, OSError."""
        token = File.of(await asyncio.to_thread(_token, layout))
        is_new = not await self.inspect(layout)
        try:
            if not is_new:
                await self.record_size(layout)
            elif not await self.objects.put(_MARK, token, "text/plain", tries=TRIES, only_new=True):
                await self.inspect(layout)  # somebody was faster
        except NotStored as error:
            raise self._configuration_error(error) from None

    async def claim_shared(self, mark: Mapping[str, object]) -> None:
        """Claim the prefix for a batch that all hosts with an equal mark share. Raises ConfigError, NotStored."""
        content = File.of(json.dumps(mark, sort_keys=True).encode())
        if not await self.objects.put(_MARK, content, "application/json", tries=TRIES, only_new=True):
            await self.check_shared(mark)

    async def check_shared(self, mark: Mapping[str, object]) -> None:
        """Raise ConfigError if the prefix belongs to another batch. Raises NotStored."""
        if (found := await self.objects.get(_MARK, tries=TRIES)) is None:
            return
        if not found.startswith(b"{"):
            raise ConfigError(f"--out {self.target} contains a batch that was run without --join: give another prefix")
        before: Mapping[str, object] = json.loads(found)
        if different := sorted(name for name in {*mark, *before} if mark.get(name) != before.get(name)):
            raise ConfigError(
                f"--out {self.target} contains a batch with another {' and another '.join(different)}; nothing was"
                " sent. All hosts need the same; for another batch, give another prefix"
            )

    async def is_claimed(self) -> bool:
        """Return True if the prefix belongs to a batch. Raises NotStored."""
        return await self.objects.get(_MARK, tries=TRIES) is not None

    async def find(self, row: Row) -> str | None:
        """Return the name under which a staged image of another host was uploaded, or None. Raises NotStored."""
        wanted, number = PurePosixPath(row["path"]), 0
        name = str(wanted)
        while (found := await self.objects.get(name, tries=TRIES)) is not None:
            if hashlib.sha256(found).hexdigest() == row["sha256"]:
                return name
            number += 1
            name = _numbered(wanted, number)
        return None

    async def upload(self, staged: Path, row: Row) -> str:
        """Upload a staged image under its name, or another if that is taken; return the name. Raises OSError."""
        wanted, number = PurePosixPath(row["path"]), 0
        name = str(wanted)
        content = await asyncio.to_thread(File.of, staged)
        while not await self._put(name, content, row["media_type"], only_new=True):
            if hashlib.sha256(await self._exists(name)).hexdigest() == row["sha256"]:
                break  # an earlier run put it up, and stopped
            number += 1
            name = _numbered(wanted, number)
        return name

    def url(self, name: str) -> str:
        """Return the URL of an object."""
        return self.target.url(name)

    async def publish(self, paths: Sequence[Path]) -> None:
        """Upload files, replacing earlier ones. Raises OSError."""
        for path in paths:
            content = await asyncio.to_thread(File.of, path)
            await self._put(path.name, content, _TYPES[path.suffix], only_new=False)

    async def _put(self, name: str, content: File, media_type: str, *, only_new: bool) -> bool:
        try:
            return await self.objects.put(name, content, media_type, tries=TRIES, only_new=only_new)
        except (NotStored, ImpastoError) as error:
            raise self._upload_error(error) from None

    async def _exists(self, name: str) -> bytes:
        try:
            return await self.objects.get(name) or b""
        except (NotStored, ImpastoError) as error:
            raise self._upload_error(error) from None

    def _upload_error(self, error: NotStored | ImpastoError) -> OSError:
        return OSError(errno.EIO, f"{self.target}: {error}")

    @contextmanager
    def configuration_errors(self) -> Iterator[None]:
        """Raise ConfigError for a bucket that can't be used."""
        try:
            yield
        except NotStored as error:
            raise self._configuration_error(error) from None

    def _configuration_error(self, error: NotStored) -> ConfigError:
        advice = _ADVICE.get(error.code, "it is not writable")
        return ConfigError(f"--out {self.target}: {advice} ({error}); nothing was sent")


def _numbered(name: PurePosixPath, number: int) -> str:
    return str(name.with_name(f"{name.stem}-{number}{name.suffix}"))


def check_target(history: LedgerHistory, out: Path, target: BucketTarget | None) -> None:
    """Raise ConfigError if the earlier images are somewhere else."""
    before = history.run
    if before is not None and before.get("target") != (str(target) if target is not None else None):
        where = before.get("target") or repr(str(out))
        raise ConfigError(f"this batch was run with --out {where}: use that one, or give another folder")


async def claim_bucket(
    stack: AsyncExitStack, target: BucketTarget | None, history: LedgerHistory
) -> ImageBucket | None:
    """Return the bucket of a batch, if any, open until ``stack`` closes it. Raises ConfigError, OSError."""
    if target is None:
        return None
    bucket = await stack.enter_async_context(ImageBucket.open(target, is_started_over=history.is_started_over))
    await bucket.claim(history.layout)
    return bucket


def _token(layout: WorkspacePaths) -> bytes:
    """Return this batch's token; create it if there is none."""
    if (there := _token_in(layout)) is not None:
        return there
    path, token = layout.root / HIDDEN / _MARK, secrets.token_hex(16).encode()
    part = path.with_suffix(".part")
    part.write_bytes(token)
    part.replace(path)
    return token


def _token_in(layout: WorkspacePaths) -> bytes | None:
    path = layout.root / HIDDEN / _MARK
    return path.read_bytes() if path.is_file() else None
