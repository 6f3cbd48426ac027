"""What users of the best-known clients met with Stability's models on Bedrock: each fault is one test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import attrs
import pytest

import impasto
from impasto import aimage_edit, aimage_generation
from impasto_plugins.emulator import SHORT, Emulator, serve
from tests.bedrock import ACCESS_KEY, SECRET_KEY
from tests.images import png

CORE = "bedrock/stability.stable-image-core-v1:1"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with serve(attrs.evolve(SHORT, strict=True, aws_keys={ACCESS_KEY: SECRET_KEY})) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", running.url)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_REGION_NAME", "us-west-2")
        yield running


async def test_openais_parameters_of_a_generation_are_honoured(emulator: Emulator) -> None:
    """Seen: n, size, quality and response_format were refused, all of them."""
    response = await aimage_generation(
        "a lighthouse", CORE, n=2, size="1792x1024", quality="standard", response_format="url"
    )
    assert [request.fields for request in emulator.requests] == [
        {"prompt": "a lighthouse", "aspect_ratio": "16:9"},
    ] * 2
    assert len(emulator.charges) == 2
    assert all((image.url or "").startswith("data:image/png;base64,") for image in response.data)
    assert response.warnings == []


@pytest.mark.parametrize("as_list", [True, False])
async def test_style_transfer_sends_both_pictures(as_list: bool, emulator: Emulator) -> None:
    """Seen: the second picture was dropped."""
    pictures = [png(128, 96), png(100, 100)]
    model = "bedrock/us.stability.stable-style-transfer-v1:0"
    if as_list:
        await aimage_edit(pictures, model)
    else:
        await aimage_edit(pictures[0], model, style_image=pictures[1])
    [request] = emulator.requests
    assert {name: part.sha256 for name, part in request.files.items()} == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in zip(("init_image", "style_image"), pictures, strict=True)
    }


@pytest.mark.parametrize("prompt", ["[content_moderation]", "[content_filtered]"])
async def test_a_filtered_picture_is_never_a_normal_one(prompt: str, emulator: Emulator) -> None:
    """Seen (another gateway): a filtered answer came back as a normal one, without a picture."""
    with pytest.raises(impasto.ContentFiltered, match="Filter reason") as caught:
        await aimage_generation(prompt, CORE)
    assert caught.value.billed == "unknown"
    assert len(emulator.requests) == 1
