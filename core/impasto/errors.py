"""Everything impasto raises. Each error says two independent facts: was it billed, may it be retried.

ImpastoError                operation, billed, retryable, request_id; errors (of a fan-out that failed whole)
  RegistryError
    UnknownOperation        no such model; the closest names
    DuplicateOperation      two distributions claim one name
    BrokenPlugin            a plugin failed to load, or broke its contract
    NotAllowed              its distribution is not among those that may be used; how to allow it
    MissingExtra            an optional dependency; the command that installs it
  ConfigError (ValueError)  keys, base URLs, time-outs: found before any socket is opened
    ManifestError           a batch manifest
  ClientClosedError         the client was closed
  LoopMismatchError         the client belongs to another event loop or process
  InvalidRequest (ValueError)  problems: all at once; nothing was sent
  SpendLimitExceeded        the client's own limit; nothing was sent
  TransportError
    NotSent                 proved: no request header left
    ChargeUnknown           the request was sent, its outcome is unknown; raw has the bytes, id the job
    PollExpired             the job's result has expired at the provider
  ResponseError             the provider refused in its own form: status, name, messages
    BadRequest  Unauthorized  PaymentRequired  PermissionDenied  NotFound  TooLarge  Unprocessable
    RateLimited             retry_after, seconds
    ProviderFault           the provider's own failure
    ContentFiltered         refused by moderation, or answered with a blurred image (in artifacts)
    JobFailed               the provider reports that a job failed
  UnusableResult            paid for, but without a usable image; raw has the bytes
  BatchStopped              a batch ended before its last image: reason
  StorageError              a folder, disk or bucket can't be written
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from .error_arguments import Rebuilt
from .redact import printable
from .retry_after import BoundedWait

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .costs import Cost, Usage
    from .files import File
    from .records import Artifact

Billed = Literal["no", "yes", "unknown"]
StopReason = Literal[
    "budget", "max_failures", "unauthorized", "payment", "storage",
    "unreachable", "deadline", "interrupted", "configuration",
]  # fmt: skip


class ImpastoError(Rebuilt):
    """Base of every error raised here; never raised itself."""

    billed: Billed = "no"
    retryable: bool = False
    artifacts: tuple[Artifact, ...] = ()
    count: int = 1  # images that its request asked for
    cost: Cost | None = None
    """What its request cost or may have cost, all images together, if the provider says so: a plugin sets it."""
    usage: Usage | None = None
    """The tokens that the provider counted for it; ``cost`` is their price, if they have one."""
    billed_each: tuple[Billed, ...] = ()
    """``billed`` of each image, if this is the error of several: its own ``billed`` is that of all of them."""

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.operation: str | None = None
        self.request_id = request_id
        self.id: str | None = None
        """The provider's id of a job that runs on: ``client.resume`` takes it up, with ``count`` as its ``n``."""
        self.errors: tuple[ImpastoError, ...] = ()

    def __str__(self) -> str:
        return f"{self.operation}: {self.message}" if self.operation else self.message


class RegistryError(ImpastoError, LookupError):
    """A model's plugin can't be had."""


class UnknownOperation(RegistryError):
    """No installed distribution declares this model."""


class DuplicateOperation(RegistryError):
    """Two installed distributions declare this model; neither is preferred."""


class BrokenPlugin(RegistryError):
    """A plugin failed to import, or did what its contract forbids."""


class NotAllowed(RegistryError):
    """The model is of a distribution that may not be used here (``IMPASTO_PLUGINS``); nothing of it was imported."""


class MissingExtra(RegistryError):
    """An optional dependency is not installed; the message holds the command that installs it."""


class ConfigError(ImpastoError, ValueError):
    """A setting is missing or wrong; found before any socket is opened."""


class ManifestError(ConfigError):
    """A batch manifest is wrong; found before anything is spent."""


class ClientClosedError(ImpastoError, RuntimeError):
    """The client was used after it was closed."""


class LoopMismatchError(ImpastoError, RuntimeError):
    """The client was used from another event loop, or in a forked process."""


MAX_PROBLEMS = 24  # that one error lists: an answer must not grow with its request
LONGEST_NAME, LONGEST_PROBLEM = 100, 600  # characters of each in an error's message


class Problem(NamedTuple):  # no attrs here and in the registry: a command line that only lists names starts without it
    """One thing wrong with a request: the parameter's name and what it takes."""

    field: str
    message: str

    def __str__(self) -> str:
        message = self.message[:LONGEST_PROBLEM] + ("..." if len(self.message) > LONGEST_PROBLEM else "")
        if message.startswith(f"unknown parameter {self.field!r}"):
            return message
        return f"{printable(self.field[:LONGEST_NAME])}: {message}"


