"""The right to send a paid request: one for each call, and one more for each attempt of the owner of retries.

Middleware sees a call and its evidence; what it does with them gives it no right to send anything again.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import TYPE_CHECKING

import attrs

from .call import SECOND_SEND
from .errors import BrokenPlugin
from .records import Handler, Middleware
from .wire import WireRequest, WireResponse

if TYPE_CHECKING:
    from .call import Call


@attrs.define(eq=False)
class Permission:
    """The right to send a paid request, of one run of a call. No plugin holds it: a request has only the evidence."""

    call: Call | None
    """None after its end: timers that a library left in the loop hold this context, and a call holds files."""
    _left: int = 1

    def use(self, call: Call) -> None:
        """Take it for one POST. Raises BrokenPlugin if there is none left, or the request is another call's."""
        if call is not self.call and not call._is_over:  # noqa: SLF001 - the route's own side of a call, which no plugin has
            raise BrokenPlugin("a middleware sent the request of another call")
        if not self._left or call._is_over:  # noqa: SLF001 - as above
            raise BrokenPlugin(SECOND_SEND)
        self._left = 0
        call._begin()  # noqa: SLF001 - as above

    def renew(self) -> None:
        """Allow another POST, for the owner of retries. Raises BrokenPlugin against the evidence, unless opted in."""
        call = self.call
        if call is None:
            raise BrokenPlugin(SECOND_SEND)
        if call.sent and not (call.retry.on_ambiguous and call.unknown_attempts + 1 < call.retry.max_charges):
            raise BrokenPlugin("a middleware reported that nothing was sent, but the request was")
        self._left = 1


running: ContextVar[Permission] = ContextVar("running")
"""The permission of the call that runs in this task."""


def around(middleware: Middleware, inner: Handler) -> Handler:
    """Compose a middleware that owns nothing."""
    return lambda wire: middleware(wire, inner)


def around_attempts(middleware: Middleware, inner: Handler) -> Handler:
    """Compose the owner of retries. Each of its attempts after the first gets a permission of its own.

    A layer outside it that calls it twice gets no second permission.
    """

    def run(wire: WireRequest) -> Awaitable[WireResponse]:
        is_first = True

        def attempt(wire: WireRequest) -> Awaitable[WireResponse]:
            nonlocal is_first
            if not is_first and wire.method == "POST":
                running.get().renew()
            is_first = False
            return inner(wire)

        return middleware(wire, attempt)

    return run
