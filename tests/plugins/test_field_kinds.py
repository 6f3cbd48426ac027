"""A model with a field of each kind, called through the client, a batch and the drop-in functions."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from impasto import Client, InvalidRequest, Registry, aimage_edit, aimage_generation
from impasto.testing.recorder import Answer, Recorder, always, recording
from impasto_plugins.batch.manifest.tabular import csv_rows
from impasto_plugins.cli.main import main
from tests.distributions import install
from tests.field_kinds import GIF, MODULES, POINTS

ONE, TWO = (base64.b64encode(data).decode() for data in (b"one", b"two"))


@pytest.fixture
async def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Recorder]:
    install(tmp_path / "site", "impasto-kinds", POINTS, MODULES)
    monkeypatch.syspath_prepend(tmp_path / "site")
    async with recording(always(Answer(headers={"content-type": "image/gif"}, body=GIF))) as recorder:
        yield recorder


def client_of(provider: Recorder) -> Client:
    return Client(providers={"kinds": {"api_base": provider.url, "api_key": "k"}})


def bodies(provider: Recorder) -> list[Any]:
    return [json.loads(post.body) for post in provider.posts]


async def test_the_client_sends_each_kind(provider: Recorder, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"one")
    async with client_of(provider) as client:
        result = await client.run(
            "kinds/all",
            text="a wolf",
            images=[tmp_path / "one.png", ("two.png", b"two")],
            style={"reference": b"two", "layers": [b"one"]},
            tile=False,
        )
        with pytest.raises(InvalidRequest, match="style.strength: must be a number from 0 to 1, not 2"):
            await client.run("kinds/all", text="a", style={"strength": 2})
    assert (result.artifacts[0].data, result.artifacts[0].media_type) == (GIF, "image/gif")
    [body] = bodies(provider)
    assert body == {
        "text": "a wolf",
        "images": [ONE, TWO],
        "tile": False,
        "style": {"reference": TWO, "layers": [ONE]},
    }


async def test_a_batch_sends_each_kind_and_sends_nothing_again(provider: Recorder, tmp_path: Path) -> None:
    rows = [{"id": "a", "model": "kinds/all", "text": "x", "images": [b"one"], "style": {"reference": b"two"}}]
    for _ in range(2):
        async with client_of(provider) as client:
            [outcome] = [each async for each in client.batch(rows, out=tmp_path / "out")]
        assert (outcome.state, outcome.path and outcome.path.suffix) == ("done", ".gif")
    assert bodies(provider) == [{"text": "x", "images": [ONE], "style": {"reference": TWO}}]


async def test_a_drop_in_function_takes_a_list_of_images_and_a_size(provider: Recorder) -> None:
    response = await aimage_edit(
        [b"one", b"two"], "kinds/all", "a wolf", size="1000x1000", api_base=provider.url, api_key="k"
    )
    assert response.warnings == ["size 1000x1000 became 992x992, the nearest of this model's"]
    assert bodies(provider) == [{"text": "a wolf", "images": [ONE, TWO], "width": 992, "height": 992}]


BOTH: dict[str, Any] = {"style": {"layers": [b"one"]}, "background": "#ff8800"}
"""Arguments that break the model's rule about a field of a nested object."""
REFUSED = "background: not allowed when style.layers is given; leave it out"


async def test_a_rule_about_a_nested_field_holds_at_every_entrance(provider: Recorder, tmp_path: Path) -> None:
    async with client_of(provider) as client:
        with pytest.raises(InvalidRequest, match=REFUSED):
            await client.run("kinds/all", text="x", **BOTH)
        rows = [{"id": "a", "model": "kinds/all", "text": "x", **BOTH}]
        [outcome] = [each async for each in client.batch(rows, out=tmp_path / "out")]
        assert (outcome.state, REFUSED in str(outcome.error)) == ("refused", True)
    with pytest.raises(InvalidRequest, match=REFUSED):
        await aimage_generation("x", "kinds/all", **BOTH, api_base=provider.url, api_key="k")
    (tmp_path / "one.png").write_bytes(b"one")
    words = ["generate", "kinds/all", "x", "-p", f"style.layers={tmp_path / 'one.png'}", "-p", "background=#ff8800"]
    done = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--api-base", provider.url])
    assert (done.exit_code, REFUSED in done.output) == (2, True)
    assert not provider.requests


