"""What is known of one call while it runs: its deadline, and the evidence of what left this machine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from .deadline import Deadline, Watch
from .errors import BrokenPlugin, ChargeUnknown
from .interrupts import pass_interrupt
from .records import WireResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from .errors import ImpastoError
    from .policy import Retry, RetryBudget
    from .provider import Account
    from .records import Pending, Request, Result, Spool, WireRequest

_log = logging.getLogger("impasto")

SENT_TWICE = "a plugin sent the same paid request twice; only the retry policy may do that"


class Call:
    """One picture's call. Transports report to it; retry and billing are decided from it. ``timeout`` in seconds.

    Subclass it to keep a record, and give that to ``client.invoke``: ``sending`` is awaited before each exchange
    where ``is_recorded``, ``left`` is called when a paid request's headers leave, ``refused`` when an answer
    proves that an attempt cost nothing, ``accepted`` when the provider took a job on. ``spool`` is asked where
    ``has_spools``.
    """

    is_recorded: ClassVar[bool] = False
    has_spools: ClassVar[bool] = False

    def __init__(
        self,
        request: Request,
        account: Account,
        *,
        timeout: float,
        retry: Retry,
        budget: RetryBudget,
        watch: Watch | None = None,
    ) -> None:
        self.request = request
        self.account = account
        self.secrets = account.secrets
        """What no message may show; a transport that finds more keys than the account has adds them."""
        self.timeout = timeout
        self._retry = retry
        self.budget = budget
        self.deadline = Deadline(watch or Watch())
        self._posts = self._unknown = 0
        self._sent = False
        self._may_post = self._is_over = False  # set by the permission to send, see there
        self.answer: WireResponse | None = None
        """The answer that is being read."""
        self.job: str | None = None
        self.on_end: tuple[Callable[[Result | None], None], ...] = ()
        """Told when the call is over, with its result or None; a middleware sees answers only, and adds itself."""
        self.on_written: Callable[[], None] = _nothing
        """Transports call it when a request has gone out whole, its body too; whoever owns rates sets it."""

    @property
    def retry(self) -> Retry:
        """The caller's policy. It can't be changed while the call runs."""
        return self._retry

    @property
    def posts(self) -> int:
        """The number of POSTs that were begun."""
        return self._posts

    @property
    def sent(self) -> bool:
        """True if headers of the running attempt left, and no answer has proved yet that it cost nothing."""
        return self._sent

    @property
    def unknown(self) -> int:
        """The number of earlier attempts that may have been charged."""
        return self._unknown

    @property
    def is_free(self) -> bool:
        """Whether it is proved that it cost nothing: no paid request was begun, and none before for a job."""
        return not self._posts and self.request.job is None

    @property
    def charges(self) -> int:
        """How many charges there may be, as far as is known."""
        return self.unknown + (1 if self.sent or self.job is not None else 0)

    def begin(self) -> None:
        """The call got its turn: from here its time runs. Later calls change nothing."""
        self.deadline.start(self.timeout)

    def remaining(self) -> float:
        """Seconds left, or infinity while the call waits for its turn."""
        return self.deadline.remaining()

    def attempt(self) -> None:
        """Note that a transport is about to POST. Raises BrokenPlugin for a second POST in one ``send``."""
        if not self._may_post or self._is_over:
            raise BrokenPlugin(SENT_TWICE)
        self._may_post = False
        self._posts += 1

    def _begin(self) -> None:
        """Begin an attempt: one before it that was sent stays in doubt. The route calls it, and nobody else."""
        self._may_post = True
        self._unknown += self._sent
        self._sent = False
        self.answer = None

    def _prove_free(self) -> None:
        """Note that an answer proves that the running attempt cost nothing. The route calls it."""
        self._sent = False

    async def whole(self, response: WireResponse, *, raw: bool = False) -> WireResponse:
        """An answer with its body, read to the end. What came of one that breaks off is in the error.

        ``raw``: the body is the artifact, or holds it, and may go to a spool.
        """
        stream = response.stream
        if stream is None:
            return response
        self.answer = response
        spool = self.spool(response) if raw else None
        try:
            body = await stream.collect(spool)
        except ChargeUnknown as error:
            error.raw, error.request_id = stream.received, response.request_id
            if spool is not None and stream.is_spooled:
                error.file = await spool.finish()
            raise
        if body is None and spool is not None:
            return WireResponse(status=response.status, headers=response.headers, file=await spool.finish())
        return WireResponse(status=response.status, headers=response.headers, body=body or b"")

    def spool(self, response: WireResponse) -> Spool | None:
        """Where the artifact goes that is about to come, if it proves too large for memory. Whoever made it ends it."""
        return None

    async def sending(self, wire: WireRequest) -> None:
        """The call has its turn and its place in the rate: what must be written before it goes out, is written here."""

    def left(self) -> None:
        """Note that the headers of a paid request leave this machine now. Raises BrokenPlugin if the call is over."""
        if self._is_over:  # a plugin left it running in a task of its own
            raise BrokenPlugin("the call was over before its request left")
        self._sent = True

    def refused(self, error: ImpastoError) -> None:
        """The answer proves that this attempt cost nothing."""

    def ended(self, result: Result | None) -> None:
        """Tells those who wait for the end. What they raise takes no result away."""
        for told in self.on_end:
            try:
                told(result)
            except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
                pass_interrupt(error)
                _log.exception("%s: a plugin failed when the call had ended", self.request.operation)

    def accepted(self, pending: Pending) -> None:
        """The provider took a job on."""
        self.job = pending.id


def _nothing() -> None:
    pass
