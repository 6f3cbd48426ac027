"""An error's trip to another process: through pickle whole, through the JSON of a task queue by its arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

FACTS = (
    "message", "operation", "request_id", "id", "billed", "retryable", "count", "billed_each", "status", "name",
    "messages", "retry_after", "per_model", "pause", "reason", "media_type",
)  # fmt: skip
"""What ``args`` holds of an error that has it, after its first argument: texts, numbers and lists of texts."""


class Rebuilt(Exception):
    """An error that ``type(error)(*error.args)`` builds again. Bytes, files and images survive pickle only."""

    first_argument: ClassVar[str] = "message"
    """The attribute that is the constructor's first argument."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Let each constructor take the facts behind its first argument."""
        super().__init_subclass__(**options)
        init = vars(cls).get("__init__")
        if isinstance(init, FunctionType) and init.__code__.co_argcount == 2:  # one with other arguments has no room
            cls.__init__ = _taking_facts(init)  # type: ignore[method-assign]  # of the same signature

    if not TYPE_CHECKING:  # for type checkers it is an attribute, as of any exception

        @property
        def args(self) -> tuple[object, Mapping[str, object]]:
            """The first argument and the facts, as they are now."""
            facts = {name: value for name in FACTS if (value := getattr(self, name, None)) not in (None, ())}
            return getattr(self, self.first_argument), facts

        @args.setter
        def args(self, value: tuple[object, ...]) -> None:  # what Exception's own repr shows
            BaseException.args.__set__(self, value)

    def __reduce__(self) -> tuple[object, ...]:
        return _empty, (type(self),), self.__dict__


def _empty(kind: type[Rebuilt]) -> Rebuilt:
    return kind.__new__(kind)


def _taking_facts(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def with_facts(self: Rebuilt, *args: Any, **settings: Any) -> None:
        has_facts = len(args) == 2 and isinstance(args[1], Mapping)
        init(self, *(args[:1] if has_facts else args), **settings)
        for name in FACTS if has_facts else ():
            if name in args[1]:
                value = args[1][name]
                setattr(self, name, tuple(value) if isinstance(value, list) else value)

    return with_facts
