"""Quick validation of plainly valid rows: a million rows can't each become a request just to be counted.

It only ever confirms. A row that it does not recognize takes the full check, which reports its problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import attrs

from impasto import AspectRatios, Operation
from impasto.ext import MAX_N
from impasto.fields import Field
from impasto_plugins.batch.filenames import is_plain
from impasto_plugins.openai_compat.sizes import checked_size
from impasto_plugins.openai_compat.translate import FORMATS
from impasto_plugins.openai_compat.words import NEUTRAL, is_neutral

from .records import RowFields
from .rows import URLS

Fits = Callable[[object], bool]


@attrs.define(eq=False)
class ModelTotals:
    """The images of one model at one price: ``usd`` for an image, None if unknown.

    ``unpriced_rows``: the number of rows with work left whose parameters the model has no price for, though it has one
    for others; ``first_unpriced``: the first of them.
    """

    model: str
    base_model: str | None
    usd: float | None
    images: int = 0
    to_do: int = 0
    unpriced_rows: int = 0
    first_unpriced: str = ""


class ValidRow(NamedTuple):
    """A valid row: its number of images, their totals and, if known, the digest of its content and their states."""

    id: str
    n: int
    totals: ModelTotals
    sha256: str | None = None
    states: Sequence[int] = ()


@attrs.frozen
class FastValidator:
    """Validates rows of one model."""

    share: ModelTotals
    operation: Operation
    short: Mapping[str, Fits]
    openai: Mapping[str, Fits]
    required: frozenset[str]

    @classmethod
    def of_operation(cls, model: str, operation: Operation) -> FastValidator | None:
        """Return the validator of a model; None if the price of an image depends on its parameters.

        Fields with files, or with types of their own, take the full check.
        """
        cost = operation.flat_cost
        if cost is None and operation.price is not None:
            return None
        fields = operation.fields
        own = {name: fits for name, field in fields.items() if (fits := _fits(field)) is not None}
        required = frozenset(name for name, field in fields.items() if field.required)
        words: dict[str, Fits] = {name: fits for name, fits in own.items() if fields[name].role is None}
        words["response_format"] = lambda value: value in FORMATS
        words |= {word: _neutral(word) for word in NEUTRAL if word not in fields and word not in operation.aliases}
        if operation.roles.get("prompt") == ("prompt",) and "prompt" in own:
            words["prompt"] = own["prompt"]
        if isinstance(operation.size, AspectRatios) and operation.size.field in fields:
            words.setdefault("size", _is_size)
        usd = cost.usd if cost is not None else None
        return cls(ModelTotals(model, None, usd), operation, own, words, required)

    def validate(self, row: RowFields) -> ValidRow | None:
        """Return the valid row, or None if it needs the full check."""
        body = row.get("body")
        if body is None:
            id, body_fields, words, names = row.get("id"), row, self.short, _SHORT
        elif type(body) is dict and len(row) == 4 and row.get("method") == "POST" and row.get("url") == _MAKING:
            id, body_fields, words, names = row.get("custom_id"), cast(RowFields, body), self.openai, _OPENAI
        else:
            return None
        if type(id) is not str or not is_plain(id):
            return None
        for word, value in body_fields.items():
            if word not in names and ((fits := words.get(word)) is None or not fits(value)):
                return None
        n = body_fields.get("n", 1)
        if type(n) is not int or not (n == 1 or (1 <= n <= MAX_N and "seed" not in body_fields)):
            return None
        return ValidRow(id, n, self.share) if self._is_whole(body_fields) else None

    def _is_whole(self, arguments: RowFields) -> bool:
        """Return True if no required field is missing and no rule between fields is broken."""
        operation = self.operation
        size = operation.size
        ratio = size.field if isinstance(size, AspectRatios) and "size" not in operation.fields else None
        if not self.required <= arguments.keys() or ("size" in arguments and ratio in arguments):
            return False
        if not operation.rules:
            return True
        fields = operation.fields
        present = {word: value for word, value in arguments.items() if word in fields}
        if "size" in arguments and ratio is not None:
            present[ratio] = arguments["size"]
        implied = operation.derive_params(present)
        return not any(True for rule in operation.rules for _ in rule.problems(implied))


_SHORT = frozenset({"id", "model", "n"})
_OPENAI = frozenset({"model", "n"})
_MAKING = next(url for url, is_edit in URLS.items() if not is_edit)


def _neutral(word: str) -> Fits:
    return lambda value: is_neutral(word, value)


def _is_size(value: object) -> bool:
    try:
        return checked_size(value) is not None
    except ValueError:
        return False


def _fits(field: Field) -> Fits | None:
    """Return a check that is quicker than the field's own, and never accepts what that refuses."""
    low = -math.inf if field.minimum is None else field.minimum
    high = math.inf if field.maximum is None else field.maximum
    match field.kind:
        case "text" if field.pattern is None:
            return lambda v: type(v) is str and low <= len(v) <= high and v.isprintable() and not v.isspace()
        case "choice":
            choices = frozenset(field.choices)
            return lambda v: type(v) is str and v in choices
        case "integer" if field.step is None:
            return lambda v: type(v) is int and low <= v <= high
        case "boolean":
            return lambda v: type(v) is bool
        case "number":
            return lambda v: type(v) in (int, float) and low <= cast(float, v) <= high and v != math.inf
        case _:
            return None
