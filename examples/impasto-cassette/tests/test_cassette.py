"""Calls recorded from impasto's emulator over a real socket, and replayed without one."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import impasto

MODEL = "stability/stable-image-core"
KEY = "sk-canary-of-the-cassette"
PROMPT = {"prompt": "a lighthouse", "seed": 7}


def image(colour: str) -> bytes:
    """Return a small PNG."""
    png = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(png, "PNG")
    return png.getvalue()


def run(file: Path, mode: str = "replay", *, model: str = MODEL, n: int = 1, **params: Any) -> impasto.Result:
    """Return the result of one call through a cassette."""
    base = params.pop("base", None)
    settings: dict[str, Any] = {"api_base": base, "api_key": KEY} if base is not None else {}

    async def call() -> impasto.Result:
        cassette = {"cassette": {"file": file, "mode": mode}}
        async with impasto.Client(transport="cassette", providers=cassette, poll_interval=0.05, **settings) as client:
            return await client.run(model, n=n, **params)

    return asyncio.run(call())


def test_a_recorded_call_is_replayed_for_free_and_without_a_key(impasto_emulator: Any, tmp_path: Path) -> None:
    tape = tmp_path / "calls.jsonl"
    first = run(tape, "record", base=impasto_emulator.url, **PROMPT)
    again = run(tape, **PROMPT)
    assert again.artifacts == first.artifacts
    assert (first.cost and first.cost.usd, again.cost and again.cost.usd) == (0.03, 0)
    assert len(impasto_emulator.charges) == 1
    assert KEY not in tape.read_text()
    with pytest.raises(impasto.NotSent, match="has no answer to this POST .*nothing was sent"):
        run(tape, **{**PROMPT, "seed": 8})


def test_equal_requests_are_answered_in_their_order(impasto_emulator: Any, tmp_path: Path) -> None:
    tape = tmp_path / "calls.jsonl"
    first = run(tape, "auto", base=impasto_emulator.url, n=3, prompt="a lighthouse")
    again = run(tape, n=3, prompt="a lighthouse")
    assert {each.data for each in again.artifacts} == {each.data for each in first.artifacts}
    assert len({each.data for each in first.artifacts}) == 3


def test_a_job_is_replayed_with_its_polls_and_by_the_content_of_its_upload(
    impasto_emulator: Any, tmp_path: Path
) -> None:
    tape = tmp_path / "calls.jsonl"
    upscaled = {"model": "stability/upscale-creative", "image": image("teal"), "prompt": "a lighthouse"}
    first = run(tape, "auto", base=impasto_emulator.url, **upscaled)
    assert run(tape, **upscaled).artifacts[0].data == first.artifacts[0].data
    with pytest.raises(impasto.NotSent):
        run(tape, **{**upscaled, "image": image("navy")})


def test_a_refusal_is_replayed_as_one(impasto_emulator: Any, tmp_path: Path) -> None:
    tape = tmp_path / "calls.jsonl"
    impasto_emulator.fault("status", status=403)
    for mode, base in (("record", impasto_emulator.url), ("replay", None)):
        with pytest.raises(impasto.ImpastoError) as caught:
            run(tape, mode, base=base, **PROMPT)
        assert type(caught.value) is not impasto.NotSent
    assert len(tape.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, "replay", "does not exist"),
        ("{}\n", "record", "exists; delete it"),
        ("{}\n", "replay", "line 1 of .* is not a recorded call"),
        ("[1]", "replay", "line 1 of .* is not a recorded call"),
        (None, "play", "mode must be one of replay, auto, record, not 'play'"),
    ],
)
def test_an_invalid_tape_is_reported_before_anything_is_sent(
    tmp_path: Path, content: str | None, mode: str, message: str
) -> None:
    tape = tmp_path / "calls.jsonl"
    if content is not None:
        tape.write_text(content)
    with pytest.raises(impasto.ConfigError, match=message):
        run(tape, mode, base="http://127.0.0.1:9", **PROMPT)


def test_a_line_can_be_read_by_anybody(impasto_emulator: Any, tmp_path: Path) -> None:
    tape = tmp_path / "calls.jsonl"
    run(tape, "record", base=impasto_emulator.url, **PROMPT)
    row = json.loads(tape.read_text())
    assert row["request"]["fields"]["prompt"] == "a lighthouse"
    assert row["response"]["status"] == 200
    assert "authorization" not in json.dumps(row).lower()
