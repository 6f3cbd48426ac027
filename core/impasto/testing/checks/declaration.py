"""Checks of a plugin's declarations: its name, its hooks, and the imports that they cause."""

from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import cast

import pytest

from impasto import InvalidRequest, Operation, Registry, UnknownOperation, WireRequest
from impasto.describe import describe
from impasto.fanout import requests_with_seeds
from impasto.fields import format_value
from impasto.hooks import Specs, hookimpl
from impasto.registry import OPERATIONS
from impasto.route import Route
from impasto.testing.places import all_fields
from impasto.testing.subject import Subject
from impasto.testing.watch import blocking_calls, check, process_check

_SPECS = frozenset(name for name, value in vars(Specs).items() if inspect.isfunction(value))
_MARK = f"{hookimpl.project_name}_impl"

_NAMED_ONLY = """
import json, sys
import impasto
registry = impasto.Registry()
registry.names("impasto.operations")
before = sorted(sys.modules)
registry.operation({model!r})
print(json.dumps([before, sorted(sys.modules)]))
"""


_TEXTS, _FILES = ("text",), ("file", "files")
_NO_NAMES = ("no such model", "../account", "/../../account", "?key=1", "#y", "\r\ny", "\n", "\x00", " ")


class _Nowhere:
    """A transport that sends nothing."""

    @hookimpl
    def send(self, wire: WireRequest) -> None:
        return None