MEMBERS = [{"color": "#ff8800", "weight": 0.5}, {"color": "#000000"}]


async def test_lists_of_numbers_and_objects_come_from_every_entrance(provider: Recorder, tmp_path: Path) -> None:
    expected = {"text": "x", "weights": [0.5, 1], "members": MEMBERS}
    async with client_of(provider) as client:
        await client.run("kinds/all", text="x", weights=[0.5, 1], members=MEMBERS)
        table = tmp_path / "rows.csv"
        cells = ("a", "kinds/all", "x", "[0.5, 1]", json.dumps(MEMBERS))
        quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
        table.write_text(f"id,model,text,weights,members\n{quoted}\n")
        lines = await asyncio.to_thread(lambda: [*csv_rows(table, Registry().operation)])
        rows = [row for _, row, _ in lines if isinstance(row, dict)]
        [outcome] = [each async for each in client.batch(rows, out=tmp_path / "out")]
        assert outcome.state == "done", outcome.error
    members = [f"members={json.dumps(each)}" for each in MEMBERS]
    await run_command(provider, tmp_path, "weights=0.5", "weights=1", *members)
    assert bodies(provider) == [expected] * 3


async def run_command(provider: Recorder, folder: Path, *assignments: str) -> None:
    """Run ``impasto generate`` in a process of its own."""
    own = [word for each in assignments for word in ("-p", each)]
    words = ("generate", "kinds/all", "x", *own, "-o", str(folder / "x.gif"), "--api-base", provider.url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "impasto_plugins.cli", *words),
        env={**os.environ, "PYTHONPATH": str(folder / "site"), "KINDS_KEY": "k"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 0, err


async def test_files_in_a_list_of_objects_come_from_every_entrance(provider: Recorder, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"one")
    (tmp_path / "two.png").write_bytes(b"two")
    one, two = (str(tmp_path / f"{name}.png") for name in ("one", "two"))
    subjects = [{"image": one, "kind": "person"}, {"image": two, "details": [one, two]}]
    async with client_of(provider) as client:
        await client.run("kinds/all", text="x", subjects=subjects)
        await aimage_generation("x", "kinds/all", subjects=subjects, api_base=provider.url, api_key="k")
        row = {"id": "a", "model": "kinds/all", "text": "x", "subjects": subjects}
        [outcome] = [each async for each in client.batch([row], out=tmp_path / "out")]
        assert outcome.state == "done", outcome.error
    await run_command(provider, tmp_path, *(f"subjects={json.dumps(each)}" for each in subjects))
    expected = [{"image": ONE, "kind": "person"}, {"image": TWO, "details": [ONE, TWO]}]
    assert bodies(provider) == [{"text": "x", "subjects": expected}] * 4


async def test_a_text_in_place_of_an_object_comes_from_every_entrance(provider: Recorder, tmp_path: Path) -> None:
    for canvas in ("wide", {"width": 512, "height": 64}):
        async with client_of(provider) as client:
            await client.run("kinds/all", text="x", canvas=canvas)
            row = {"id": "a", "model": "kinds/all", "text": "x", "canvas": canvas}
            [outcome] = [each async for each in client.batch([row])]
            assert outcome.state == "done", outcome.error
        await aimage_generation("x", "kinds/all", canvas=canvas, api_base=provider.url, api_key="k")
        words = ["canvas=wide"] if canvas == "wide" else ["canvas.width=512", "canvas.height=64"]
        await run_command(provider, tmp_path, *words)
        (tmp_path / "x.gif").unlink()
        assert bodies(provider) == [{"text": "x", "canvas": canvas}] * 4
        provider.requests.clear()
