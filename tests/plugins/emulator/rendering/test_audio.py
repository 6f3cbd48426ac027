"""The sounds that the emulator makes, heard by a library that is not ours."""

from __future__ import annotations

import asyncio
import io
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest
import soundfile

import impasto
from impasto import Registry
from impasto.registry import OPERATIONS
from tests.media import mp3, wav
from tests.plugins.emulator.conftest import Wire, started

SOUNDS = [name for name in Registry().names(OPERATIONS) if name.startswith("stability/stable-audio-")]
TEXT = "/v2beta/audio/stable-audio-2/text-to-audio"
GIVEN = {"prompt": "rain on a tin roof", "model": "stable-audio-2.5", "duration": 7, "seed": 5}


@pytest.fixture
async def client() -> AsyncIterator[impasto.Client]:
    settings = {"emulator": {"image_scale": 0.1, "job_seconds": 0.02}}
    async with impasto.Client(transport="emulator", providers=settings, poll_interval=0.02, timeout=60) as it:
        yield it


@pytest.mark.parametrize("model", SOUNDS)
@pytest.mark.parametrize("format", ["wav", "mp3"])
async def test_every_model_makes_audio_of_its_length_and_format(
    client: impasto.Client, model: str, format: str
) -> None:
    arguments = {"prompt": "a choir", "duration": 6.5, "output_format": format, "seed": 11}
    result = await client.invoke(model, arguments if "text-to" in model else arguments | {"audio": wav(10)})
    (artifact,) = result.artifacts
    assert (artifact.seed, artifact.finish_reason) == (11, "SUCCESS")
    heard = soundfile.info(io.BytesIO(artifact.data))
    assert (heard.format, artifact.media_type) == {"wav": ("WAV", "audio/wav"), "mp3": ("MP3", "audio/mpeg")}[format]
    assert heard.channels == 2
    assert heard.duration == pytest.approx(6.5, abs=0.001 if format == "wav" else 0.5)
    samples, _ = soundfile.read(io.BytesIO(artifact.data))
    assert abs(samples).max() > 0.2, "it is silent"
    assert abs(samples).max() < 1, "it is cut off"


async def test_the_same_seed_gives_the_same_audio(client: impasto.Client) -> None:
    async def sound(**more: object) -> bytes:
        arguments = {"prompt": "a choir", "duration": 1, "output_format": "wav", "seed": 3, **more}
        return (await client.invoke(SOUNDS[0], arguments | {"audio": wav(10)})).artifacts[0].data

    one = await sound()
    assert await sound() == one
    assert len({one, await sound(seed=4), await sound(prompt="a drum")}) == 3


async def test_audio_comes_in_json_too(wire: Wire) -> None:
    status, headers, body = await wire.post(TEXT, GIVEN | {"output_format": "wav"}, accept="application/json")
    assert (status, headers["content-type"]) == (200, "application/json; type=audio/wav")
    payload = json.loads(body)
    assert (payload["seed"], payload["finish_reason"], payload.keys()) == (
        5,
        "SUCCESS",
        {"audio", "seed", "finish_reason"},
    )
    assert soundfile.info(io.BytesIO(b64decode(payload["audio"]))).duration == 7


async def test_an_audio_job_is_accepted_with_202_and_has_its_own_results_path(wire: Wire) -> None:
    path = "/v2beta/audio/stable-audio/text-to-audio"
    status, _, body = await wire.post(path, {**GIVEN, "model": "stable-audio-3"})
    assert status == 202
    job = json.loads(body)["id"]
    assert (await wire.get(f"/v2beta/results/{job}"))[0] == 404
    while (answer := await wire.get(f"/v2beta/audio/results/{job}", accept="audio/*"))[0] == 202:
        assert json.loads(answer[2]) == {"id": job, "status": "in-progress"}
        await asyncio.sleep(0.1)  # 150 polls in 10 s are refused
    assert (answer[0], answer[1]["content-type"], answer[1]["seed"]) == (200, "audio/mpeg", "5")
    assert [charge.credits for charge in wire.emulator.charges] == [26]


