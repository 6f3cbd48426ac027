"""Description of a model's parameters and price, for programs and people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from .field_checks import Field
from .operation import Operation


@attrs.frozen(kw_only=True)
class FieldDescription:
    """One parameter; ``name`` is ``group.field`` for a field of a nested object.

    ``description`` says what it does, ``takes`` its limits in words. ``default`` is the provider's own.
    """

    name: str
    type: str
    required: bool
    takes: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    default: str | float | bool | None = None
    description: str = ""


@attrs.frozen(kw_only=True)
class Description:
    """A model: parameters, rules between them, price (None if unknown).

    ``operation`` is the provider's own address of the model: a path of its API, or a model ID on Bedrock.
    """

    model: str
    operation: str
    title: str
    provider: str
    fields: tuple[FieldDescription, ...]
    rules: tuple[str, ...]
    max_bytes: int | None
    price: str | None
    usd: float | None
    credits: float | None
    price_as_of: str | None


def describe(model: str, operation: Operation) -> Description:
    """Return the description of an operation under one of its names."""
    cost = operation.flat_cost
    return Description(
        model=model,
        operation=operation.target,
        title=operation.title,
        provider=operation.provider.name,
        fields=tuple(_describe_fields(operation.fields)),
        rules=tuple(str(rule) for rule in operation.rules),
        max_bytes=operation.max_bytes,
        price=operation.price_text,
        usd=cost.usd if cost is not None else None,
        credits=cost.credits if cost is not None else None,
        price_as_of=cost.as_of if cost is not None else None,
    )


def _describe_fields(fields: Mapping[str, Field], within: str = "") -> Iterator[FieldDescription]:
    for name, field in fields.items():
        yield FieldDescription(
            name=f"{within}{name}",
            type=field.kind,
            required=field.required,
            takes=field.describe_constraint(),
            minimum=field.minimum,
            maximum=field.maximum,
            choices=field.choices,
            default=field.default,
            description=field.description,
        )
        yield from _describe_fields(field.fields, f"{within}{name}.")
