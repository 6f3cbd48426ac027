"""A page for each operation, made of its parameter classes: what it takes, what it costs, how it is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from impasto import Description, Operation, Registry
from impasto.describe import FieldDescription, describe
from impasto.registry import OPERATIONS
from impasto_plugins.cli.demo.more_steps import MORE_STEPS
from impasto_plugins.cli.demo.tour import STEPS, Step
from impasto_plugins.cli.models import group_of

from .calls import calls, command
from .text import code, doc, fenced, page, table

_GROUPS = {
    "generate": "Pictures from words",
    "edit": "Pictures from pictures",
    "audio": "Sounds",
    "model3d": "3D models",
}
_INTRODUCTION = """
Each page is made of the classes that check a call: fields, bounds, defaults and prices are those that impasto itself
goes by. The calls on them run as they stand, in the folder that `impasto try --all` leaves.
"""
_OURS = "impasto"


@attrs.frozen
class Family:
    """The operations of one module. ``names``: those by which each can be called, its id first."""

    module: str
    operations: tuple[Operation, ...]
    names: Mapping[str, tuple[str, ...]]

    @property
    def title(self) -> str:
        """The module's own word for it."""
        return doc(sys.modules[self.module]).partition(":")[0]

    @property
    def summary(self) -> str:
        """What its module says of it, from the first colon on."""
        said = doc(sys.modules[self.module]).partition(":")[2].strip()
        return said[0].upper() + said[1:]

    @property
    def place(self) -> str:
        """Its page's name."""
        return self.module.rpartition(".")[2].replace("_", "-")

    @property
    def main(self) -> Operation:
        """The one that the page describes; the others are told by their differences."""
        return next(each for each in self.operations if self.step.model in self.names[each.id])

    @property
    def step(self) -> Step:
        """A call that is shown."""
        known = {name for names in self.names.values() for name in names}
        return next((step for step in (*STEPS, *MORE_STEPS) if step.model in known), None) or _least(self.operations[0])


def _least(operation: Operation) -> Step:
    """What a call needs, where nobody wrote a nicer one down."""
    values: Mapping[str, object] = {"file": Path("lighthouse.png"), "text": "a lighthouse"}
    needed = {name: values[field.kind] for name, field in operation.fields.items() if field.required}
    return Step(operation.title, "made", operation.id, needed)


def families() -> list[Family]:
    """Every operation that comes with impasto, by module."""
    registry = Registry()
    modules: dict[str, dict[str, list[str]]] = {}
    for each in registry.declared(OPERATIONS):
        if each.distribution == _OURS:
            operation = registry.operation(each.name)
            names = modules.setdefault(each.value.partition(":")[0], {}).setdefault(operation.id, [])
            names += [each.name]
    made = []
    for module, ids in modules.items():
        operations = sorted((registry.operation(id) for id in ids), key=lambda each: each.provider.name != "stability")
        known = {id: (id, *sorted({*names} - {id}, key=len)) for id, names in ids.items()}
        made.append(Family(module, tuple(operations), known))
    return sorted(made, key=lambda family: family.title)


def pages() -> Iterator[tuple[str, str]]:
    """The index, and a page for each family."""
    every = families()
    yield "models/index.md", _index(every)
    for family in every:
        yield f"models/{family.place}.md", _page(family)


def _index(every: list[Family]) -> str:
    parts = [
        "# Models",
        _INTRODUCTION,
    ]
    for group, heading in _GROUPS.items():
        rows = [
            [f"[{family.title}]({family.place}.md)", family.summary.partition(". ")[0].rstrip("."), _cheapest(family)]
            for family in every
            if group_of(family.main) == group
        ]
        parts += [f"## {heading}", table(["", "", "USD a call"], rows)]
    listed = "\n".join(family.place for family in every)
    return page(*parts, f"```{{toctree}}\n:hidden:\n\n{listed}\n```")


def _cheapest(family: Family) -> str:
    costs = sorted({each.price.cost.usd for each in family.operations if each.price and each.price.cost})
    return " to ".join(f"{usd:g}" for usd in dict.fromkeys((costs[0], costs[-1]))) if costs else "varies"


def _page(family: Family) -> str:
    main = family.main
    told = describe(main.id, main)
    others = [each for each in family.operations if each is not main]
    return page(
        f"# {family.title}",
        family.summary,
        "## Models",
        table(["model", "price"], [_row(family, each) for each in (main, *others)]),
        "## Fields",
        *_said_of(main.params),
        table(["field", "type", "takes", "default"], [_field(each) for each in told.fields]),
        _rules(told),
        "## How the others differ" if others else "",
        *_differences(told, [describe(each.id, each) for each in others]),
        "## A call",
        *calls(family.step, main, family.place),
        *_on_bedrock(family),
    )


def _said_of(params: type) -> Iterator[str]:
    """What a class says, after the classes that it extends."""
    yield from (doc(each) for each in reversed(params.mro()) if attrs.has(each) and each.__dict__.get("__doc__"))


def _row(family: Family, operation: Operation) -> list[str]:
    price = str(operation.price) if operation.price is not None else "not known"
    return [" or ".join(map(code, family.names[operation.id])), price]


def _field(field: FieldDescription) -> list[str]:
    default = "**required**" if field.required else code(field.default)
    return [code(field.name), field.type, _takes(field), default]


def _takes(field: FieldDescription) -> str:
    if field.choices:
        return ", ".join(map(code, field.choices))
    return field.takes.removeprefix("a file: ")


def _rules(told: Description) -> str:
    rules = list(told.rules)
    if told.max_bytes is not None:
        rules.append(f"the whole request: at most {told.max_bytes:,} bytes")
    return "\n".join(f"- {rule}" for rule in rules)


def _differences(main: Description, others: list[Description]) -> Iterator[str]:
    """What differs from ``main``, said once for all of which it is the same."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for other in others:
        alike.setdefault(tuple(_difference(main, other)), []).append(other.model)
    for lines, models in alike.items():
        yield ", ".join(map(code, models)) + ":"
        yield "\n".join(f"- {line}" for line in lines or ("the same fields and rules",))


def _difference(main: Description, other: Description) -> Iterator[str]:
    ours = {field.name: field for field in main.fields}
    theirs = {field.name: field for field in other.fields}
    if missing := [name for name in ours if name not in theirs]:
        yield f"without {', '.join(map(code, missing))}"
    for name, field in theirs.items():
        if field != ours.get(name):
            default = "; required" if field.required else f"; default {code(field.default)}" if field.default else ""
            yield f"{'in addition ' if name not in ours else ''}{code(name)}: {_takes(field)}{default}"
    yield from (f"without the rule: {rule}" for rule in main.rules if rule not in other.rules)
    yield from (f"the rule: {rule}" for rule in other.rules if rule not in main.rules)
    if other.max_bytes != main.max_bytes:
        yield f"the whole request: at most {other.max_bytes:,} bytes" if other.max_bytes else "no limit of bytes"


def _on_bedrock(family: Family) -> Iterator[str]:
    """The same call there, with the fields that it takes."""
    served = [each for each in family.operations if each.provider.name == "bedrock"]
    if served:
        on_bedrock = served[0]
        params = {name: value for name, value in family.step.params.items() if name in on_bedrock.fields}
        step = attrs.evolve(family.step, model=on_bedrock.id, params=params)
        yield "### On Amazon Bedrock"
        yield "With AWS's own credentials and region, as boto3 finds them:"
        yield fenced("sh", command(step, on_bedrock))