class DeclarationChecks(Subject):
    """Checks of a plugin's declarations."""

    @check
    def test_its_name_is_installed_and_matched_whole(self) -> None:
        """Check that the name is one entry point, and that no similar name leads to it."""
        registry = Registry()
        name = registry.resolver_of(self.model) or self.model
        declared = registry.scan.declarations.get(OPERATIONS, {}).get(name, [])
        assert len(declared) == 1, f"{name!r} must be one entry point of {OPERATIONS}; there are {len(declared)}"
        assert self.model.partition("/")[0] == self.operation().provider.name, "a model is named provider/model"
        for near in (self.model[:-1], f"{self.model} ", self.model.swapcase(), self.model.partition("/")[2]):
            if near not in registry.names(OPERATIONS):
                with pytest.raises(UnknownOperation):
                    self.registry_of_one().operation(near)

    @check
    def test_its_resolver_finds_models_by_their_names_alone(self) -> None:
        """Check the resolver of the model: its operation's id, names that are none, and that it connects to nobody."""
        pattern = self._resolver
        if pattern is None:
            pytest.skip("the model's own name is declared: no resolver finds it")
        find = Registry().load(OPERATIONS, pattern, object)
        assert callable(find), f"the resolver {pattern!r} must be a function"
        with blocking_calls() as found:
            operation = cast(Operation, find(self.model))
            assert operation.id == self.model, f"the operation of {self.model} has the id {operation.id!r}"
            for name in (f"{head}{wrong}" for wrong in _NO_NAMES for head in (pattern[:-1], self.model)):
                try:
                    other = find(name)
                except Exception as error:  # a plugin may raise anything
                    raise AssertionError(f"the resolver raised {error!r} for {name!r}: return None") from error
                assert other is None, (
                    f"the resolver takes {name!r} for a model: compare the whole name with a pattern, re.fullmatch, "
                    "since it becomes part of a request"
                )
        connections = [each for each in found if "connects" in each or "host name" in each]
        assert not connections, f"the resolver must decide by the name alone: {connections[0]}"

    @check
    def test_openais_arguments_fill_its_fields(self) -> None:
        """Check the roles of fields, through which the drop-in functions and the gateway fill them, and the mask."""
        operation = self.operation()
        roles, fields = operation.roles, operation.fields
        wrong = [
            f"{name}: role={fields[name].role!r}, documented is {role!r}: see roles"
            for name, role in self.roles.items()
            if fields[name].role != role
        ]
        required = [name for name, field in fields.items() if field.required]
        texts, files = ([name for name in required if fields[name].kind in kinds] for kinds in (_TEXTS, _FILES))
        if operation.output == "image" and len(texts) == 1 and "prompt" not in roles:
            wrong.append(f"{texts[0]}: no argument of OpenAI's fills it: text(role='prompt')")
        if operation.output == "image" and files and not any(fields[name].role for name in files):
            wrong.append(f"{files[0]}: no argument of OpenAI's fills it: role='image'")
        if "mask" in roles and "image" not in roles:
            wrong.append(f"{roles['mask'][0]} has the role 'mask', and no field has the role 'image'")
        wrong += [
            f"{name}: the provider edits the {self.mask_area} area, mask_area is {fields[name].mask_area}"
            for name in roles.get("mask", ())
            if self.mask_area is not None and fields[name].mask_area != self.mask_area
        ]
        assert not wrong, "\n".join(wrong)

    @process_check
    def test_listing_names_imports_nothing_of_it_and_its_first_use_no_other_model(self) -> None:
        """Check the imports of a fresh process."""
        module = {name: points[0].entry.module for name, points in Registry().scan.declarations[OPERATIONS].items()}
        code = _NAMED_ONLY.format(model=self.model)
        command, most = [sys.executable, "-c", code], self.process_seconds()
        ran = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=most)
        assert ran.returncode == 0, ran.stderr
        before, after = map(set, json.loads(ran.stdout.splitlines()[-1]))
        own = module[Registry().resolver_of(self.model) or self.model]
        assert own not in before, f"{own} was imported before its model was asked for"
        mine = own.partition(".")[0]
        beside = {other for other in module.values() if other.partition(".")[0] == mine and other != own}
        assert not (beside & after), f"the first use of {self.model} imported other models: {sorted(beside & after)}"
        heavy = {"aiohttp", "botocore", "aiobotocore", "PIL", "numpy", "torch"} & (after - before)
        assert not heavy, f"{own} imports {', '.join(sorted(heavy))}: import heavy modules where they are first used"

    @check
    def test_its_price_before_a_call_is_the_documented_one(self) -> None:
        """Check ``estimates``, which budgets reserve: the price of one image by its parameters."""
        minimal = self._estimate({})
        if minimal is None:
            pytest.skip("the model has no price, or none before its calls")
        if self.native_n is not None:
            several = self._estimate({}, self.native_n[1])
            assert several == minimal, (
                f"the price is {minimal} USD, and {several} USD of a request for {self.native_n[1]} images: quote "
                "returns the price of one image, which is multiplied by their number"
            )
        if not self.estimates:
            found = {self._estimate(self.params_with(name, value)) for name, value in self.values()} - {None}
            is_proved = found <= {minimal} and (self.reports or {}).get("usd") in (None, minimal)
            assert is_proved, (
                "declare estimates, the documented USD of one image before its call: [({}, 0.02), ({'size': 'wide'}, "
                f"0.05)]; without parameters the plugin has {minimal}"
            )
            pytest.skip("no estimates: declare them if the price depends on parameters")
        for params, usd in self.estimates:
            quoted = self._estimate(params)
            assert math.isclose(quoted or 0.0, usd, rel_tol=1e-6), (
                f"the price of {self.model} with {format_value(params)} is {quoted} USD, documented is {usd}: see price"
            )

    def _estimate(self, params: Mapping[str, object], n: int = 1) -> float | None:
        """Return the USD of one of n images with these parameters beside the minimal ones, None if unknown."""
        operation = self.operation()
        try:
            request = operation.request(self.model, {**self.minimal, **params}, n=n)
            cost = operation.cost(requests_with_seeds(n, request, operation, operation.native_n)[0][0])
        except InvalidRequest:
            return None
        return None if cost is None else cost.usd

    @check
    def test_its_hooks_are_as_they_are_specified(self) -> None:
        """Check the names and arguments of the hooks."""
        plugin = self.operation()
        wrong = list(_wrong_hooks(plugin))
        assert not wrong, "\n".join(wrong)
        Route.open(plugin, _Nowhere())  # pluggy's own validation: BrokenPlugin

    @check
    def test_what_it_says_of_itself_survives_json(self) -> None:
        """Check that the description is valid JSON and has every field."""
        import attrs

        about = attrs.asdict(describe(self.model, self.operation()))
        assert json.loads(json.dumps(about)) == json.loads(json.dumps(about, allow_nan=False))
        assert [field["name"] for field in about["fields"]] == [name for name, _ in all_fields(self.operation().fields)]
        params = [field.name for field in attrs.fields(self.operation().params)]
        unknown = {name for name, _ in self.values()} - set(params)
        assert not unknown, f"minimal and others name unknown fields: {', '.join(sorted(unknown))}"
        missing = set(params) - {name for name, _ in self.values()} - set((self.native_n or ())[:1])
        assert not missing, f"give others a value for {', '.join(sorted(missing))}: every field is checked on the wire"

    @check
    def test_every_field_says_what_it_does(self) -> None:
        """Skip, with their names, if fields have no description."""
        # Skipped, not failed: without the text a model works and charges as it should, but its users have to guess.
        undescribed = [name for name, field in all_fields(self.operation().fields) if not field.description]
        if undescribed:
            pytest.skip(f"no description: {', '.join(undescribed)}; give each field description='One sentence.'")


def _wrong_hooks(plugin: object) -> Iterator[str]:
    for name in dir(plugin):
        value = getattr(plugin, name, None)
        options = getattr(value, _MARK, None)
        if not callable(value):
            continue
        if options is None:
            if name in _SPECS:
                yield f"{name} has no @impasto.hookimpl, so it is never called"
            continue
        hook = options.get("specname") or name
        if hook not in _SPECS:
            yield f"unknown hook {name}; the hooks are {', '.join(sorted(_SPECS))}"
        elif hook == "send" and (options["wrapper"] or options["hookwrapper"]):
            yield "send must not be wrapped: a wrapper never sees the network; use a middleware around it"
        parameters = inspect.signature(value).parameters.values()
        named_only = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        if named_only:
            yield f"{name}: keyword-only arguments are never passed to a hook: {', '.join(named_only)}"
