"""The plugin object that most models are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeVar

import attrs

from .errors import BrokenPlugin, ImpastoError, InvalidRequest, Problem
from .fanout import problems_of
from .fields import Field, fields_of
from .files import File
from .hooks import hookimpl
from .interrupts import pass_interrupt
from .params import close_files, structure
from .provider import Account, Provider
from .records import Cost, Pending, Request, Result, Scalar, WireRequest, WireResponse
from .redact import describe_error
from .rules import NoEffect, Rule

T = TypeVar("T")


class Dialect(Protocol):
    """How one provider spells a request, its answer and its refusals.

    It may have ``passes_on(operation, response) -> bool`` too, which is the hook of that name.
    """

    def pack(self, operation: Operation, request: Request) -> WireRequest:
        """The request on the wire; where ``request.job`` is set, the GET that fetches that job's result."""
        ...

    def classify(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """The failure that an answer is, or None. ChargeUnknown for all that is not the provider's own."""
        ...

    def unpack(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        """What a good answer holds, or that a job was accepted. Raises UnusableResult."""
        ...


class Price(Protocol):
    """What a call costs, as far as it is known. Its text says it to a reader.

    ``cost`` is None where it is not the same for every call.
    """

    @property
    def cost(self) -> Cost | None:
        """The cost of every call, or None."""
        ...

    def quote(self, params: attrs.AttrsInstance) -> Cost | None:
        """The cost of a call with these parameters, or None where it is not known."""
        ...


@attrs.frozen(kw_only=True)
class FlatPrice:
    """The same for every call."""

    cost: Cost
    note: str = ""

    def quote(self, params: attrs.AttrsInstance) -> Cost:
        """The same cost."""
        return self.cost

    def __str__(self) -> str:
        credits = f"{self.cost.credits:g} credits, " if self.cost.credits is not None else ""
        return f"{credits}{self.cost.usd:.4g} USD a call, as of {self.cost.as_of}" + (self.note and f" ({self.note})")


Makes = Literal["image", "audio", "3d"]
"""What comes of a call: a picture, a sound or a 3D model."""


def _broken(model: str, what: str, error: BaseException) -> BrokenPlugin:
    """What a plugin raised ahead of a call."""
    return BrokenPlugin(f"{model}: {what} raised {describe_error(error)}; nothing was sent")


def _of_fields(find: Callable[[Mapping[str, Field]], T]) -> T:
    """An attribute that follows from the fields."""
    made = attrs.Factory(lambda operation: find(operation.fields), takes_self=True)
    return attrs.field(init=False, repr=False, default=made)


def _roles(fields: Mapping[str, Field]) -> dict[str, tuple[str, ...]]:
    roles: dict[str, tuple[str, ...]] = {}
    for name, field in fields.items():
        if field.role is not None:
            roles[field.role] = (*roles.get(field.role, ()), name)
    return roles


def _file_words(fields: Mapping[str, Field]) -> frozenset[str]:
    files = [(name, field.also or name) for name, field in fields.items() if field.kind == "file"]
    return frozenset({"image", "mask"}.union(*files))


def _as_given(given: Mapping[str, object]) -> Mapping[str, object]:
    return given


@attrs.frozen(kw_only=True, eq=False)
class Operation:
    """One model or edit: its parameters, its address, its dialect, its price.

    ``makes`` says what comes of it. ``constants`` go on the wire with every call. ``implied`` adds what follows
    from what was given.
    ``max_bytes`` bounds the whole request. ``transparent``: its pictures have no background. ``source`` names
    the provider's own document of it.
    """

    id: str
    title: str
    params: type[attrs.AttrsInstance]
    target: str
    provider: Provider
    dialect: Dialect
    makes: Makes = "image"
    price: Price | None = None
    rules: tuple[Rule, ...] = ()
    constants: Mapping[str, Scalar] = {}
    implied: Callable[[Mapping[str, object]], Mapping[str, object]] = _as_given
    max_bytes: int | None = None
    transparent: bool = False
    source: str = ""
    fields: Mapping[str, Field] = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: fields_of(self.params), takes_self=True)
    )
    file_fields: tuple[str, ...] = _of_fields(lambda fields: tuple(n for n, f in fields.items() if f.kind == "file"))
    file_words: frozenset[str] = _of_fields(_file_words)
    """Every name under which a caller may give a file."""
    roles: Mapping[str, tuple[str, ...]] = _of_fields(_roles)
    """The fields that an OpenAI-style argument fills, by its name."""
    also: Mapping[str, str] = _of_fields(lambda fields: {f.also: n for n, f in fields.items() if f.also is not None})
    """The other names that a caller may use, and the fields that they stand for."""

    def request(self, model: str, given: Mapping[str, object], user: str | None = None, *, n: object = 1) -> Request:
        """Checks what was given, all of it, for one of the operation's names. Raises InvalidRequest or BrokenPlugin.

        ``n``: how many pictures are asked for. The caller owns the request's files and closes them.
        """
        try:
            one = type(n) is int and n == 1  # as nearly always: then nothing is counted up
            wrong = () if one else problems_of(n, given.get("seed"), self.fields.get("seed"))
            params = structure(self.params, implied := self.implied(given), self.rules, wrong)
            self._check_size(params)
            warnings = self._warnings(implied) if self.rules else ()
        except InvalidRequest as error:
            error.operation = model
            raise
        except ImpastoError:
            raise
        except BaseException as error:  # a plugin's own check or rule
            pass_interrupt(error)
            raise _broken(model, "checking its parameters", error) from error
        return Request(
            operation=model,
            params=params,
            target=self.target,
            constants=self.constants,
            user=user,
            warnings=warnings,
        )

    def cost(self, request: Request) -> Cost | None:
        """What a call will cost, as far as that is known. Raises BrokenPlugin."""
        if self.price is None or request.job is not None:
            return None
        try:
            cost = self.price.quote(request.params)
        except ImpastoError:
            raise
        except BaseException as error:  # a plugin may raise anything
            pass_interrupt(error)
            raise _broken(request.operation, "its price", error) from error
        if cost is not None and not isinstance(cost, Cost):
            said = f"its price gave {type(cost).__name__}, not a Cost"
            raise BrokenPlugin(f"{request.operation}: {said}; nothing was sent")
        return cost

    def _warnings(self, given: Mapping[str, object]) -> tuple[str, ...]:
        warning = [rule for rule in self.rules if isinstance(rule, NoEffect)]
        present = {name: value for name, value in given.items() if value is not None}
        return tuple(said for rule in warning for said in rule.warnings(present))

    def _check_size(self, params: attrs.AttrsInstance) -> None:
        if self.max_bytes is None or not self.file_fields:
            return
        sizes = {name: f.size for name in self.file_fields if isinstance(f := getattr(params, name), File)}
        if sum(sizes.values()) > self.max_bytes:
            close_files(params)
            largest = max(sizes, key=sizes.__getitem__)
            total = f"{sum(sizes.values()):,} bytes of files"
            raise InvalidRequest(
                [Problem(largest, f"the whole request may have {self.max_bytes:,} bytes, not {total}")]
            )

    @hookimpl
    def transform_request(self, request: Request) -> WireRequest:
        """As the dialect packs it."""
        return self.dialect.pack(self, request)

    @hookimpl
    def classify_error(self, request: Request, response: WireResponse) -> ImpastoError | None:
        """As the dialect classifies it."""
        return self.dialect.classify(self, response)

    @hookimpl
    def passes_on(self, request: Request, response: WireResponse) -> bool:
        """As the dialect says, if it has such a method."""
        passes = getattr(self.dialect, "passes_on", None)
        return passes is not None and passes(self, response) is True

    @hookimpl
    def normalize_response(self, request: Request, response: WireResponse, account: Account) -> Result | Pending:
        """As the dialect unpacks it."""
        return self.dialect.unpack(self, request, response)
