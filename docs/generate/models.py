"""A page for each operation, from its parameter classes: fields, limits, prices and an example of each call."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from impasto import Description, Operation, Registry
from impasto.describe import FieldDescription, describe
from impasto.registry import OPERATIONS
from impasto_plugins.cli.declarations import declared
from impasto_plugins.cli.demo.more_steps import MORE_STEPS
from impasto_plugins.cli.demo.tour import STEPS, Step
from impasto_plugins.cli.models import group_of

from .calls import calls, command
from .text import code, doc, fenced, page, table

_GROUPS = {
    "generate": "Text to image",
    "edit": "Edit an image",
    "audio": "Audio",
    "model3d": "3D models",
}
_INTRODUCTION = """
Each page describes one family of models: their names and prices, their fields, and a call in each form. The facts come
from the classes that check a call. The examples run as they are in the folder that `impasto try --all` writes.
`impasto describe MODEL` shows the same in a terminal.
"""
_OURS = "impasto"


@attrs.frozen
class Family:
    """The operations of one module. ``names`` has the names of each, its id first."""

    module: str
    operations: tuple[Operation, ...]
    names: Mapping[str, tuple[str, ...]]

    @property
    def title(self) -> str:
        """The module's own title."""
        return self._documentation[0].partition(":")[0]

    @property
    def summary(self) -> str:
        """The rest of the first line of the module's docstring."""
        summary = self._documentation[0].partition(":")[2].strip()
        return summary[0].upper() + summary[1:]

    @property
    def details(self) -> str:
        """The paragraphs after the first line of the module's docstring."""
        return self._documentation[2].strip()

    @property
    def _documentation(self) -> tuple[str, str, str]:
        return doc(sys.modules[self.module]).partition("\n")

    @property
    def filename(self) -> str:
        """The name of the page, without its suffix."""
        return self.module.rpartition(".")[2].replace("_", "-")

    @property
    def main(self) -> Operation:
        """The operation that the page describes; the others are described by their differences from it."""
        return next(each for each in self.operations if self.step.model in self.names[each.id])

    @property
    def step(self) -> Step:
        """The call that is shown."""
        known = {name for names in self.names.values() for name in names}
        steps = (step for step in (*STEPS, *MORE_STEPS) if step.model in known)
        return next(steps, None) or _minimal_step(self.operations[0])


def _minimal_step(operation: Operation) -> Step:
    """Return a call with the required fields only."""
    values: Mapping[str, object] = {"file": Path("lighthouse.png"), "text": "a lighthouse"}
    required = {name: values[field.kind] for name, field in operation.fields.items() if field.required}
    return Step(operation.title, "made", operation.id, required)


def families() -> list[Family]:
    """Return every operation that comes with impasto, by module."""
    registry = Registry()
    modules: dict[str, dict[str, list[str]]] = {}
    for each in declared(registry, OPERATIONS):
        if each.distribution == _OURS:
            operation = registry.operation(each.name)
            names = modules.setdefault(each.value.partition(":")[0], {}).setdefault(operation.id, [])
            names += [each.name]
    found = []
    for module, ids in modules.items():
        operations = sorted((registry.operation(id) for id in ids), key=lambda each: each.provider.name != "stability")
        known = {id: (id, *sorted({*names} - {id}, key=len)) for id, names in ids.items()}
        found.append(Family(module, tuple(operations), known))
    return sorted(found, key=lambda family: family.title)


def pages() -> Iterator[tuple[str, str]]:
    """Return the index, and a page for each family."""
    every = families()
    yield "models/index.md", _index(every)
    for family in every:
        yield f"models/{family.filename}.md", _page(family)


def _index(every: list[Family]) -> str:
    parts = ["# Models", _INTRODUCTION]
    for group, heading in _GROUPS.items():
        rows = [
            [f"[{family.title}]({family.filename}.md)", family.summary.rstrip("."), _price_range(family)]
            for family in every
            if group_of(family.main) == group
        ]
        parts += [f"## {heading}", table(["model", "result", "USD a call"], rows)]
    filenames = "\n".join(family.filename for family in every)
    return page(*parts, f"```{{toctree}}\n:hidden:\n\n{filenames}\n```")


