"""One running call: its deadline, and the evidence of what was sent to the provider."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from .call_errors import redacted_file
from .deadline import Deadline, DeadlineScheduler
from .errors import BrokenPlugin, ChargeUnknown
from .interrupts import pass_interrupt
from .wire import LARGE_BYTES, WireResponse, has_too_many_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from .costs import Cost
    from .errors import ImpastoError, NotSent
    from .files import File
    from .policy import Retry
    from .provider import Account
    from .records import Artifact, Partial, Pending, Request, Result
    from .wire import Spool, WireRequest

_log = logging.getLogger("impasto")

JOB_CANCELLED = "was cancelled"
"""The end of a job that the provider stopped, in words."""

SECOND_SEND = "a plugin sent the same paid request twice; only the retry policy may do that"


@attrs.define(eq=False)
class Sending:
    """The evidence of one exchange: retries and billing are decided from what its transport reports here.

    Use it in a ``with`` block around the exchange. An answer proves that the request was sent, so a block that ends
    without an error is one in which the headers left, whatever the transport forgot to report.
    """

    _call: Call | None
    _is_paid: bool
    body_sent: Callable[[], object]
    """Reports that the whole request was written; also after the block, if an answer came before."""

    def __enter__(self) -> Self:
        if self._is_paid and self._call is not None:
            self._call.begin_attempt()
        return self

    def headers_sent(self) -> None:
        """Report that headers may leave from now on. Raises BrokenPlugin if the call is over."""
        call = self._call
        if self._is_paid and call is not None and not call._sent:  # noqa: SLF001 - of this module
            call.mark_headers_sent()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.headers_sent()
        self._call = None  # a transport may be held by timers long after the call, which holds files


class Call:
    """The call of one image. Transports report to it; retries and billing are decided from it. ``timeout`` in seconds.

    Subclass it to keep a record, and pass the subclass to ``client.invoke``. ``before_send`` is awaited before each
    exchange if ``is_recorded``; ``mark_headers_sent`` is called when a paid request's headers leave,
    ``mark_not_sent`` when a request could not be sent, ``mark_not_charged`` when an answer proves that an attempt cost
    nothing, ``mark_job_accepted`` when the provider accepted a job; then ``record_job`` is awaited if ``is_recorded``.
    ``spool`` and ``text_spool`` are called if ``has_spools``; ``hold`` is awaited as a long event arrives.
    """

    is_recorded: ClassVar[bool] = False
    has_spools: bool = False

    # What few calls set has its default here: benchmark `dispatch`.
    price: Cost | None = None
    """The price of one image, None if unknown."""
    job_cost: Cost | None = None
    """The cost of the job, if the provider stated it as it accepted the job."""
    pending: Pending | None = None
    """The job as the last answer described it."""
    refusal: ImpastoError | None = None
    """The provider's own words on the end of this call, in an answer that was read whole. Its bill is believed."""
    retry_after = 0.0
    """Seconds for which the last answer to a poll asks to wait."""
    cancellation = ""
    """The end of a job that the caller gave up, in words."""
    is_refused = False
    """True if the provider has refused the last headers of ``authorize``, which then gets others."""
    has_odd_result = False
    """True if the plugin's result has more than artifacts and plain texts, see ``checked_result``."""
    _is_job_free = False
    images_wait = False
    """True if the job has ended: its images are at the provider, and are fetched."""
    on_partial: Callable[[Partial], object] | None = None
    """Callback for the partial results of a stream."""
    file: File | None = None
    """A whole answer that waits for memory."""
    artifacts: tuple[Artifact, ...] = ()
    """The last artifacts of a stream, which are in the error of a call that ends without a result."""

    def __init__(
        self,
        request: Request,
        account: Account,
        *,
        timeout: float,
        retry: Retry,
        watch: DeadlineScheduler | None = None,
    ) -> None:
        self.request = request
        self.account = account
        self.secrets = account.secrets
        """Texts that no message may show. A transport that finds further keys adds them."""
        self.timeout = timeout
        self._retry = retry
        self.deadline = Deadline(watch or DeadlineScheduler())
        self._posts = self._unknown = 0
        self._sent = False
        self._may_post = self._is_over = False  # set by the permission to send, see there
        self.answer: WireResponse | None = None
        """The answer that is being read."""
        self.job: str | None = None
        self.on_end: tuple[Callable[[Result | None], None], ...] = ()
        """Callbacks for the end of the call, with its result or None. A middleware that needs the result adds itself.
        """
        self.on_written: Callable[[], object] = object  # which does nothing
        """Callback for the moment when the whole request, its body too, has been written. Set by the owner of the rate.
        """

    @property
    def retry(self) -> Retry:
        """The caller's retry policy. It can't change while the call runs."""
        return self._retry

    @property
    def attempts_started(self) -> int:
        """The number of POSTs that were started."""
        return self._posts

    @property
    def sent(self) -> bool:
        """True if the running attempt sent its headers, and no answer has proved yet that it cost nothing."""
        return self._sent

    @property
    def unknown_attempts(self) -> int:
        """The number of earlier attempts that may have been charged."""
        return self._unknown

    @property
    def is_proven_free(self) -> bool:
        """True if it is proved that the call cost nothing: no paid request was started, now or earlier for a job."""
        return not self._posts and self.request.job is None

    @property
    def possible_charges(self) -> int:
        """The largest number of charges that this call may have caused."""
        return self.unknown_attempts + (self.sent or (self.job is not None and not self._is_job_free))

    def begin(self) -> None:
        """Start the call's time. Later calls change nothing."""
        self.deadline.start(self.timeout)

    def remaining(self) -> float:
        """Return the seconds left, or infinity while the call waits for its slot."""
        return self.deadline.remaining()

    def sending(self, *, paid: bool) -> Sending:
        """Return the evidence of an exchange for its transport: ``with wire.call.sending(paid=...) as evidence``.

        ``paid``: it is a POST. Entering the block raises BrokenPlugin for a second paid request in one ``send``.
        """
        return Sending(self, paid, self.on_written)

    def begin_attempt(self) -> None:
        """Note that a POST is about to be sent. Raises BrokenPlugin for a second POST in one ``send``."""
        if not self._may_post or self._is_over:
            raise BrokenPlugin(SECOND_SEND)
        self._may_post = False
        self._posts += 1

    def _begin(self) -> None:
        """Begin an attempt; ``again``: a retry. Only the route calls it, for the owner of retries."""
        self._may_post = True
        self._unknown += self._sent  # a retry: the attempt before it stays a possible charge for good
        self._sent = False
        self.answer = None

    def _mark_attempt_free(self, *, job: bool = False) -> None:
        """Note that an answer proves that the running attempt cost nothing, and its job too. The route calls it."""
        self._sent = False
        self._is_job_free = self._is_job_free or job

    async def read_body(self, response: WireResponse, *, raw: bool = False) -> WireResponse:
        """Read an answer's body to its end and return the answer with it.

        ``raw``: the body is the artifact, or JSON that holds it, and may go to a spool. Raises ChargeUnknown, with the
        bytes that came, if the body breaks off or has more values than are read.
        """
        stream = response.stream
        if stream is None:
            return response
        self.answer = response
        spool = (self.spool if raw else self.text_spool)(response) if self.has_spools else None
        try:
            body = await stream.collect(spool)
        except ChargeUnknown as error:
            error.raw, error.request_id = stream.received, response.request_id
            if spool is not None and stream.is_spooled:
                error.file = await asyncio.to_thread(redacted_file, await spool.finish(), self.secrets)
            raise
        if body is None and spool is not None:
            file = await spool.finish()
            if raw:
                return WireResponse(status=response.status, headers=response.headers, file=file)
            self.file = file
            body, self.file = await self.load(file), None
        if body and len(body) >= LARGE_BYTES and has_too_many_values(body):
            problem = "the answer has more values than are read"
            raise ChargeUnknown(problem, status=response.status, raw=body, request_id=response.request_id)
        return WireResponse(status=response.status, headers=response.headers, body=body or b"")

    def spool(self, response: WireResponse) -> Spool | None:
        """Return a spool for an artifact that is about to arrive, used if it is too large for memory.

        The caller closes it.
        """
        return None

    def text_spool(self, response: WireResponse) -> Spool | None:
        """Return a spool for any other answer, which is read back by ``load``. The caller closes it."""
        return None

    async def load(self, file: File) -> bytes:
        """Return a spooled answer that must be parsed, once there is memory for it."""
        return await asyncio.to_thread(file.read)

    async def hold(self, size: int) -> None:
        """Wait until so many more bytes of a stream may be in memory. Called as a long event of it arrives."""

    async def before_send(self, wire: WireRequest) -> None:
        """Run before each exchange, after the call got its slot and its place in the rate: records are written here."""

    def mark_headers_sent(self) -> None:
        """Note that the headers of a paid request leave this machine now. Raises BrokenPlugin if the call is over."""
        if self._is_over:  # a plugin left it running in a task of its own
            raise BrokenPlugin("the call had ended before its request was sent")
        self._sent = True

    def mark_not_sent(self, error: NotSent) -> None:
        """Note that a request could not be sent. The retry policy may send it again."""

    def mark_not_charged(self, error: ImpastoError) -> None:
        """Note that the answer proves that this attempt cost nothing."""

    def finish(self, result: Result | None) -> None:
        """Run the callbacks of ``on_end``. Their errors are logged and do not affect the result."""
        for callback in self.on_end:
            try:
                callback(result)
            except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
                pass_interrupt(error)
                _log.exception("%s: a plugin failed at the end of the call", self.request.operation)

    def mark_job_accepted(self, pending: Pending) -> None:
        """Note that the provider accepted a job."""
        self.job, self.job_cost = pending.id, pending.cost

    async def record_job(self, pending: Pending) -> None:
        """Run when a job was accepted, before anything else happens to the call: its id is written here.

        A cancellation waits for its end: without the id nobody can fetch what is paid for.
        """
