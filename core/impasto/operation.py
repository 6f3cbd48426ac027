"""The plugin object of most models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Never, Protocol, TypeVar, cast

import attrs

from .advice import STREAM_ADVICE
from .costs import Cost, TokenPrice, Usage
from .errors import BrokenPlugin, ImpastoError, InvalidRequest, Problem
from .fanout import check_n_and_seed
from .field_checks import Field
from .fields import fields_of
from .hooks import hookimpl
from .interrupts import pass_interrupt
from .params import close_files, files_of, structure
from .provider import Account, Provider
from .records import EventOutcome, Pending, Request, Result, is_valid_cost, is_valid_usage
from .redact import describe_error
from .rules import NoEffect, Rule, check_names
from .server_events import ServerEvent
from .sizes import Size, check_size_names, size_of_fields
from .wire import Scalar, WireRequest, WireResponse

T = TypeVar("T")


class Dialect(Protocol):
    """One provider's form of requests, answers and errors.

    It may also have ``is_artifact_body(operation, response) -> bool`` and
    ``normalize_event(operation, request, event) -> EventOutcome | None``, the hooks of these names.
    """

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest | Pending:
        """Return the request on the wire; if ``request.job`` is set, the GET that fetches that job's result."""
        ...

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return the error that an answer means, or None; ChargeUnknown if the answer is not the provider's own."""
        ...

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        """Return the result of a successful answer, or a Pending for an accepted job. Raise UnusableResult."""
        ...


class Price(Protocol):
    """The price of a call, as far as it is known. Its ``__str__``, if it has one, gives it in words.

    ``quote`` takes the operation's own parameter class: its type here, Never, lets a plugin name that class.
    ``Operation.cost`` asks for the quote of a request.
    """

    def quote(self, params: Never) -> Cost | None:
        """Return the cost of a call with these parameters, or None if unknown."""
        ...


@attrs.frozen(kw_only=True)
class FlatPrice:
    """A price that is the same for every call."""

    cost: Cost
    note: str = ""

    def quote(self, params: attrs.AttrsInstance) -> Cost:
        """Return the same cost for every call."""
        return self.cost

    def __str__(self) -> str:
        credits = f"{self.cost.credits:g} credits, " if self.cost.credits is not None else ""
        return f"{credits}{self.cost.usd:.4g} USD a call, as of {self.cost.as_of}" + (self.note and f" ({self.note})")


Makes = Literal["image", "audio", "3d"]
"""The output of a call: an image, a sound or a 3D model."""


def _plugin_failure(model: str, what: str, error: BaseException) -> BrokenPlugin:
    """Return the error for a plugin that raised before a call."""
    return BrokenPlugin(f"{model}: {what} raised {describe_error(error)}; nothing was sent")


def _derived_from_fields(find: Callable[[Mapping[str, Field]], T]) -> T:
    """Declare an attribute that is derived from the fields."""
    default = attrs.Factory(lambda operation: find(operation.fields), takes_self=True)
    return attrs.field(init=False, repr=False, default=default)


def _fields_by_role(fields: Mapping[str, Field]) -> dict[str, tuple[str, ...]]:
    roles: dict[str, tuple[str, ...]] = {}
    for name, field in fields.items():
        if field.role is not None:
            roles[field.role] = (*roles.get(field.role, ()), name)
    return roles


def _file_arguments(fields: Mapping[str, Field]) -> dict[str, Field | None]:
    with_files = {name: field for name, field in fields.items() if field.has_files}
    aliases = {field.alias: field for field in with_files.values() if field.alias is not None}
    return {"image": None, "mask": None, **aliases, **with_files}


def _fields_by_alias(fields: Mapping[str, Field], within: str = "") -> dict[str, str]:
    aliases = {field.alias: f"{within}{name}" for name, field in fields.items() if field.alias is not None}
    for name, field in fields.items():
        if field.kind == "group":
            aliases |= _fields_by_alias(field.fields, f"{within}{name}.")
    return aliases


def _unchanged(arguments: Mapping[str, object]) -> Mapping[str, object]:
    return arguments


