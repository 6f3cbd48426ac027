"""The 3D models that the emulator makes, opened by a library that is not ours."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trimesh

import impasto
from tests.plugins.emulator.conftest import Wire
from tests.plugins.emulator.providers.test_operations import IMAGE

FAST, AWARE = "stability/stable-fast-3d", "stability/stable-point-aware-3d"


@pytest.fixture
async def client() -> AsyncIterator[impasto.Client]:
    settings = {"emulator": {"image_scale": 0.25}}
    async with impasto.Client(transport="emulator", providers=settings, timeout=60) as it:
        yield it


async def model_of(client: impasto.Client, model: str, **arguments: object) -> Any:
    """The one shape in the model that comes of a call."""
    (artifact,) = (await client.invoke(model, {"image": IMAGE, **arguments})).artifacts
    assert (artifact.media_type, artifact.seed, artifact.finish_reason) == ("model/gltf-binary", None, None)
    (shape,) = trimesh.load_scene(io.BytesIO(artifact.data), file_type="glb").geometry.values()
    return shape


@pytest.mark.parametrize("model", [FAST, AWARE])
async def test_the_model_is_a_solid_with_the_image_on_it(client: impasto.Client, model: str) -> None:
    shape = await model_of(client, model)
    assert shape.is_watertight
    assert shape.is_winding_consistent
    assert shape.volume > 0
    assert shape.extents[0] / shape.extents[1] == pytest.approx(160 / 120)
    assert shape.visual.material.baseColorTexture.size == (256, 256)


@pytest.mark.parametrize(
    ("model", "arguments", "vertices", "faces"),
    [
        (FAST, {"vertex_count": 500}, 500, None),
        (FAST, {"vertex_count": 20_000}, 20_000, None),
        (AWARE, {"target_type": "vertex", "target_count": 100}, 100, None),
        (AWARE, {"target_type": "face", "target_count": 100}, None, 100),
        (AWARE, {"target_type": "none", "target_count": 100}, None, None),
    ],
)
async def test_the_model_has_at_most_the_requested_points(
    client: impasto.Client, model: str, arguments: dict[str, object], vertices: int | None, faces: int | None
) -> None:
    shape = await model_of(client, model, **arguments)
    assert shape.is_watertight
    if vertices is None and faces is None:
        assert len(shape.vertices) > 5_000
    assert len(shape.vertices) <= (vertices or 10_000)
    assert len(shape.faces) <= (faces or 20_000)


async def test_texture_and_size_follow_the_fields(client: impasto.Client) -> None:
    small = await model_of(client, FAST, texture_resolution="512", foreground_ratio=0.4)
    large = await model_of(client, FAST, texture_resolution="2048", foreground_ratio=0.8)
    assert small.visual.material.baseColorTexture.size == (128, 128)
    assert large.visual.material.baseColorTexture.size == (512, 512)
    assert large.extents[0] == pytest.approx(2 * small.extents[0])


async def test_a_seed_gives_the_same_model(client: impasto.Client) -> None:
    one, same, other = [(await model_of(client, AWARE, seed=seed)).extents[2] for seed in (1, 1, 2)]
    assert one == same != other


async def test_the_answer_is_the_model_for_any_accept_header(wire: Wire) -> None:
    for accept in (None, "*/*", "application/json", "image/*"):
        status, headers, body = await wire.post("/v2beta/3d/stable-fast-3d", {"image": IMAGE}, accept=accept)
        assert (status, headers["content-type"], body[:4]) == (200, "model/gltf-binary", b"glTF")
        assert not {"seed", "finish-reason"} & {name.lower() for name in headers}
    assert [charge.credits for charge in wire.emulator.charges] == [10] * 4
