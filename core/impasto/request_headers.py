"""The headers of a plugin's request: those of its hooks ``authorize`` and ``sign``, and the check of all."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import attrs

from .call_errors import redact_error
from .errors import BrokenPlugin, ImpastoError, NotSent
from .redact import printable
from .wire import WireRequest

if TYPE_CHECKING:
    from .call import Call

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
"""A header's name and value as they may be sent: a line break would begin another header, or another request."""


COMMON_HEADERS = frozenset({"accept", "authorization", "content-type"})  # most calls have these: benchmark `dispatch`


def check_header(name: object, value: object) -> None:
    """Raise BrokenPlugin if a plugin's header can't be sent."""
    if not isinstance(value, str) or not isinstance(name, str) or _HEADER.fullmatch(f"{name}:{value}") is None:
        rule = "a name of letters, digits and dashes, and text in Latin-1 without line breaks"
        raise BrokenPlugin(f"a plugin's header {printable(str(name))!r} can't be sent; give {rule}")


_RETURNED = 64
_returned: dict[str, deque[str]] = {}
"""The last secrets that ``authorize`` of a provider returned: a later error of it may repeat one."""


def _signed(call: Call, sign: Callable[..., Mapping[str, str]], **request: object) -> Mapping[str, str]:
    """Return the headers of the provider's hook ``sign``, which no message may show. Raises BrokenPlugin."""
    failure, headers = "", dict[str, str]()
    try:
        headers = {**sign(account=call.account, **request)}
    except ImpastoError:
        raise
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        failure = f"sign raised {type(error).__name__}; nothing was sent"
    if failure:
        raise BrokenPlugin(failure)  # outside the except block: the hook's own error may hold the key
    for name, value in headers.items():
        check_header(name, value)
    call.secrets = (*call.secrets, *headers.values())
    return headers


async def authorized(
    wire: WireRequest,
    authorize: Callable[..., Awaitable[Mapping[str, str]]] | None,
    sign: Callable[..., Mapping[str, str]] | None,
) -> WireRequest:
    """Return the request with what the provider's hooks ``authorize`` and ``sign`` add; no message may show it.

    Raises NotSent if the network failed, BrokenPlugin if a hook did.
    """
    call = wire.call
    if sign is not None:
        wire = attrs.evolve(wire, sign=partial(_signed, call, sign))
    if authorize is None:
        return wire
    returned = _returned.setdefault(call.account.provider.name, deque(maxlen=_RETURNED))
    failure: ImpastoError | None = None
    headers: dict[str, str] = {}
    secrets: set[str] = set()
    try:
        headers = {**await authorize(account=call.account, refused=call.is_refused)}
        secrets = {text for value in headers.values() for text in (value, value.rpartition(" ")[2])}
    except ImpastoError as error:
        call.secrets = tuple(dict.fromkeys((*call.secrets, *returned)))
        redact_error(error, call.secrets)  # before a middleware logs it
        raise
    except OSError as error:
        failure = NotSent(f"can't authorize the request ({type(error).__name__}); nothing was sent")
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        failure = BrokenPlugin(f"authorize raised {type(error).__name__}; nothing was sent")
    except BaseException:
        call.secrets = tuple(dict.fromkeys((*call.secrets, *returned)))
        raise
    if failure is not None:
        raise failure  # outside the except blocks: the hook's own error may hold a secret that nobody knows yet
    call.secrets = (*call.secrets, *secrets.difference(call.secrets))
    returned += secrets.difference(returned)
    return attrs.evolve(wire, headers={**wire.headers, **headers})
