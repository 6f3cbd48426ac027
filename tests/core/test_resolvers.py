"""Resolvers: one entry point ``acme/*`` for models that no release of a plugin lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import impasto
from impasto import BrokenPlugin, DuplicateOperation, NotAllowed, Registry, UnknownOperation
from impasto.registry import OPERATIONS
from tests.distributions import ACME, install
from tests.recorder import Recorder

RESOLVER = (
    ACME
    + """
asked = []

def find(model):
    asked.append(model)
    if model.startswith("acme/paint-"):
        return attrs.evolve(paint, id=model, title=f"found by the long way: {model}")
    return None

def find_fast(model):
    return attrs.evolve(paint, id=model, title=f"fast: {model}")

def raises(model):
    raise KeyError(model)

def exits(model):
    raise SystemExit(3)

async def later(model):
    return paint

def nonsense(model):
    return "paint"

def refuses(model):
    from impasto import ConfigError
    raise ConfigError("no licence for this model; ask Acme")

not_callable = 5
"""
)
POINTS = {
    "acme/paint": "acme_resolver:paint",
    "acme/*": "acme_resolver:find",
    "acme/fast/*": "acme_resolver:find_fast",
    "raises/*": "acme_resolver:raises",
    "exits/*": "acme_resolver:exits",
    "later/*": "acme_resolver:later",
    "nonsense/*": "acme_resolver:nonsense",
    "refuses/*": "acme_resolver:refuses",
    "missing/*": "no_such_module_anywhere:find",
    "number/*": "acme_resolver:not_callable",
}


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path, "acme-impasto", {OPERATIONS: POINTS}, {"acme_resolver": RESOLVER})
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_an_exact_name_comes_before_the_longest_prefix_which_comes_before_shorter_ones(acme: Path) -> None:
    registry = Registry()
    assert [registry.resolver_of(f"acme/{name}") for name in ("paint", "paint-9", "fast/x")] == [
        *(None, "acme/*", "acme/fast/*")
    ]
    assert registry.operation("acme/paint").title == "Acme paint"
    assert registry.operation("acme/paint-9").title == "found by the long way: acme/paint-9"
    assert registry.operation("acme/fast/paint-9").title == "fast: acme/fast/paint-9"
    assert registry.operation("acme/fast/a/b").title == "fast: acme/fast/a/b"
    assert registry.operation("acme/paint-/9").title == "found by the long way: acme/paint-/9"


def test_a_resolver_is_asked_once_for_a_name(acme: Path) -> None:
    registry = Registry()
    first = registry.operation("acme/paint-once")
    assert registry.operation("acme/paint-once") is first
    for _ in range(2):
        with pytest.raises(UnknownOperation):
            registry.operation("acme/none-of-these")
    import acme_resolver  # type: ignore[import-not-found]  # installed by this test

    assert [acme_resolver.asked.count(name) for name in ("acme/paint-once", "acme/none-of-these")] == [1, 1]


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("acme/oil", UnknownOperation, r"unknown model 'acme/oil'; the resolver 'acme/\*' has no model of this name"),
        ("acme/*", UnknownOperation, r"'acme/\*' stands for many models; give the name of one"),
        ("acme/", UnknownOperation, "unknown model 'acme/'"),
        ("raises/x", BrokenPlugin, r"the resolver 'raises/\*' failed for 'raises/x': KeyError: 'raises/x'"),
        ("exits/x", BrokenPlugin, r"the resolver 'exits/\*' failed for 'exits/x': SystemExit: 3"),
        ("later/x", BrokenPlugin, "must return an Operation or None; for 'later/x' it returned a coroutine"),
        ("nonsense/x", BrokenPlugin, "must return an Operation or None; for 'nonsense/x' it returned a str"),
        ("number/x", BrokenPlugin, r"must be a function \(name\) -> Operation \| None, not an int"),
        ("refuses/x", impasto.ConfigError, "no licence for this model; ask Acme"),
        ("missing/x", BrokenPlugin, r"'missing/\*' of acme-impasto 1.0 failed to load"),
    ],
)
def test_an_error_of_a_resolver_names_it(acme: Path, model: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Registry().operation(model)


def test_a_name_without_end_is_unknown_at_once(acme: Path) -> None:
    with pytest.raises(UnknownOperation, match="unknown model 'acme/paint-a/a"):
        Registry().operation("acme/paint-" + "a/" * 100_000 + "x")


def test_suggestions_are_models_that_can_be_called(acme: Path) -> None:
    with pytest.raises(UnknownOperation) as caught:
        Registry().operation("acm/paint")
    assert "closest: acme/paint" in str(caught.value)
    assert "*" not in str(caught.value)


def test_two_distributions_that_claim_a_prefix(acme: Path) -> None:
    install(acme, "acme-copy", {OPERATIONS: {"acme/*": "acme_copy:find", "copy/*": "acme_copy:find"}}, {})
    with pytest.raises(DuplicateOperation, match=r"'acme/\*' is declared by acme-copy and acme-impasto; uninstall one"):
        Registry().operation("acme/paint-9")
    assert Registry().operation("acme/paint").title == "Acme paint", "what is not in question works"
    assert Registry(allow="acme-impasto").operation("acme/paint-9").id == "acme/paint-9"


def test_a_resolver_that_is_not_allowed(acme: Path) -> None:
    install(acme, "acme-fine", {OPERATIONS: {"acme/paint-9": "acme_resolver:paint"}}, {})
    with pytest.raises(NotAllowed, match="add acme-impasto to it"):
        Registry(allow="acme-fine").operation("acme/paint-8")
    assert Registry(allow="acme-fine").operation("acme/paint-9").title == "Acme paint"
    assert Registry(allow="acme-impasto").operation("acme/paint-9").title == "found by the long way: acme/paint-9"
    assert "acme/*" not in Registry(allow="acme-fine").names(OPERATIONS)


def test_a_resolver_added_by_hand(acme: Path) -> None:
    registry = Registry()
    operation = registry.operation("acme/paint")
    registry.add(OPERATIONS, "mine/*", lambda name: operation)
    assert registry.operation("mine/any") is operation
    registry.add(OPERATIONS, "mine/*", lambda name: None)
    with pytest.raises(UnknownOperation):
        registry.operation("mine/any")


async def test_a_client_runs_a_model_that_a_resolver_finds(acme: Path, recorder: Recorder) -> None:
    settings = {"acme": {"api_key": "acme-key", "api_base": recorder.url}}
    async with impasto.Client(providers=settings) as client:
        assert {"acme/paint", "acme/*"} <= set(client.models())
        result = await client.run("acme/paint-new", prompt="a barn")
        assert client.describe("acme/paint-new").model == "acme/paint-new"
        with pytest.raises(UnknownOperation):
            await client.run("acme/oil", prompt="a barn")
    assert len(result.artifacts) == 1
    assert len(recorder.requests) == 1


async def test_the_drop_in_functions_and_a_batch_run_it_too(acme: Path, recorder: Recorder, tmp_path: Path) -> None:
    settings = {"acme": {"api_key": "acme-key", "api_base": recorder.url}}
    image = await impasto.aimage_generation(
        "a barn", "acme/paint-new", api_key="acme-key", api_base=recorder.url, drop_params=True
    )
    assert len(image.data) == 1
    rows = [{"id": name, "model": f"acme/{name}", "prompt": "a barn"} for name in ("paint-a", "paint-b", "oil")]
    async with impasto.Client(providers=settings) as client:
        outcomes = {each.id: each async for each in client.batch(rows)}
    assert [outcomes[name].error is None for name in ("paint-a", "paint-b", "oil")] == [True, True, False]
    assert "has no model of this name" in json.dumps(str(outcomes["oil"].error))
