"""models, describe, plugins and doctor: for a reader and for a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import impasto
from impasto import Registry
from impasto.distributions import Scan, scan_entry_points
from impasto.registry import GROUPS, OPERATIONS
from tests.conftest import KEY
from tests.distributions import ACME, install
from tests.plugins.cli.conftest import Run

MODELS = impasto.Registry().names(OPERATIONS)


def test_models_lists_every_name_once_with_its_price(run: Run) -> None:
    rows = json.loads(run("models", "--json").stdout)
    names = [name for row in rows for name in (row["name"], *row["aliases"])]
    assert sorted(names) == MODELS
    inpaint = next(row for row in rows if row["name"] == "stability/inpaint")
    assert inpaint["aliases"] == ["stability/stable-image-inpaint-v1:0"]
    assert (inpaint["group"], inpaint["credits"], inpaint["usd"]) == ("edit", 5, 0.05)
    output = run("models").stdout
    assert all(name in output for name in names)


def test_models_are_under_the_command_that_calls_them(run: Run) -> None:
    groups = {row["name"]: row["group"] for row in json.loads(run("models", "--json").stdout)}
    assert groups["stability/sd3.5-large"] == "generate"
    assert groups["stability/style-transfer"] == "edit"
    assert "broken" not in groups.values()


@pytest.mark.parametrize(
    "model", ["stability/inpaint", "stability/sd3.5-large", "stability/replace-background-and-relight"]
)
def test_describe_tells_fields_bounds_rules_and_price(run: Run, model: str) -> None:
    payload = json.loads(run("describe", model, "--json").stdout)
    output = " ".join(run("describe", model).stdout.split())
    operation = impasto.Registry().operation(model)
    assert {field["name"]: field["description"] for field in payload["fields"]} == {
        name: field.description for name, field in operation.fields.items()
    }
    for name, field in operation.fields.items():
        assert (
            f"{name} * {field.description} [" in output if field.required else f"{name} {field.description} [" in output
        )
        if field.default is not None:
            assert f"default {field.default}" in output
    for rule in payload["rules"]:
        assert rule in output
    assert payload["price"] in output
    assert f"served by stability as {payload['operation']}" in output


def test_describe_of_an_unknown_model(run: Run) -> None:
    result = run("describe", "stability/inpant", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["type"] == "UnknownOperation"
    assert "stability/inpaint" in result.stderr


def test_plugins_lists_what_the_metadata_declares(run: Run) -> None:
    rows = json.loads(run("plugins", "--json").stdout)
    own = [row for row in rows if row["distribution"] == "impasto"]
    assert {row["group"] for row in own} == set(GROUPS)
    assert {row["name"] for row in own if row["group"] == OPERATIONS} == set(MODELS)
    assert {row["version"] for row in own} == {impasto.__version__}
    assert "stability/inpaint" in run("plugins").stdout


def findings(run: Run, **variables: str | None) -> tuple[int, dict[str, tuple[str, str]]]:
    result = run("doctor", "--json", **variables)
    payload = json.loads(result.stdout)
    assert payload["broken"] == (result.exit_code == 1)
    return result.exit_code, {each["subject"]: (each["state"], each["text"]) for each in payload["findings"]}


def test_doctor_finds_all_well(run: Run) -> None:
    code, found = findings(run)
    assert code == 0
    assert found["stability key"] == ("ok", "STABILITY_API_KEY is set")
    assert found["aiohttp"][0] == "ok"
    loaded, _, of, _ = found[OPERATIONS][1].split()
    assert (loaded, of) == (str(len(MODELS)),) * 2 or found[OPERATIONS][1].startswith(
        f"{len(MODELS)} of {len(MODELS)} "
    )
    assert "BROKEN" not in run("doctor").stdout


def test_doctor_notes_a_missing_key_and_does_not_call_it_broken(run: Run) -> None:
    code, found = findings(run, STABILITY_API_KEY=None)
    assert code == 0
    assert found["stability key"][0] == "note"


@pytest.mark.parametrize(
    ("variable", "value", "subject"),
    [
        ("STABILITY_API_KEY", KEY + "\n", "stability"),
        ("STABILITY_API_BASE", "http://example.com", "stability"),
        ("IMPASTO_POLL_INTERVAL", "soon", "settings"),
    ],
)
def test_doctor_finds_what_is_broken(run: Run, variable: str, value: str, subject: str) -> None:
    code, found = findings(run, **{variable: value})
    assert code == 1
    assert found[subject][0] == "broken"


def test_doctor_names_a_plugin_that_is_none(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports, and is a class where a model is called for: whoever calls it is refused."""
    install(
        tmp_path, "acme-wrong", {OPERATIONS: {"acme/wrong": "acme_wrong:Model"}}, {"acme_wrong": "class Model: ..."}
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, found = findings(run)
    assert code == 1
    message = "acme-wrong 1.0: 'acme/wrong' is a type, but must be an Operation"
    assert found[f"{OPERATIONS} acme/wrong"] == ("broken", message)


@pytest.mark.parametrize("words", [("models",), ("plugins",), ("describe", "stability/sd3")])
def test_a_command_reads_the_installed_metadata_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    scans = []

    def scan(**options: bool) -> Scan:
        scans.append(options)
        return scan_entry_points(**options)

    monkeypatch.setattr("impasto.registry.scan_entry_points", scan)
    assert run(*words).exit_code == 0
    assert scans == [{}]


def test_only_a_module_that_is_not_imported_yet_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path,
        "acme-pair",
        {"impasto.operations": {f"acme/{name}": "acme_pair:paint" for name in ("a", "b", "c")}},
        {"acme_pair": ACME},
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    started = []

    def start(timer: object) -> None:
        started.append(timer)

    monkeypatch.setattr("threading.Timer.start", start)
    registry = Registry()
    for name in ("a", "b", "c"):
        registry.operation(f"acme/{name}")
    del sys.modules["acme_pair"]
    assert len(started) == 1


RESOLVER = ACME + "\ndef find(model):\n    return attrs.evolve(paint, id=model) if model != 'acme/none' else None\n"


def test_models_that_a_resolver_finds(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"acme/*": "acme_found:find", "wrong/*": "acme_found:RESOLVER_NUMBER"}
    install(tmp_path, "acme-found", {OPERATIONS: points}, {"acme_found": RESOLVER + "RESOLVER_NUMBER = 5\n"})
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert (rows["acme/*"]["group"], rows["acme/*"]["distribution"]) == ("resolver", "acme-found 1.0")
    assert "acme/*  any model of acme/*, from acme-found 1.0" in " ".join(run("models").stdout.split("\n"))
    assert json.loads(run("describe", "acme/new", "--json").stdout)["operation"] == "/paint"
    unknown = run("describe", "acme/none")
    assert (unknown.exit_code, "the resolver 'acme/*' has no model of this name" in unknown.output) == (2, True)
    _, found = findings(run)
    assert found[f"{OPERATIONS} wrong/*"] == ("broken", "acme-found 1.0: must be a function, not int")
    assert f"{OPERATIONS} acme/*" not in found
