"""Everything that is wrong with a manifest is told before anything is spent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from impasto import InvalidRequest, ManifestError, Registry
from impasto_plugins.batch.ledger.workspace import LedgerHistory, WorkspacePaths
from impasto_plugins.batch.manifest.fast_validation import FastValidator
from impasto_plugins.batch.manifest.planner import Plan, Planner
from impasto_plugins.batch.manifest.reader import Manifest, parse_line
from impasto_plugins.batch.manifest.rows import parse_row, tasks_of
from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.batch.conftest import CORE, Run, Write, row

REGISTRY = Registry()
SD3 = "stability/sd3.5-large"
ERASE = "stability/erase"
MOST_SEED = 4294967294
SEDE = "unknown parameter 'sede'; did you mean 'seed'?"


def planned(path: Path, **settings: Any) -> Plan:
    history = LedgerHistory(WorkspacePaths(path.parent))
    return Planner(manifest=Manifest(path, REGISTRY.operation), history=history, **settings).plan()


def openai(id: object, /, url: object = "/v1/images/generations", **body: object) -> dict[str, object]:
    params = {"model": CORE, "prompt": "a lighthouse", **body}
    return {"custom_id": id, "method": "POST", "url": url, "body": params}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": CORE, "prompt": "p"}, "id: required"),
        (row("a/b"), "id: is used as a file name"),
        (row(1), "id: must be text, not a whole number"),
        (row(None), "id: required"),
        (row(True), "id: must be text, not true or false"),
        ({"id": "x", "prompt": "p"}, "model: required"),
        (row("x", model=7), "model: required"),
        (row("x", model="stability/sd3.5-larg"), "model: unknown model 'stability/sd3.5-larg'; closest: "),
        (row("x", prompt=""), "prompt: must be text of 1 to 10,000 characters, got 0"),
        (row("x", prompt=None), "prompt: required"),
        (row("x", prompt="a\0b"), "prompt: must not contain a NUL character"),
        (row("x", sede=1), "unknown parameter 'sede'; did you mean 'seed'?"),
        (row("x", seed="1"), "seed: must be a whole number from 0 to 4294967294, not '1'"),
        (row("x", seed=True), "seed: must be a whole number"),
        (row("x", n=11), "n: must be a whole number from 1 to 10, not 11"),
        (row("x", n=True), "n: must be a whole number from 1 to 10, not true"),
        (row("x", n=2, seed=4294967294), "seed: must be at most 4294967293 with n=2"),
        (row("x", timeout=0), "timeout: must be a number of seconds above 0"),
        (row("x", timeout="9"), "timeout: must be a number of seconds above 0"),
        (row("x", api_key="sk-secret"), "api_key: can't be in a manifest"),
        (row("x", api_base="http://127.0.0.1:9"), "api_base: can't be in a manifest"),
        (row("x", retry={}), "retry: can't be in a manifest"),
        (row("x", base_model=3), "base_model: must be text, not a whole number"),
        (row("x", model=SD3, mode="image-to-image"), "strength: required when mode is image-to-image"),
        (row("x", model=ERASE, prompt=None), "image: required"),
        ({"id": "x", "model": ERASE, "image": "none.png"}, "image: can't read"),
        ({"id": "x", "model": ERASE, "image": "text.png"}, "image: "),
        ({"id": "x", "model": ERASE, "image": "https://example.com/a.png"}, "image: URLs are not fetched"),
        ({"id": "x", "model": ERASE, "image": 5}, "image: must be a path or a data: URI, not a whole number"),
        (
            {"id": "x", "model": ERASE, "image": ["data:,x"]},
            "image: must be bytes, a path, an open binary file or a data: URI, not list",
        ),
        ({"id": "x", "model": ERASE, "image": "data:image/png;base64,%%"}, "image: invalid data: URI"),
        (openai(None), "custom_id: required"),
        (openai(1), "custom_id: must be text, not a whole number"),
        ({**openai("x"), "method": "GET"}, "method: must be POST, not 'GET'"),
        (openai("x", url="/v1/chat/completions"), "url: must be one of /v1/images/generations, /v1/images/edits"),
        ({**openai("x"), "url": {}}, "url: must be one of"),
        ({**openai("x"), "body": "p"}, "body: must be an object"),
        ({"custom_id": "x"}, "body: must be an object"),
        ({**openai("x"), "seed": 1}, "seed: is not a key of a row; put the request's parameters into its body"),
        ({"custom_id": "x", "method": "POST", "url": "/v1/images/generations", "body": {"prompt": "p"}}, "model: req"),
        (openai("x", size="1024"), "size: must be auto or WIDTHxHEIGHT"),
        (openai("x", style="natural"), "style: is not supported; use style_preset instead"),
        (openai("x", quality="hd"), "quality: must be auto or standard"),
        (openai("x", stream=True), "stream: is an argument of the functions"),
        (openai("x", size="1024x1024", aspect_ratio="1:1"), "aspect_ratio: can't be combined with size"),
        (openai("x", prompt=" "), "prompt: is blank"),
        (openai("x", n=0), "n: must be a whole number from 1 to 10, not 0"),
        (openai("x", url="/v1/images/edits"), "image: this model takes no image to edit"),
        (openai("x", url="/v1/images/edits", model=ERASE), "image: required"),
        (openai("x", response_format="file"), "response_format: must be one of b64_json, url"),
        (openai("x", api_base="http://127.0.0.1:9"), "api_base: can't be in a manifest"),
        (openai("x", base_url="http://127.0.0.1:9"), "base_url: can't be in a manifest"),
        (openai("x", extra_headers={"a": "b"}), "extra_headers: headers can't be added"),
    ],
)
def test_a_row_that_is_wrong(manifest: Write, tmp_path: Path, params: Mapping[str, object], message: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    plan = planned(manifest(row("good"), params))
    assert [bad.line for bad in plan.invalid] == [2]
    assert message in str(plan.invalid[0])
    assert "sk-secret" not in str(plan.invalid[0])
    assert plan.images == plan.to_do == 1


def test_all_that_is_wrong_is_told_at_once(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(row("a"), "{", row("b", seed=-1, sede=2), "", row("a", prompt="other"), row("c"))
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "Error: 3 of 5 rows can't be run; nothing was sent",
        "line 2: is invalid JSON: Expecting property name enclosed in double quotes at character 2",
        f"line 3 (b): seed: must be a whole number from 0 to {MOST_SEED}, not -1; {SEDE}",
        "line 5 (a): id: is also the id of line 1, which has other content",
    ]
    assert impasto_emulator.requests == []


def test_b49_the_same_row_twice(manifest: Write) -> None:
    again = json.dumps({"prompt": "a lighthouse", "model": CORE, "id": "a"})
    path = manifest(row("a"), row("b"), again)
    plan = planned(path)
    assert [str(bad) for bad in plan.invalid] == [
        "line 3 (a): id: is a duplicate of line 1; remove one, or skip it with --dedupe"
    ]
    deduped = planned(path, dedupe=True)
    assert (deduped.invalid, [twin.line for twin in deduped.duplicates], deduped.images) == ([], [3], 2)


def test_the_same_content_under_other_ids_is_no_twin(manifest: Write) -> None:
    assert planned(manifest(row("a"), row("b"))).images == 2


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_b53_a_manifest_without_rows(manifest: Write, tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.jsonl").write_text(text)
    with pytest.raises(ManifestError, match="has no rows"):
        planned(tmp_path / "empty.jsonl")


def test_the_price_of_a_manifest(manifest: Write) -> None:
    plan = planned(manifest(row("a", n=3), row("b"), openai("c", model=SD3, n=2)))
    assert (plan.rows, plan.images, round(plan.usd, 6)) == (3, 6, 0.25)
    assert {share.model: (share.images, share.usd) for share in plan.totals} == {CORE: (4, 0.03), SD3: (2, 0.065)}


def test_pictures_lie_where_the_manifest_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "jobs"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.png").write_bytes(png(64, 64))
    (folder / "m.jsonl").write_text(json.dumps({"id": "a", "model": ERASE, "image": "in/a.png"}))
    monkeypatch.chdir(tmp_path)
    assert planned(Path("jobs/m.jsonl")).invalid == []
    (folder / "in" / "a.png").unlink()
    (bad,) = planned(Path("jobs/m.jsonl")).invalid
    assert "can't read 'jobs/in/a.png'" in str(bad)
    assert str(tmp_path) not in str(bad), "paths are told as their user wrote them"


TEXTS = ("a lighthouse", "", " ", "\t", "a\0", "é", "\ud800", "a" * 10_000, "a" * 10_001)
CHOICES = ["1024x1024", "10x", "1:1", "16:9", "png", "gif", "auto", "standard", "opaque", "b64_json"]
MODES = ["image-to-image", "text-to-image"]
NUMBERS = (0, 1, 2, 10, 11, -1, 2**32, MOST_SEED, 1.0, 0.5, float("inf"), True, False, None)
VALUES: st.SearchStrategy[object] = st.sampled_from([*TEXTS, *CHOICES, *MODES, *NUMBERS, [], {}])
OWN = ["prompt", "negative_prompt", "seed", "aspect_ratio", "output_format", "style_preset", "mode", "strength"]
OTHERS = [
    "cfg_scale",
    "image",
    "n",
    "size",
    "quality",
    "background",
    "response_format",
    "stream",
    "user",
    "timeout",
    "base_model",
]
WORDS = st.sampled_from([*OWN, *OTHERS, "sede"])


@given(
    st.sampled_from([CORE, SD3, "stability/stable-image-ultra", "bedrock/stability.sd3-5-large-v1:0"]),
    st.dictionaries(WORDS, VALUES, max_size=5),
    st.booleans(),
)
def test_a_quick_look_never_says_yes_where_the_whole_way_says_no(
    model: str, words: dict[str, object], is_openai: bool
) -> None:
    params = {"prompt": "a lighthouse", **words, "model": model}
    line = openai("x", **params) if is_openai else row("x", **params)
    operation = REGISTRY.operation(model)
    screen = FastValidator.of_operation(model, operation)
    assert screen is not None
    right = screen.validate(line)
    if right is None:
        return
    tasks = tasks_of(parse_row(line), operation, Path())
    assert (right.id, right.n) == (tasks[0].id, len(tasks))
    cost = tasks[0].cost
    assert right.totals.usd == (cost.usd if cost is not None else None)


def test_plain_rows_are_passed_by_the_quick_look() -> None:
    for model in (CORE, SD3):
        screen = FastValidator.of_operation(model, REGISTRY.operation(model))
        assert screen is not None
        assert screen.validate(row("x", model=model, seed=3, aspect_ratio="16:9", output_format="webp")) is not None
        assert screen.validate(openai("x", model=model, size="1536x1024", n=2, quality="auto")) is not None
        with pytest.raises(InvalidRequest):
            parse_row({"id": "x"})
    assert isinstance(parse_line(b'{"id": "a:b", "model": "c"}'), dict)


def test_null_is_not_given(manifest: Write) -> None:
    nothing = dict.fromkeys(("seed", "cfg", "style", "n", "partial_images", "extra_body", "drop_params", "stream"))
    lines = ({**row("short"), **nothing}, openai("body", **nothing), {**openai("beside"), "path": None, "seed": None})
    plan = planned(manifest(*lines, openai("extra", extra_body=nothing)))
    assert [str(bad) for bad in plan.invalid] == []
    assert plan.images == 4