class InvalidRequest(ImpastoError, ValueError):
    """The parameters do not fit the model; nothing was sent. At most ``MAX_PROBLEMS`` are listed."""

    def __init__(self, problems: Iterable[Sequence[str]], *, operation: str | None = None) -> None:
        every = tuple(Problem(*each) for each in problems)
        self.problems = every[:MAX_PROBLEMS]
        more = f"; and {len(every) - MAX_PROBLEMS:,} more problems" if len(every) > MAX_PROBLEMS else ""
        super().__init__(f"{'; '.join(map(str, self.problems))}{more} (nothing was sent)")
        self.operation = operation

    first_argument = "problems"


class SpendLimitExceeded(ImpastoError):
    """The call could pass ``spend_limit_usd``, or its price is not known; nothing was sent."""


class TransportError(ImpastoError):
    """The exchange with the provider failed below its own errors. ``status``: that of its answer, if one came."""

    status: int | None = None


class NotSent(TransportError):
    """No header of the request left this machine, so nothing was charged."""

    retryable = True

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ChargeUnknown(TransportError):
    """The request was sent and its outcome is unknown: it may have been charged. Never retried unless asked for.

    ``billed`` is ``"yes"`` if an image was made and could not be fetched from its address.
    ``raw`` has the bytes that came (``file``, if they were many), ``artifacts`` a stream's last images, ``id`` the job.
    ``pause``: seconds for which the key sends nothing more, if the answer suggests that the provider locked it.
    """

    billed: Billed = "unknown"
    file: File | None = None
    pause: float = 0.0

    def __init__(
        self, message: str, *, status: int | None = None, raw: bytes = b"", request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.status = status
        self.raw = raw


class PollExpired(TransportError):
    """The job was accepted, but its result is older than the provider keeps it."""

    billed = "unknown"


class ResponseError(ImpastoError):
    """The provider answered with a refusal in its own form. ``billed``, if it is not as usual for this error."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 200,
        name: str | None = None,
        messages: tuple[str, ...] = (),
        request_id: str | None = None,
        billed: Billed | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.status = status
        self.name = name
        self.messages = messages
        self.billed = billed or self.billed


class BadRequest(ResponseError):
    """400: a parameter or the body is wrong."""


class Unauthorized(ResponseError):
    """401: the key is missing or wrong."""


class PaymentRequired(ResponseError):
    """402: the account has too few credits."""


class PermissionDenied(ResponseError):
    """403, other than moderation."""


class NotFound(ResponseError):
    """404."""


class TooLarge(ResponseError):
    """413: the whole request is too large."""


class Unprocessable(ResponseError):
    """422: well formed, but refused (language, likeness)."""


class RateLimited(ResponseError):
    """429. ``per_model``: only the model has to wait, in its region.

    ``retry_after``: seconds until the key may send again, as the provider asked or documents, at most an hour; None if
    neither, then each call backs off.
    """

    retryable = True
    per_model: bool = False
    retry_after = BoundedWait()


class ProviderFault(ResponseError):
    """500 or 503 in the provider's own form, or its word that the generation failed."""

    retryable = True


class ContentFiltered(ResponseError):
    """Refused by moderation; never retried. ``artifacts`` has a blurred image if one came; it may have been billed."""


class JobFailed(ResponseError):
    """The provider reports that a job failed. Its plugin says if it was billed."""

    billed = "unknown"


class UnusableResult(ImpastoError):
    """A complete, paid answer without a usable image. ``raw`` has its bytes, or ``file`` if they were too many."""

    billed: Billed = "yes"
    file: File | None = None

    def __init__(self, message: str, *, raw: bytes = b"", media_type: str = "", request_id: str | None = None) -> None:
        super().__init__(message, request_id=request_id)
        self.raw = raw
        self.media_type = media_type


class BatchStopped(ImpastoError):
    """A batch ended before its last image. The remaining images cost nothing; run the batch again to make them.

    ``reason`` is a ``StopReason``: ``unauthorized`` is the key, ``payment`` the credits, ``unreachable`` the provider.
    ``billed`` is about the images of this run.
    """

    def __init__(self, message: str, *, reason: StopReason = "interrupted", billed: Billed = "no") -> None:
        super().__init__(message)
        self.reason = reason
        self.billed = billed


class StorageError(ImpastoError):
    """A folder, a disk or a bucket can't be written, or no longer has what was written there."""
