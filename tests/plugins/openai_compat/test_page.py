"""Every call that LiteLLM's page on Stability shows runs here with its import changed, and arrives whole."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from impasto import image_edit, image_generation
from impasto_plugins.emulator import Emulator
from tests.images import png

PICTURES = {
    "original_image.png": png(640, 512),
    "mask_image.png": png(640, 512),
    "low_res_image.png": png(320, 256),
    "portrait.png": png(512, 640),
    "scene.png": png(700, 500),
    "object_mask.png": png(700, 500),
    "sketch.png": png(600, 600),
    "structure_reference.png": png(601, 600),
    "content_image.png": png(602, 600),
    "style_reference.png": png(603, 600),
}


@attrs.frozen(kw_only=True)
class Call:
    """One call of the page. ``files`` are opened for it. ``sent`` and ``sent_files`` are what must arrive."""

    model: str
    target: str
    arguments: dict[str, object]
    files: dict[str, str] = attrs.field(factory=dict[str, str])
    sent: dict[str, str] = attrs.field(factory=dict[str, str])
    sent_files: dict[str, str] | None = None
    warnings: int = 0


GENERATIONS = {
    "simplest": Call(
        model="stability/sd3.5-large",
        target="generate/sd3",
        arguments={"prompt": "A beautiful sunset over a calm ocean"},
        sent={"prompt": "A beautiful sunset over a calm ocean", "model": "sd3.5-large"},
    ),
    "with a size": Call(
        model="stability/sd3.5-large",
        target="generate/sd3",
        arguments={
            "prompt": "A beautiful sunset over a calm ocean",
            "size": "1792x1024",
            "negative_prompt": "blurry, low quality",
            "seed": 12345,
        },
        sent={
            "prompt": "A beautiful sunset over a calm ocean",
            "aspect_ratio": "16:9",
            "negative_prompt": "blurry, low quality",
            "seed": "12345",
            "model": "sd3.5-large",
        },
    ),
    "with the provider's own": Call(
        model="stability/sd3.5-large",
        target="generate/sd3",
        arguments={
            "prompt": "A beautiful sunset over a calm ocean",
            "negative_prompt": "blurry, watermark, text",
            "aspect_ratio": "16:9",
            "seed": 42,
            "output_format": "png",
        },
        sent={
            "prompt": "A beautiful sunset over a calm ocean",
            "negative_prompt": "blurry, watermark, text",
            "aspect_ratio": "16:9",
            "seed": "42",
            "output_format": "png",
            "model": "sd3.5-large",
        },
    ),
}

EDITS = {
    "inpaint": Call(
        model="stability/stable-image-inpaint-v1:0",
        target="edit/inpaint",
        files={"image": "original_image.png", "mask": "mask_image.png"},
        arguments={"prompt": "Add a beautiful sunset in the masked area", "size": "1024x1024"},
        sent={"prompt": "Add a beautiful sunset in the masked area"},
        warnings=1,  # size has no effect there
    ),
    "conservative upscale": Call(
        model="stability/stable-conservative-upscale-v1:0",
        target="upscale/conservative",
        files={"image": "low_res_image.png"},
        arguments={"prompt": "Upscale this image while preserving details"},
        sent={"prompt": "Upscale this image while preserving details"},
    ),
    "creative upscale": Call(
        model="stability/stable-creative-upscale-v1:0",
        target="upscale/creative",
        files={"image": "low_res_image.png"},
        arguments={"prompt": "Upscale and enhance with creative details", "creativity": 0.3},
        sent={"prompt": "Upscale and enhance with creative details", "creativity": "0.3"},
    ),
    "fast upscale": Call(
        model="stability/stable-fast-upscale-v1:0",
        target="upscale/fast",
        files={"image": "low_res_image.png"},
        arguments={},
    ),
    "outpaint": Call(
        model="stability/stable-outpaint-v1:0",
        target="edit/outpaint",
        files={"image": "original_image.png"},
        arguments={"prompt": "Extend this landscape with mountains", "left": 100, "right": 100, "up": 50, "down": 50},
        sent={
            "prompt": "Extend this landscape with mountains",
            "left": "100",
            "right": "100",
            "up": "50",
            "down": "50",
        },
    ),
    "background removal": Call(
        model="stability/stable-image-remove-background-v1:0",
        target="edit/remove-background",
        files={"image": "portrait.png"},
        arguments={},
    ),
    "search and replace": Call(
        model="stability/stable-image-search-replace-v1:0",
        target="edit/search-and-replace",
        files={"image": "scene.png"},
        arguments={"prompt": "A red sports car", "search_prompt": "blue sedan"},
        sent={"prompt": "A red sports car", "search_prompt": "blue sedan"},
    ),
    "search and recolor": Call(
        model="stability/stable-image-search-recolor-v1:0",
        target="edit/search-and-recolor",
        files={"image": "scene.png"},
        arguments={"prompt": "Make it golden yellow", "select_prompt": "the car"},
        sent={"prompt": "Make it golden yellow", "select_prompt": "the car"},
    ),
    "sketch": Call(
        model="stability/stable-image-control-sketch-v1:0",
        target="control/sketch",
        files={"image": "sketch.png"},
        arguments={"prompt": "Turn this sketch into a realistic photo", "control_strength": 0.7},
        sent={"prompt": "Turn this sketch into a realistic photo", "control_strength": "0.7"},
    ),
    "structure": Call(
        model="stability/stable-image-control-structure-v1:0",
        target="control/structure",
        files={"image": "structure_reference.png"},
        arguments={"prompt": "Generate image following this structure", "control_strength": 0.7},
        sent={"prompt": "Generate image following this structure", "control_strength": "0.7"},
    ),
    "erase": Call(
        model="stability/stable-image-erase-object-v1:0",
        target="edit/erase",
        files={"image": "scene.png", "mask": "object_mask.png"},
        arguments={},
    ),
    "style transfer": Call(
        model="stability/stable-style-transfer-v1:0",
        target="control/style-transfer",
        files={"image": "content_image.png", "style_image": "style_reference.png"},
        arguments={"fidelity": 0.5},
        sent={"composition_fidelity": "0.5"},
        sent_files={"init_image": "content_image.png", "style_image": "style_reference.png"},
    ),
}

MODELS = [
    "sd3",
    "sd3-large",
    "sd3-large-turbo",
    "sd3-medium",
    "sd3.5-large",
    "sd3.5-large-turbo",
    "sd3.5-medium",
    "stable-image-ultra",
    "stable-image-core",
    "stable-image-inpaint-v1:0",
    "stable-conservative-upscale-v1:0",
    "stable-creative-upscale-v1:0",
    "stable-fast-upscale-v1:0",
    "stable-outpaint-v1:0",
    "stable-image-remove-background-v1:0",
    "stable-image-search-replace-v1:0",
    "stable-image-search-recolor-v1:0",
    "stable-image-control-sketch-v1:0",
    "stable-image-control-structure-v1:0",
    "stable-image-erase-object-v1:0",
    "stable-image-style-guide-v1:0",
    "stable-style-transfer-v1:0",
]
"""The 9 and 13 names of the page's two tables."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the page's file names are real files."""
    for name, data in PICTURES.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_generation_of_the_page(name: str, emulator: Emulator) -> None:
    call = GENERATIONS[name]
    response = image_generation(model=call.model, **call.arguments)  # type: ignore[call-overload]  # as the page has them
    arrived(call, emulator)
    assert response.data[0].b64_json
    assert response["data"][0]["b64_json"] == response.data[0].b64_json
    assert len(repr(response)) < 300


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_the_page(name: str, emulator: Emulator, folder: Path) -> None:
    call = EDITS[name]
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(path, "rb")) for name, path in call.files.items()}
        response = image_edit(model=call.model, **files, **call.arguments)  # type: ignore[call-overload]
        assert not any(file.closed for file in files.values())
    arrived(call, emulator)
    assert response.data[0].b64_json
    assert len(response.warnings) == call.warnings


def arrived(call: Call, emulator: Emulator) -> None:
    """The one paid request went to the right place, holds all that was asked for and nothing else, and was charged."""
    [request] = [each for each in emulator.requests if each.method == "POST"]
    assert request.target == f"/v2beta/stable-image/{call.target}"
    assert request.fields == call.sent
    files = call.files if call.sent_files is None else call.sent_files
    assert {name: part.sha256 for name, part in request.files.items()} == {
        name: hashlib.sha256(PICTURES[path]).hexdigest() for name, path in files.items()
    }
    assert len(emulator.charges) == 1


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_page_makes_a_picture(name: str, emulator: Emulator) -> None:
    model = f"stability/{name}"
    if name.startswith("sd3") or name in ("stable-image-ultra", "stable-image-core"):
        response = image_generation(model=model, prompt="a lighthouse")
    else:
        needs: dict[str, dict[str, object]] = {
            "stable-outpaint-v1:0": {"left": 64},
            "stable-image-search-replace-v1:0": {"search_prompt": "a cat"},
            "stable-image-search-recolor-v1:0": {"select_prompt": "a cat"},
            "stable-style-transfer-v1:0": {"style_image": png(99, 99)},
        }
        response = image_edit(model=model, image=png(128, 96), prompt="a lighthouse", **needs.get(name, {}))  # type: ignore[call-overload]
    assert len(response.data) == len(emulator.charges) == 1
