"""A quick look at rows that are plainly right. A million rows can't each be made into a request just to be counted.

It only ever says yes: whatever it does not know goes the whole way, which finds what is wrong and says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import attrs

from impasto import Operation
from impasto.ext import MOST
from impasto.fields import Field
from impasto_plugins.batch.filenames import is_plain
from impasto_plugins.openai_compat.sizes import checked_size
from impasto_plugins.openai_compat.translate import FORMATS
from impasto_plugins.openai_compat.words import NEUTRAL, is_neutral

from .records import Given
from .rows import URLS

Fits = Callable[[object], bool]


@attrs.define(eq=False)
class Share:
    """What a manifest asks of one model at one price: ``usd`` for a picture, None where that is not known."""

    model: str
    base_model: str | None
    usd: float | None
    pictures: int = 0
    to_do: int = 0


class Right(NamedTuple):
    """A row that is right: how many pictures it asks for and of which share; where known, the digest of its content,
    and the numbers of the states in which its pictures stand."""

    id: str
    n: int
    share: Share
    sha256: str | None = None
    states: Sequence[int] = ()


@attrs.frozen
class Screen:
    """Knows one model: what is plainly right for each word."""

    share: Share
    operation: Operation
    short: Mapping[str, Fits]
    openai: Mapping[str, Fits]
    required: frozenset[str]

    @classmethod
    def of(cls, model: str, operation: Operation) -> Screen | None:
        """For a model; None where what a picture costs depends on its parameters.

        Fields of files, and of types of their own, are left to the whole way.
        """
        cost = operation.price.cost if operation.price is not None else None
        if cost is None and operation.price is not None:
            return None
        fields = operation.fields
        own = {name: fits for name, field in fields.items() if (fits := _fits(field)) is not None}
        required = frozenset(name for name, field in fields.items() if field.required)
        words: dict[str, Fits] = {name: fits for name, fits in own.items() if fields[name].role is None}
        words["response_format"] = lambda value: value in FORMATS
        words |= {word: _neutral(word) for word in NEUTRAL if word not in fields}
        if operation.roles.get("prompt") == ("prompt",):
            words["prompt"] = own["prompt"]
        if "aspect_ratio" in fields:
            words["size"] = _is_size
        usd = cost.usd if cost is not None else None
        return cls(Share(model, None, usd), operation, own, words, required)

    def glance(self, row: Given) -> Right | None:
        """What a row asks for, where it is plainly right."""
        body = row.get("body")
        if body is None:
            id, given, words, names = row.get("id"), row, self.short, _SHORT
        elif type(body) is dict and len(row) == 4 and row.get("method") == "POST" and row.get("url") == _MAKING:
            id, given, words, names = row.get("custom_id"), cast(Given, body), self.openai, _OPENAI
        else:
            return None
        if type(id) is not str or not is_plain(id):
            return None
        for word, value in given.items():
            if word not in names and ((fits := words.get(word)) is None or not fits(value)):
                return None
        n = given.get("n", 1)
        if type(n) is not int or not (n == 1 or (1 <= n <= MOST and "seed" not in given)):
            return None
        return Right(id, n, self.share) if self._is_whole(given) else None

    def _is_whole(self, given: Given) -> bool:
        """Whether nothing required is missing, and no rule between fields is broken."""
        operation = self.operation
        if not self.required <= given.keys() or ("size" in given and "aspect_ratio" in given):
            return False
        if not operation.rules:
            return True
        fields = operation.fields
        present = {word: value for word, value in given.items() if word in fields}
        if "size" in given:
            present["aspect_ratio"] = given["size"]
        implied = operation.implied(present)
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
    """A check that is quicker than the field's own, and never says yes where that says no."""
    low = -math.inf if field.least is None else field.least
    high = math.inf if field.most is None else field.most
    match field.kind:
        case "text":
            return lambda v: type(v) is str and low <= len(v) <= high and v.isprintable() and not v.isspace()
        case "choice":
            choices = frozenset(field.choices)
            return lambda v: type(v) is str and v in choices
        case "integer":
            return lambda v: type(v) is int and low <= v <= high
        case "number":
            return lambda v: type(v) in (int, float) and low <= cast(float, v) <= high and v != math.inf
        case _:
            return None