def _price_range(family: Family) -> str:
    costs = sorted({cost.usd for each in family.operations if (cost := each.flat_cost) is not None})
    return " to ".join(f"{usd:g}" for usd in dict.fromkeys((costs[0], costs[-1]))) if costs else "varies"


def _page(family: Family) -> str:
    main = family.main
    description = describe(main.id, main)
    others = [each for each in family.operations if each is not main]
    return page(
        f"# {family.title}",
        family.summary,
        family.details,
        "## Models",
        "`served as` is the path or the model ID at the provider.",
        table(["model", "served as", "price"], [_row(family, each) for each in (main, *others)]),
        "## Fields",
        f"The fields of {code(main.id)}:",
        table(["field", "meaning", "limits", "default"], [_field(each) for each in description.fields]),
        _rules(description),
        "## Differences between the models" if others else "",
        *_differences(description, [describe(each.id, each) for each in others]),
        "## Examples",
        *calls(family.step, main, family.filename),
        *_on_bedrock(family),
    )


def _row(family: Family, operation: Operation) -> list[str]:
    price = str(operation.price) if operation.price is not None else "not known"
    return [" or ".join(map(code, family.names[operation.id])), code(operation.target), price]


def _field(field: FieldDescription) -> list[str]:
    default = "**required**" if field.required else code(field.default)
    return [code(field.name), field.description, _limits(field), default]


def _limits(field: FieldDescription) -> str:
    return ", ".join(map(code, field.choices)) if field.choices else field.takes


def _rules(description: Description) -> str:
    rules = list(description.rules)
    if description.max_bytes is not None:
        rules.append(f"the whole request: at most {description.max_bytes:,} bytes")
    return "Rules:\n\n" + "\n".join(f"- {rule}" for rule in rules) if rules else ""


def _differences(main: Description, others: list[Description]) -> Iterator[str]:
    """Return the differences from ``main``; models with the same differences share a list."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for other in others:
        alike.setdefault(tuple(_difference(main, other)), []).append(other.model)
    for lines, models in alike.items():
        yield ", ".join(map(code, models)) + (":" if lines else f": no difference from {code(main.model)}.")
        yield "\n".join(f"- {line}" for line in lines)


def _difference(main: Description, other: Description) -> Iterator[str]:
    ours = {field.name: field for field in main.fields}
    theirs = {field.name: field for field in other.fields}
    if missing := [name for name in ours if name not in theirs]:
        yield f"no {', '.join(map(code, missing))}"
    for name, field in theirs.items():
        if field != (known := ours.get(name)):
            meaning = f"{field.description} " if known is None or known.description != field.description else ""
            default = "; required" if field.required else f"; default {code(field.default)}" if field.default else ""
            yield f"{code(name)}{' (additional)' if known is None else ''}: {meaning}{_limits(field)}{default}"
    yield from (f"without the rule: {rule}" for rule in main.rules if rule not in other.rules)
    yield from (f"an additional rule: {rule}" for rule in other.rules if rule not in main.rules)
    if other.max_bytes != main.max_bytes:
        yield f"the whole request: at most {other.max_bytes:,} bytes" if other.max_bytes else "no limit of bytes"


def _on_bedrock(family: Family) -> Iterator[str]:
    """Return the same call on Bedrock, with the fields that the model has there."""
    served = [each for each in family.operations if each.provider.name == "bedrock"]
    if served:
        on_bedrock = served[0]
        params = {name: value for name, value in family.step.params.items() if name in on_bedrock.fields}
        step = attrs.evolve(family.step, model=on_bedrock.id, params=params)
        yield "### Amazon Bedrock"
        yield "AWS credentials and the region are found as boto3 finds them:"
        yield fenced("sh", command(step, on_bedrock))