@pytest.mark.parametrize(("steps", "credits"), [(None, 20), (30, 18.8), (77, 21.62), (100, 23)])
async def test_the_price_follows_the_steps(wire: Wire, steps: int | None, credits: float) -> None:
    arguments = {"prompt": "rain", "duration": 1, "output_format": "wav"}  # no model: it is 2 then
    assert (await wire.post(TEXT, arguments | ({"steps": steps} if steps else {})))[0] == 200
    assert [charge.credits for charge in wire.emulator.charges] == [credits]
    async with impasto.Client(api_base=wire.emulator.url, api_key="k") as client:
        result = await client.run(
            "stability/stable-audio-2/text-to-audio", prompt="rain", duration=1, output_format="wav", steps=steps
        )
    assert result.cost is not None
    assert (result.cost.credits, round(result.cost.usd * 100, 6)) == (credits, credits)


@pytest.mark.parametrize(
    ("more", "entry"),
    [
        ({"model": "stable-audio-2", "steps": 8}, "steps: must be a whole number from 30 to 100, not 8"),
        ({"model": None, "steps": 8}, "steps: must be a whole number from 30 to 100, not 8"),
        ({"model": "stable-audio-3"}, "model: invalid enum value. Expected 'stable-audio-2' | 'stable-audio-2.5'"),
        ({"steps": 50}, "steps: must be a whole number from 4 to 8, not 50"),
        ({"duration": 190.5}, "duration: must be a number from 1 to 190, not 190.5"),
    ],
)
async def test_limits_depend_on_the_model(wire: Wire, more: dict[str, object], entry: str) -> None:
    arguments = {name: value for name, value in {**GIVEN, **more}.items() if value is not None}
    status, _, body = await wire.post(TEXT, arguments)
    assert (status, json.loads(body)["errors"]) == (400, [entry])


async def test_uploads_that_are_too_short_or_not_audio_are_refused(wire: Wire) -> None:
    path = "/v2beta/audio/stable-audio-2/inpaint"
    for sound, message in ((wav(5.9), "is 5.90 seconds"), (mp3(5), "seconds long"), (b"x" * 100, "not an MP3 or WAV")):
        status, _, body = await wire.post(path, {"prompt": "rain", "audio": sound})
        assert status == 400
        assert message in json.loads(body)["errors"][0]
    assert not wire.emulator.charges


async def test_words_of_refusals_are_those_for_audio(wire: Wire) -> None:
    for word, status in (("copyrighted_content", 422), ("invalid_language", 422), ("content_moderation", 403)):
        answer = await wire.post(TEXT, GIVEN | {"prompt": f"rain [{word}]"})
        assert (answer[0], json.loads(answer[2])["name"]) == (status, word)
    for word in ("public_figure", "content_filtered"):
        status, headers, _ = await wire.post(TEXT, GIVEN | {"prompt": f"rain [{word}]", "duration": 1})
        assert (status, headers["finish-reason"]) == (200, "SUCCESS")


async def test_without_the_encoder_mp3_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "impasto_plugins.emulator.rendering.audio.find_spec",
        lambda name: None if name == "lameenc" else find_spec(name),
    )
    async with started() as wire:
        status, _, body = await wire.post(TEXT, GIVEN)
        assert status == 400
        assert "pip install 'impasto[emulator]'" in json.loads(body)["errors"][0]
        assert (await wire.post(TEXT, GIVEN | {"output_format": "wav"}))[0] == 200
        assert len(wire.emulator.charges) == 1
    async with impasto.Client(transport="emulator") as client:
        with pytest.raises(
            impasto.MissingExtra, match=r"mp3 needs lameenc: pip install 'impasto\[emulator\]', or set output_format"
        ):
            await client.run("stability/stable-audio-2.5/text-to-audio", prompt="rain")
