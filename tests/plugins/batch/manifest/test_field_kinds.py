"""Lists, nested objects and booleans in manifests of each form."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pytest
from pyarrow import parquet

from impasto import File, InvalidRequest, Registry
from impasto.ext import close_files, convert_files
from impasto.registry import OPERATIONS
from impasto_plugins.batch.manifest.reader import Manifest
from impasto_plugins.batch.manifest.records import UnreadableLine
from impasto_plugins.batch.manifest.rows import ManifestRow, digest, mark_of, parse_row, tasks_of
from impasto_plugins.batch.tasks import ImageTask
from tests.field_kinds import MODULE

NAMESPACE: dict[str, Any] = {}
exec(compile(MODULE, "kinds", "exec", dont_inherit=True), NAMESPACE)
REGISTRY = Registry(discover=False)
REGISTRY.add(OPERATIONS, "kinds/all", NAMESPACE["kinds"])
KINDS = REGISTRY.operation("kinds/all")

SHORT = {
    "id": "a",
    "model": "kinds/all",
    "text": "a wolf",
    "images": ["one.png", "two.png"],
    "colors": ["red", "5"],
    "tile": True,
    "width": 288,
    "style": {"strength": 0.5, "reference": "one.png", "layers": ["two.png"]},
}
OPENAI = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/images/edits",
    "body": {
        "model": "kinds/all",
        "prompt": "a wolf",
        "image": ["one.png", "two.png"],
        **{name: SHORT[name] for name in ("colors", "tile", "width", "style")},
    },
}
CSV = (
    "id,model,text,images,colors,tile,width,style.strength,style.reference,style.layers\n"
    'a,kinds/all,a wolf,"[""one.png"", ""two.png""]","[""red"", ""5""]",true,288,0.5,one.png,two.png\n'
)


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.png").write_text(name)


def tasks(path: Path) -> Iterator[ImageTask]:
    for _, row, line in Manifest(path, REGISTRY.operation).rows():
        assert not isinstance(row, UnreadableLine), row
        yield from tasks_of(parse_row(row), KINDS, path.parent, line=line)


def written(folder: Path, form: str) -> Path:
    path = folder / f"m.{'jsonl' if form in ('short', 'openai') else form}"
    if form == "csv":
        path.write_text(CSV)
    elif form == "parquet":
        columns = {name: [value] for name, value in SHORT.items() if name != "style"}
        nested = {f"style.{name}": [value] for name, value in dict(SHORT["style"]).items()}  # type: ignore[call-overload]
        parquet.write_table(pa.table({**columns, **nested}), path)
    elif form == "struct":
        parquet.write_table(pa.table({name: [value] for name, value in SHORT.items()}), path := folder / "m.parquet")
    else:
        path.write_text(json.dumps(SHORT if form == "short" else OPENAI) + "\n")
    return path


@pytest.mark.parametrize("form", ["short", "openai", "csv", "parquet", "struct"])
def test_each_form_of_a_manifest_has_lists_and_nested_objects(tmp_path: Path, form: str) -> None:
    [task] = tasks(written(tmp_path, form))
    assert task.request is not None
    params: Any = task.request.params
    assert [file.read() for file in params.images] == [b"one", b"two"]
    assert (params.text, params.colors, params.tile, params.width) == ("a wolf", ("red", "5"), True, 288)
    assert (params.style.strength, params.style.reference.read()) == (0.5, b"one")
    assert [file.read() for file in params.style.layers] == [b"two"]
    json.dumps(task.content)  # it goes into the results
    close_files(params)


def test_the_forms_of_a_row_have_one_digest(tmp_path: Path) -> None:
    found = {task.sha256 for form in ("short", "csv", "parquet", "struct") for task in tasks(written(tmp_path, form))}
    assert len(found) == 1
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "one.png", tmp_path / "elsewhere" / "one.png")
    moved = json.dumps(SHORT).replace("one.png", "elsewhere/one.png")
    (tmp_path / "m.jsonl").write_text(moved + "\n")
    assert {task.sha256 for task in tasks(tmp_path / "m.jsonl")} == found
    (tmp_path / "two.png").write_text("another")
    assert {task.sha256 for task in tasks(tmp_path / "m.jsonl")}.isdisjoint(found)


def test_a_row_is_looked_at_again_if_a_file_in_a_list_or_an_object_changed(tmp_path: Path) -> None:
    names = KINDS.file_arguments
    row: dict[str, object] = {"images": ["one.png"], "style": {"strength": 1, "layers": ["two.png"], "word": "no file"}}
    marks = {mark_of(b"line", row, names, tmp_path)}
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_text(f"another {name}")
        marks.add(mark_of(b"line", row, names, tmp_path))
    assert 0 not in marks
    assert len(marks) == 3
    assert mark_of(b"line", {"images": ["none.png"]}, names, tmp_path) == 0


def test_a_row_is_looked_at_again_if_a_file_in_a_list_of_objects_changed(tmp_path: Path) -> None:
    subjects = [{"image": "one.png", "kind": "person"}, {"image": "two.png"}]
    row: dict[str, object] = {"id": "a", "model": "kinds/all", "text": "x", "subjects": subjects}
    found = []
    for content in ("one", "another"):
        (tmp_path / "one.png").write_text(content)
        [task] = tasks_of(parse_row(row), KINDS, tmp_path, line=b"line")
        assert task.content["subjects"] == [
            {"image": str(tmp_path / "one.png"), "kind": "person"},
            {"image": str(tmp_path / "two.png")},
        ]
        found.append((task.sha256, mark_of(b"line", {"subjects": subjects}, KINDS.file_arguments, tmp_path)))
        close_files(task.request.params if task.request is not None else None)
    assert len({sha256 for sha256, _ in found}) == len({mark for _, mark in found} - {0}) == 2


def test_a_cell_of_a_table_has_files_in_a_list_of_objects(tmp_path: Path) -> None:
    cell = json.dumps([{"image": "one.png"}]).replace('"', '""')
    (tmp_path / "m.csv").write_text(f'id,model,text,subjects,canvas\na,kinds/all,x,"{cell}",wide\n')
    [task] = tasks(tmp_path / "m.csv")
    assert task.request is not None
    params: Any = task.request.params
    assert ([each.image.read() for each in params.subjects], params.canvas) == ([b"one"], "wide")


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"subjects": [{"image": "one.png"}, {"image": "none.png"}]}, "subjects.1.image", "can't read"),
        ({"images": "one.png"}, "images", "must be a list of 1 to 3 files"),
        ({"images": ["none.png"]}, "images", "can't read"),
        ({"style": {"layers": ["none.png"]}}, "style.layers", "can't read"),
        ({"style": {"reference": 5}}, "style.reference", "must be a path or a data: URI"),
        ({"style": "soft"}, "style", "must be an object with strength, reference, layers"),
        ({"tile": "true"}, "tile", "must be true or false"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, change: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tasks_of(parse_row({**SHORT, **change}), KINDS, tmp_path)
    [problem] = caught.value.problems
    assert (problem.field, message in problem.message) == (field, True), problem


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("colors", "[red", "must be a list"),
        ("colors", "[1]", "text 1: must be text"),
        ("tile", "TRUE", "must be true or false"),
        ("tile", "1", "must be true or false"),
        ("style.strength", "1e0", "must be a number from 0 to 1"),
        ("style.depth", "1", "unknown parameter 'depth'"),
        ("style", "soft", "must be an object with"),
    ],
)
def test_a_cell_is_strict(tmp_path: Path, name: str, cell: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(f'id,model,text,{name}\na,kinds/all,x,"{cell}"\n')
    with pytest.raises(InvalidRequest) as caught:
        list(tasks(tmp_path / "m.csv"))
    [problem] = caught.value.problems
    assert (problem.field, message in problem.message) == (name, True), problem


def test_one_value_of_a_list_needs_no_brackets(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('id,model,text,images,colors\na,kinds/all,x,one.png,"red, or so"\n')
    [task] = tasks(tmp_path / "m.csv")
    assert task.request is not None
    params: Any = task.request.params
    assert ([file.read() for file in params.images], params.colors) == ([b"one"], ("red, or so",))


@pytest.mark.parametrize(
    ("arguments", "sha256"),
    [
        ({"prompt": "a", "seed": 7}, "b60c94aead82cfe28fc0cc2bd9cf0d919f8ae61a10988dc30fcef0df551937db"),
        (
            {"prompt": "a", "image": "one.png", "mask": "two.png"},
            "203e5b9327cc31ffa56c30ca60bdfbf498153049375d80960c34c904b161db57",
        ),
        (
            {"prompt": "a", "image": ["one.png", "two.png"]},
            "2a8983c9d8180b0b3de91aced456951d0060a0ab4ee74425a1c6336f6ddf5c3a",
        ),
    ],
)
def test_the_digest_of_a_row_is_that_of_earlier_versions(
    tmp_path: Path, arguments: dict[str, object], sha256: str
) -> None:
    """Folders of before are resumed: their rows are found by it. These are of the commit b5b706a."""
    row = ManifestRow(
        id="a",
        model="stability/sd3",
        base_model=None,
        arguments=arguments,
        n=None,
        timeout=None,
        url="/v1/images/edits",
    )
    fields = Registry().operation("stability/sd3").file_arguments
    assert digest(row, convert_files(row.arguments, fields, lambda path: File.of(tmp_path / str(path)))) == sha256
