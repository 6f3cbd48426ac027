"""``audio/generations`` and ``3d/generations``: sounds and models in the style of the images' paths."""

from __future__ import annotations

import base64

import aiohttp
import pytest

from impasto_plugins.emulator import Emulator
from tests.images import drawn
from tests.media import wav
from tests.plugins.gateway.conftest import Running, Start, config, entry

RAIN = {"model": "rain", "prompt": "rain on a tin roof", "duration": 1}


@pytest.fixture
async def media(start: Start, impasto_emulator: Emulator) -> Running:
    """A gateway whose models make sounds, models and pictures."""
    names = {
        "rain": "stable-audio-2.5/text-to-audio",
        "choir": "stable-audio-3/audio-to-audio",
        "solid": "stable-fast-3d",
        "sd3": "sd3.5-large",
    }
    url = impasto_emulator.url
    return await start(config(url, entries="".join(entry(n, f"stability/{m}", url) for n, m in names.items())))


async def test_sounds_in_base64(media: Running, impasto_emulator: Emulator) -> None:
    for path in ("/v1/audio/generations", "/audio/generations"):
        answer = await media.ask("POST", path, json={**RAIN, "n": 2, "seed": 5, "output_format": "wav"})
        assert answer.status == 200
        assert answer.json["output_format"] == "wav"
        assert [each["seed"] for each in answer.json["data"]] == [5, 6]
        assert all(base64.b64decode(each["b64_json"])[8:12] == b"WAVE" for each in answer.json["data"])
        assert answer.headers["x-impasto-cost-usd"] == "0.4"
    assert len(impasto_emulator.charges) == 4


async def test_a_sound_at_a_url(media: Running) -> None:
    answer = await media.ask("POST", "/v1/audio/generations", json={**RAIN, "response_format": "url"})
    assert answer.json["output_format"] == "mp3"
    (images,) = answer.json["data"]
    fetched = await media.ask("GET", images["url"])
    assert (fetched.status, fetched.headers["content-type"]) == (200, "audio/mpeg")


async def test_a_sound_made_of_another_in_a_form_and_in_json(media: Running, impasto_emulator: Emulator) -> None:
    form = aiohttp.FormData({"model": "choir", "prompt": "a choir", "duration": "1"})
    form.add_field("audio", wav(7), filename="tune.wav", content_type="audio/wav")
    uri = "data:audio/wav;base64," + base64.b64encode(wav(7)).decode()
    body = {"model": "choir", "prompt": "a choir", "duration": 1, "audio": uri}
    for params in ({"data": form}, {"json": body}):
        answer = await media.ask("POST", "/v1/audio/generations", **params)
        assert answer.status == 200, answer.body
    posts = [each for each in impasto_emulator.requests if each.method == "POST"]
    assert {each.files["audio"].bytes for each in posts} == {len(wav(7))}
    refused = await media.ask("POST", "/v1/audio/generations", json={**body, "audio": "/etc/passwd"})
    assert (refused.status, refused.error["param"]) == (400, "audio")
    cut = "data:audio/wav;base64," + base64.b64encode(wav(7)[:-1]).decode()
    refused = await media.ask("POST", "/v1/audio/generations", json={**body, "audio": cut})
    assert (refused.status, refused.error["code"], refused.error["param"]) == (400, "invalid_audio", "audio")


async def test_a_model_of_a_picture(media: Running) -> None:
    uri = "data:image/png;base64," + base64.b64encode(drawn("PNG")).decode()
    body = {"model": "solid", "image": uri, "vertex_count": 200}
    answer = await media.ask("POST", "/v1/3d/generations", json=body)
    assert answer.status == 200, answer.body
    assert answer.json["output_format"] == "glb"
    assert base64.b64decode(answer.json["data"][0]["b64_json"]).startswith(b"glTF")
    response = await media.ask("POST", "/v1/3d/generations", json={**body, "response_format": "url"})
    fetched = await media.ask("GET", response.json["data"][0]["url"])
    assert fetched.headers["content-type"] == "model/gltf-binary"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/images/generations", RAIN, "model"),
        ("/v1/3d/generations", RAIN, "model"),
        ("/v1/audio/generations", {**RAIN, "model": "sd3"}, "model"),
        ("/v1/audio/generations", {**RAIN, "duration": 191}, "duration"),
        ("/v1/audio/generations", {**RAIN, "steps": 50}, "steps"),
        ("/v1/audio/generations", {**RAIN, "stream": True}, "stream"),
        ("/v1/audio/generations", {**RAIN, "size": "1024x1024x2"}, "size"),
        ("/v1/audio/generations", {"model": "choir", "prompt": "x"}, "audio"),
        ("/v1/3d/generations", {"model": "solid"}, "image"),
    ],
)
async def test_an_invalid_call_is_refused_and_costs_nothing(
    media: Running, impasto_emulator: Emulator, path: str, body: dict[str, object], param: str
) -> None:
    answer = await media.ask("POST", path, json=body)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert not impasto_emulator.requests


async def test_another_method_is_refused(media: Running) -> None:
    answer = await media.ask("GET", "/v1/audio/generations")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
