"""Names to plugins: other people's distributions, good and broken, duplicates, names that nobody declares."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import impasto
from impasto import (
    BrokenPlugin,
    DuplicateOperation,
    InvalidRequest,
    MissingExtra,
    Registry,
    RegistryError,
    UnknownOperation,
)
from impasto.registry import GROUPS, MIDDLEWARE, OPERATIONS, PROVIDERS, TRANSPORTS
from impasto_plugins.cli.declarations import declared
from tests.distributions import ACME, install
from tests.recorder import Recorder

MODULES = {
    "broken_a_raises": "raise RuntimeError('boom\\nforged line')",
    "broken_b_exits": "import sys; sys.exit(3)",
    "broken_c_import": "import no_such_module_anywhere",
    "broken_d_yaml": "raise ModuleNotFoundError('no', name='yaml.nodes')",
    "broken_e_syntax": "def f(:",
    "broken_f_attribute": "x = 1",
    "broken_g_class": "class operation: pass",
    "broken_h_none": "operation = None",
    "broken_i_impasto": "from impasto import ConfigError; raise ConfigError('no licence')",
    "broken_j_generator": "raise GeneratorExit",
    "broken_k_extra": "from impasto import MissingExtra; raise MissingExtra('pip install paint[oils]')",
}


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path, "acme-impasto", {OPERATIONS: {"acme/paint": "acme_plugin:paint"}}, {"acme_plugin": ACME})
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


async def test_anyone_can_add_a_provider(acme: Path, recorder: Recorder) -> None:
    settings = {"acme": {"api_key": "acme-key", "api_base": recorder.url}}
    async with impasto.Client(providers=settings) as client:
        assert "acme/paint" in client.models()
        result = await client.run("acme/paint", n=2, prompt="a barn", tile=True)
        with pytest.raises(InvalidRequest) as caught:
            await client.run("acme/paint", prompt=5, step=1, tile="yes")
        with pytest.raises(InvalidRequest, match="steps: 'steps' must be <= 50: 51"):
            await client.run("acme/paint", prompt="x", steps=51)
        about = client.describe("acme/paint")
    assert {(p.field, p.message) for p in caught.value.problems} == {
        ("prompt", "must be text, not a whole number"),
        ("step", "unknown parameter 'step'; did you mean 'steps'?"),
        ("tile", "must be true or false, not text"),
    }
    assert [request.fields for request in recorder.requests] == [
        {"prompt": "a barn", "steps": "30", "tile": "true"}
    ] * 2
    assert [request.header("x-key") for request in recorder.requests] == ["acme-key"] * 2
    assert recorder.requests[0].header("authorization") is None
    assert (len(result.artifacts), result.warnings) == (2, ())
    assert [(f.name, f.type, f.required, f.default) for f in about.fields] == [
        ("prompt", "text", True, None),
        ("steps", "integer", False, 30),
        ("tile", "other", False, False),
    ]
    assert (about.provider, about.usd) == ("acme", 0.02)


async def test_a_third_partys_missing_key_names_its_own_variable(acme: Path) -> None:
    async with impasto.Client(api_key="sk-for-stability-only") as client:
        with pytest.raises(impasto.ConfigError, match="no key for acme: set ACME_KEY or give api_key"):
            await client.run("acme/paint", prompt="x")


def test_two_distributions_that_claim_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("acme-one", "acme-two"):
        module = name.replace("-", "_") + "_plugin"
        points = {"acme/paint": f"{module}:paint", f"{name}/own": f"{module}:paint"}
        install(tmp_path / name, name, {OPERATIONS: points}, {module: ACME})
        monkeypatch.syspath_prepend(tmp_path / name)
    registry = Registry()
    with pytest.raises(DuplicateOperation, match="'acme/paint' is declared by acme-one and acme-two; uninstall one"):
        registry.operation("acme/paint")
    assert registry.operation("acme-one/own").id == "acme/paint", "what is not in question works"
    assert len([d for d in declared(registry, OPERATIONS) if d.name == "acme/paint"]) == 2
    both = registry.scan.declarations[OPERATIONS]["acme/paint"]
    assert {point.owner.name for point in registry.permitted(OPERATIONS, both)} == {"acme-one", "acme-two"}
    assert all(isinstance(registry.refusal(point, both), DuplicateOperation) for point in both)


def test_one_distribution_that_claims_a_name_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme-twice", {OPERATIONS: {"acme/a": "x:y"}}, {})
    entry_points = tmp_path / "acme_twice-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text(entry_points.read_text() + "acme/a = x:z\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DuplicateOperation, match=r"'acme/a' is declared twice by acme-twice$"):
        Registry().operation("acme/a")


@pytest.mark.parametrize(
    ("module", "kind", "message"),
    [
        ("broken_a_raises", BrokenPlugin, "RuntimeError: boom\\nforged line"),
        ("broken_b_exits", BrokenPlugin, "SystemExit: 3"),
        ("broken_c_import", BrokenPlugin, "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("broken_d_yaml", BrokenPlugin, "ModuleNotFoundError: no"),
        ("broken_k_extra", MissingExtra, "pip install paint[oils]"),
        ("broken_e_syntax", BrokenPlugin, "SyntaxError: "),
        ("broken_f_attribute", BrokenPlugin, "AttributeError: "),
        ("broken_g_class", BrokenPlugin, "'bad/broken_g_class' is a type, but must be an Operation"),
        ("broken_h_none", BrokenPlugin, "'bad/broken_h_none' is a NoneType, but must be an Operation"),
        ("broken_i_impasto", impasto.ConfigError, "no licence"),
        ("broken_j_generator", BrokenPlugin, "GeneratorExit"),
        ("no_such_plugin", BrokenPlugin, "ModuleNotFoundError: No module named 'no_such_plugin'"),
    ],
)
def test_a_broken_plugin_breaks_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, kind: type[Exception], message: str
) -> None:
    points = {f"bad/{name}": f"{name}:operation" for name in (*MODULES, "no_such_plugin")}
    install(tmp_path, "bad-plugins", {OPERATIONS: points}, MODULES)
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    with pytest.raises(kind) as caught:
        registry.operation(f"bad/{module}")
    assert message in str(caught.value)
    if "failed to load" in str(caught.value):
        assert f"'bad/{module}' of bad-plugins 1.0 failed to load ({module}:operation)" in str(caught.value)
    assert registry.operation("stability/sd3").id == "stability/sd3"


def test_an_installed_plugin_can_be_left_out() -> None:
    registry = Registry(discover=False)
    assert [registry.names(group) for group in GROUPS] == [[]] * len(GROUPS)
    assert registry.scan.owners == []
    with pytest.raises(UnknownOperation, match="unknown model 'stability/sd3'; none is installed"):
        registry.operation("stability/sd3")
    with pytest.raises(RegistryError):  # whoever catches the base catches all of them
        registry.operation("stability/sd3")


def test_settings_of_what_is_not_there_are_refused_and_named() -> None:
    registry = Registry()
    operation = registry.operation("stability/sd3")
    registry.check_settings(["stability", "bedrock", "emulator"], operation)
    with pytest.raises(
        impasto.ConfigError,
        match="providers: 'stabilty' is not installed; did you mean stability",
    ):
        registry.check_settings(["stabilty"], operation)


def test_a_plugin_added_by_hand_takes_the_place_of_an_installed_one() -> None:
    registry, mine = Registry(), Registry().operation("stability/erase")
    registry.add(OPERATIONS, "stability/sd3", mine)
    assert registry.operation("stability/sd3") is mine
    assert registry.names(OPERATIONS).count("stability/sd3") == 1


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("stability/sd3.5-larg", "stability/sd3.5-large"),
        ("stable-image-core", "stability/stable-image-core"),
        ("other/inpaint", "stability/inpaint"),
        ("stability/Upscale-Fast", "stability/upscale-fast"),
    ],
)
def test_the_closest_names_come_first(text: str, first: str) -> None:
    with pytest.raises(UnknownOperation) as caught:
        Registry().operation(text)
    assert str(caught.value).startswith(f"unknown model {text!r}; closest: ")
    assert first in str(caught.value).partition("closest: ")[2].split(", ")


@pytest.mark.parametrize(
    ("group", "message"),
    [(TRANSPORTS, "unknown transport 'htps'; closest: https"), (PROVIDERS, "unknown provider 'htps'")],
)
def test_other_groups_are_named_by_what_they_are(group: str, message: str) -> None:
    with pytest.raises(UnknownOperation) as caught:
        Registry().load(group, "htps", object)
    assert message in str(caught.value)


def test_all_names_are_listed_if_none_is_close() -> None:
    registry = Registry()
    models = f"none of the {len(registry.names(OPERATIONS))} installed models is similar; `impasto models` lists them"
    for group, message in ((OPERATIONS, models), (TRANSPORTS, f"installed: {', '.join(registry.names(TRANSPORTS))}")):
        with pytest.raises(UnknownOperation) as caught:
            registry.load(group, "zz/qq-7", object)
        assert str(caught.value).endswith(message)


def test_it_is_imported_once() -> None:
    registry = Registry()
    assert registry.operation("stability/inpaint") is registry.operation("stability/stable-image-inpaint-v1:0")


def test_every_built_in_declaration_names_its_distribution() -> None:
    ours = [d for group in (OPERATIONS, PROVIDERS, TRANSPORTS, MIDDLEWARE) for d in declared(Registry(), group)]
    assert {d.distribution for d in ours} >= {"impasto"}
    assert all(d.version and ":" in d.value for d in ours)


def test_threads_that_ask_at_once_all_find_it() -> None:
    with ThreadPoolExecutor(4) as threads:
        for _ in range(20):
            registry = Registry()
            found = list(threads.map(registry.operation, ["stability/sd3"] * 4))
            assert [operation.id for operation in found] == ["stability/sd3"] * 4


def test_no_more_than_four_names_are_suggested() -> None:
    with pytest.raises(UnknownOperation) as caught:
        Registry().operation("stability/stable-image")
    assert str(caught.value).partition("closest: ")[2].count(",") == 3