@attrs.frozen(kw_only=True, eq=False)
class Operation:
    """One model or edit: its parameters, its address, its dialect, its price.

    ``output`` names the kind of result. ``constants`` are sent with every call. ``derive_params`` adds parameters that
    follow from the arguments. ``max_bytes`` limits the whole request. ``transparent_output``: its images have no
    background. ``docs_url`` points to the provider's own documentation. ``media_types`` are further types of its
    artifacts, such as ``image/gif``, which are passed on without a check that they are complete. ``size``: the way in
    which it takes the size of an image, by default that of fields with the usual names; None means that it takes none.
    ``native_n``: the field for the number of images of one request, and its maximum; callers give ``n``.
    """

    id: str
    title: str
    params: type[attrs.AttrsInstance]
    target: str
    provider: Provider
    dialect: Dialect
    output: Makes = "image"
    price: Price | None = None
    rules: tuple[Rule, ...] = ()
    constants: Mapping[str, Scalar] = {}
    derive_params: Callable[[Mapping[str, object]], Mapping[str, object]] = _unchanged
    max_bytes: int | None = None
    transparent_output: bool = False
    docs_url: str = ""
    media_types: tuple[str, ...] = ()
    native_n: tuple[str, int] | None = None
    fields: Mapping[str, Field] = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: fields_of(self.params), takes_self=True)
    )
    size: Size | None = attrs.field(default=attrs.Factory(lambda self: size_of_fields(self.fields), takes_self=True))
    file_fields: tuple[str, ...] = _derived_from_fields(
        lambda fields: tuple(n for n, f in fields.items() if f.has_files)
    )
    file_arguments: Mapping[str, Field | None] = _derived_from_fields(_file_arguments)
    """Every name under which a caller may pass a file, and its field; None for OpenAI's, if no field has it."""
    roles: Mapping[str, tuple[str, ...]] = _derived_from_fields(_fields_by_role)
    """The fields that an OpenAI-style argument fills, by its name."""
    aliases: Mapping[str, str] = _derived_from_fields(_fields_by_alias)
    """Other names that a caller may use, and the fields they stand for; that of a nested object has a dot."""

    def __attrs_post_init__(self) -> None:
        """Raise BrokenPlugin if a rule, the size or ``native_n`` names a field that does not exist."""
        if self.rules:
            check_names(self.rules, self.fields, self.id)
        if self.size is not None:
            check_size_names(self.size, self.fields, self.id)
        if self.native_n is not None and self.native_n[0] not in self.fields:
            names = ", ".join(self.fields)
            raise BrokenPlugin(f"{self.id}: its native_n names {self.native_n[0]!r}; the fields are {names}")

    def request(
        self, model: str, arguments: Mapping[str, object], user: str | None = None, *, n: object = 1
    ) -> Request:
        """Check all arguments and return the request, for one of the operation's names.

        ``n``: the number of images. The caller owns the request's files and closes them. Raises InvalidRequest,
        BrokenPlugin.
        """
        try:
            one = type(n) is int and n == 1  # as nearly always: then nothing is counted up
            wrong = [] if one else [*check_n_and_seed(n, arguments.get("seed"), self.fields.get("seed"))]
            if self.native_n is not None and arguments.get(self.native_n[0]) is not None:
                reason = f"is set by n, the number of images (-n on the command line){STREAM_ADVICE}"
                wrong.append(Problem(self.native_n[0], reason))
            params = structure(self.params, arguments_with_derived := self.derive_params(arguments), self.rules, wrong)
            self._check_size(params)
            warnings = self._warnings(arguments_with_derived) if self.rules else ()
        except InvalidRequest as error:
            error.operation = model
            raise
        except ImpastoError:
            raise
        except BaseException as error:  # a plugin's own check or rule
            pass_interrupt(error)
            raise _plugin_failure(model, "checking its parameters", error) from error
        return Request(
            operation=model,
            params=params,
            target=self.target,
            constants=self.constants,
            user=user,
            warnings=warnings,
        )

    @property
    def flat_cost(self) -> Cost | None:
        """The cost of every call, None if it is not known or depends on the parameters."""
        return self.price.cost if isinstance(self.price, FlatPrice) else None

    @property
    def price_text(self) -> str | None:
        """The price in words, None if there is none."""
        if self.price is None:
            return None
        has_words = type(self.price).__str__ is not object.__str__
        return str(self.price) if has_words else "a price that depends on the parameters"

    def cost(self, request: Request) -> Cost | None:
        """Return what a call will cost, or None if unknown. Raises BrokenPlugin."""
        if self.price is None or request.job is not None:
            return None
        try:
            cost = self.price.quote(cast(Never, request.params))
        except ImpastoError:
            raise
        except BaseException as error:  # a plugin may raise anything
            pass_interrupt(error)
            raise _plugin_failure(request.operation, "its price", error) from error
        if cost is not None and not is_valid_cost(cost):
            kind = type(cost).__name__
            what = f"{cost!r}, not an amount from 0 USD" if kind == "Cost" else f"{kind}, not a Cost"
            reason = f"its price returned {what}"
            raise BrokenPlugin(f"{request.operation}: {reason}; nothing was sent")
        return cost

    def priced_by_usage(self, result: Result) -> Result:
        """Return a result with the cost of the tokens that its provider counted, if they have a price.

        A count without tokens of an image was made before the image, as in a stream that breaks off.
        """
        cost = self.cost_of_tokens(result.usage)
        if cost is None or result.usage is None or result.usage.output_image_tokens == 0:
            return result
        return attrs.evolve(result, cost=cost)

    def cost_of_tokens(self, usage: Usage | None) -> Cost | None:
        """Return the cost of the tokens that the provider counted, None if they have no price."""
        if usage is None or not isinstance(self.price, TokenPrice) or not is_valid_usage(usage):
            return None
        return self.price.of(usage)

    def _warnings(self, arguments: Mapping[str, object]) -> tuple[str, ...]:
        warning = [rule for rule in self.rules if isinstance(rule, NoEffect)]
        present = {name: value for name, value in arguments.items() if value is not None}
        return tuple(message for rule in warning for message in rule.warnings(present))

    def _check_size(self, params: attrs.AttrsInstance) -> None:
        if self.max_bytes is None or not self.file_fields:
            return
        sizes = {name: sum(file.size for file in files_of(getattr(params, name))) for name in self.file_fields}
        if sum(sizes.values()) > self.max_bytes:
            close_files(params)
            largest = max(sizes, key=sizes.__getitem__)
            total = f"{sum(sizes.values()):,} bytes of files"
            raise InvalidRequest(
                [Problem(largest, f"the whole request may have at most {self.max_bytes:,} bytes, not {total}")]
            )

    @hookimpl
    def transform_request(self, request: Request, account: Account) -> WireRequest | Pending:
        """Convert the request with the dialect."""
        return self.dialect.transform_request(self, request, account)

    @hookimpl
    def classify_error(self, request: Request, response: WireResponse) -> ImpastoError | None:
        """Classify the answer with the dialect."""
        return self.dialect.classify_error(self, response)

    @hookimpl
    def is_artifact_body(self, request: Request, response: WireResponse) -> bool:
        """Ask the dialect, if it has this method."""
        passes = getattr(self.dialect, "is_artifact_body", None)
        return passes is not None and passes(self, response) is True

    @property
    def streams(self) -> bool:
        """True if its dialect reads streams of events, so that it may send partial results."""
        return hasattr(self.dialect, "normalize_event")

    @hookimpl
    def normalize_event(self, request: Request, event: ServerEvent) -> EventOutcome | tuple[EventOutcome, ...] | None:
        """Ask the dialect, if it has this method."""
        normalize = getattr(self.dialect, "normalize_event", None)
        return None if normalize is None else normalize(self, request, event)

    @hookimpl
    def normalize_response(self, request: Request, response: WireResponse, account: Account) -> Result | Pending:
        """Normalize the answer with the dialect."""
        return self.dialect.normalize_response(self, request, response)
