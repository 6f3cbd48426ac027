"""Change the models' parameter classes one place at a time, and count the changes that the oracle does not notice.

``python -m tests.oracle.mutants`` tries every bound, choice, default, required field, rule, limit, constant and price
of ``impasto_plugins.stability``: on the client (its wire, and else its descriptions), and by itself on the emulator. It
prints the changes that either did not notice: the vendor's documents say nothing about them, or they alter nothing.
Defaults are tried on the client alone, as nothing sends them.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib.abc
import importlib.machinery
import importlib.metadata
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest

from tests.campaigns.changes import Change
from tests.campaigns.reach import ROOT
from tests.oracle import test_client, test_emulator
from tests.oracle.contract import EVERY, Contract
from tests.oracle.emulator import Wire, judge as judge_emulator
from tests.oracle.entrances import Run, client_of, judge
from tests.oracle.recording import recording
from tests.oracle.samples import minimal_request

PACKAGE = "impasto_plugins.stability"
FOLDER = ROOT / "plugins/impasto_plugins/stability"
NO_PARAMETERS = (
    "__init__", "account", "answers", "base64_file", "bedrock", "direct", "provider",
     "refusals",
)  # fmt: skip
WORDS = ("id", "title", "note", "docs_url", "role", "alias", "pattern", "words")
"""Arguments that say nothing about a request."""

DROPPED = (
    "default", "required", "rules", "constants", "max_bytes", "min_side", "max_side", "min_pixels", "max_pixels",
    "aspect", "derive_params", "by_default", "without", "minimum", "maximum",
)  # fmt: skip
KINDS = {"integer": "number", "number": "integer"}


def changes(path: Path) -> Iterator[tuple[Change, bool]]:
    """Yield every change of a module, and if it changes a default only."""
    source = path.read_text("utf-8")
    data = source.encode()
    starts = [0, *itertools.accumulate(len(line.encode()) for line in source.splitlines(keepends=True))]
    tree = ast.parse(source)
    defaults = {
        id(below)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "default"
        for below in ast.walk(node)
    }
    for node, after, dropped in _replacements(tree):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        change = Change(path.stem, node.lineno, start, end, data[start:end].decode(), after)
        yield change, dropped == "default" or id(node) in defaults


def _replacements(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str, str | None]]:
    """Yield nodes, what replaces each, and the argument that is dropped."""
    skipped = {id(below) for node in _passed_over(tree) for below in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        match node:
            case ast.Constant(value=bool() as value):
                yield node, str(not value), None
            case ast.Constant(value=int() | float() as value):
                step = 1 if isinstance(value, int) else 0.01
                yield node, repr(round(value + step, 6)), None
                yield node, repr(round(value - step, 6)), None
            case ast.Constant(value=str() as value) if " " not in value:  # a title has one, a choice has none
                yield node, repr(f"{value}x"), None
            case ast.Call():
                yield from ((node, ast.unparse(call), dropped) for call, dropped in _calls(node))
            case ast.Tuple(elts=elements) if len(elements) > 1:
                for index in range(len(elements)):
                    yield node, ast.unparse(ast.Tuple(elements[:index] + elements[index + 1 :], ast.Load())), None
            case ast.Dict(keys=keys, values=values):
                for index in range(len(keys)):
                    rest = ast.Dict(keys[:index] + keys[index + 1 :], values[:index] + values[index + 1 :])
                    yield node, ast.unparse(rest), None
            case ast.ClassDef(body=body):
                yield from ((statement, "pass", None) for statement in body if isinstance(statement, ast.AnnAssign))
            case _:
                pass


def _calls(node: ast.Call) -> Iterator[tuple[ast.Call, str | None]]:
    """Yield a call without one of its arguments, with one choice fewer or more, or of another kind of field."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in ("choice", "output_format") and node.args:
        texts = [index for index, each in enumerate(node.args) if isinstance(each, ast.Constant)]
        for index in texts if len(texts) > 1 else ():
            yield ast.Call(node.func, node.args[:index] + node.args[index + 1 :], node.keywords), None
        yield ast.Call(node.func, [*node.args, ast.Constant("more")], node.keywords), None
    if name in KINDS:
        yield ast.Call(ast.Name(KINDS[name]), node.args, node.keywords), None
    for keyword in node.keywords:
        if keyword.arg in DROPPED or (name == "variant" and keyword.arg is not None):
            others = [each for each in node.keywords if each is not keyword]
            yield ast.Call(node.func, node.args, others), keyword.arg


def _passed_over(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what says nothing about a request: types, imports, texts for people."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
                yield node
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=ast.expr() as annotation):
                yield annotation
            case ast.keyword(arg=str() as name) if name in WORDS:
                yield node
            case ast.ClassDef(decorator_list=decorators):
                yield from decorators
            case ast.FunctionDef(name="__str__" | "problems"):
                yield node
            case ast.FunctionDef(returns=returns):
                yield from [returns] if returns is not None else []
            case _:
                pass


class ChangedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import one module from a changed source."""

    def __init__(self, name: str, source: bytes) -> None:
        self._name, self._source = name, source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._name, "exec"), module.__dict__)


def contracts_of(module: str) -> list[Contract]:
    """Return the contracts whose models a module declares."""
    points = importlib.metadata.entry_points(group="impasto.operations")
    names = {point.name for point in points if point.module == f"{PACKAGE}.{module}"}
    return [contract for contract in EVERY if contract.model in names] or list(EVERY)


async def _client(contracts: Sequence[Contract]) -> None:
    async with recording() as provider, client_of(provider) as client:
        for contract in contracts:
            checks: list[Callable[..., Awaitable[None]]] = [
                test_client.test_each_name_of_a_model_sends_the_same,
                test_client.test_no_other_field_is_taken,
            ]
            if contract.provider == "bedrock":
                checks.append(test_client.test_a_guardrail_goes_out_as_headers)
            await test_client.test_the_price_is_the_vendors(client, contract)
            await judge(Run(client, provider), contract)
            for check in checks:
                await check(client, provider, contract)
            for name in contract.files if contract.limit is not None else ():
                await test_client.test_a_request_has_at_most_the_bytes_that_the_vendor_takes(
                    client, provider, contract, name
                )


async def _description(contracts: Sequence[Contract]) -> None:
    async with recording() as provider, client_of(provider) as client:
        for contract in contracts:
            await test_client.test_a_description_says_what_the_vendor_says(client, contract)


async def _emulator(contracts: Sequence[Contract]) -> None:
    from impasto_plugins.emulator import SHORT, Emulator  # after the change is in place

    async with Emulator(SHORT) as emulator, aiohttp.ClientSession() as session:
        wire = Wire(emulator.url, session)
        for contract in contracts:
            if "emulator" in contract.open:
                continue
            await judge_emulator(wire, contract)
            await test_emulator.test_a_request_is_charged_at_the_vendors_price(wire, contract)
            if contract in test_emulator.OF_CONSTANTS:
                await test_emulator.test_a_model_has_one_of_the_names_of_its_path(wire, contract)
            if contract in test_emulator.OF_CONSTANTS and contract.is_default:
                await test_emulator.test_without_a_model_the_vendors_own_is_meant(wire, contract)
            if contract in test_emulator.OF_A_LIMIT.values():
                await test_emulator.test_the_whole_request_is_limited(wire, contract)
            if contract.provider == "stability":
                await test_emulator.test_the_answers_are_those_of_the_vendor(wire, contract)
            else:
                await test_emulator.test_bedrock_refuses_a_field_that_the_model_has_not(wire, contract)
                await test_emulator.test_a_body_on_bedrock_may_be_larger_than_a_request_elsewhere(wire, contract)


def run_change(change: Change, *, is_default: bool) -> dict[str, str | None]:
    """Try a change in a process of its own. Return what client and emulator noticed, None if nothing."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
            source = change.apply((FOLDER / f"{change.path}.py").read_bytes())
            sys.meta_path.insert(0, ChangedModule(f"{PACKAGE}.{change.path}", source))
            contracts = contracts_of(change.path)
            failures = {"client": _failure(_client, contracts) or _failure(_description, contracts)}
            if not is_default:
                failures["emulator"] = _failure(_emulator, contracts)
            os.write(writer, json.dumps(failures).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        output = pipe.read()
    os.waitpid(child, 0)
    return json.loads(output) if output else {"client": "the process ended"}


def _failure(side: Callable[[Sequence[Contract]], Awaitable[None]], contracts: Sequence[Contract]) -> str | None:
    async def within() -> None:
        async with asyncio.timeout(120):
            await side(contracts)

    try:
        asyncio.run(within())
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is, the change was noticed
        return f"{type(error).__name__}: {error}"[:200]
    return None


async def _warm() -> None:
    """Import all else, so that no change waits for it."""
    async with recording() as provider, client_of(provider) as client:
        for contract in (EVERY[1], EVERY[-1]):
            await client.run(contract.model, **minimal_request(contract))


def main() -> None:
    """Try every change and print those that were missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="such as sd3; by default all")
    options = parser.parse_args()
    asyncio.run(_warm())
    for name in [name for name in sys.modules if name.startswith((PACKAGE, "impasto_plugins.emulator"))]:
        del sys.modules[name]
    changes_tried: Counter[str] = Counter()
    survivors: Counter[str] = Counter()
    modules = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NO_PARAMETERS)
    for module in options.modules or modules:
        for change, is_default in changes(FOLDER / f"{module}.py"):
            outcome = run_change(change, is_default=is_default)
            changes_tried.update(outcome.keys())
            if by := [side for side, failure in outcome.items() if failure is None]:
                survivors.update(by)
                print(f"missed by {' and '.join(by)}: {change}", flush=True)
        print(f"{module}: {dict(changes_tried)} changes, {dict(survivors)} survivors", flush=True)


if __name__ == "__main__":
    main()
