"""null means not given: at every level of a request, with ``drop_params`` and without."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import aiohttp
import attrs
import pytest

from impasto import Registry
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.calls.arguments import CallArguments
from tests.images import png
from tests.plugins.gateway.conftest import Running, Start, config

URI = "data:image/png;base64," + b64encode(png(96, 96)).decode()
NAMES = (
    *("cfg", "seed", "style", "quality", "partial_images", "stream", "n", "size", "user", "image", "mask"),
    *("extra_body", "metadata", "response_format", "api_base", "timeout", "extra_headers"),
)


@pytest.fixture(params=[False, True], ids=["strict", "drop_params"])
async def gateway(request: pytest.FixtureRequest, start: Start, impasto_emulator: Emulator) -> Running:
    """A gateway that refuses what a model has no field for, or drops it."""
    more = f"litellm_settings:\n  drop_params: {str(request.param).lower()}\n"
    return await start(config(impasto_emulator.url, more=more))


async def test_null_is_not_given(gateway: Running, impasto_emulator: Emulator) -> None:
    nothing = dict.fromkeys(NAMES)
    for body in (nothing, {"extra_body": nothing}, {**nothing, "extra_body": {"seed": 7, "model": None}}):
        answer = await gateway.generate(model="core", **body)
        assert answer.status == 200, answer.body
        assert "warnings" not in answer.json
    assert [set(each.fields) for each in impasto_emulator.requests] == [{"prompt"}, {"prompt"}, {"prompt", "seed"}]


@pytest.mark.parametrize(
    "body",
    [
        {"image": URI, "images": None, "mask": None},
        {"image": None, "images": [{"image_url": URI, "file_id": None}], "mask": None},
        {"images": [{"image_url": URI}, None]},
        {"image": [None, URI]},
        {"image": URI, "mask": {"image_url": None, "file_id": None}},
        {"images": [{"image_url": None, "file_id": None}, {"image_url": URI}]},
    ],
)
async def test_null_among_images_is_not_given(
    gateway: Running, impasto_emulator: Emulator, body: dict[str, object]
) -> None:
    answer = await gateway.ask("POST", "/v1/images/edits", json={"model": "erase", "prompt": None, **body})
    assert answer.status == 200, answer.body
    assert set(impasto_emulator.requests[0].files) == {"image"}


@pytest.mark.parametrize("text", ["", "null"])
async def test_a_form_has_null_as_text(gateway: Running, impasto_emulator: Emulator, text: str) -> None:
    """go-openai sends empty fields, and a browser's FormData turns null into text."""
    form = aiohttp.FormData({"model": "sd3", "prompt": "null", "strength": "0.5"}, default_to_multipart=True)
    form.add_field("image", png(96, 96), filename="a.png")
    for name in ("n", "seed", "size", "quality", "response_format", "style", "partial_images", "output_format"):
        form.add_field(name, text)
    for name in ("stream", "mask", "image[]", "metadata", "api_base", "input_fidelity", "extra_body"):
        form.add_field(name, text)
    answer = await gateway.ask("POST", "/v1/images/edits", data=form)
    assert answer.status == 200, answer.body
    assert set(impasto_emulator.requests[0].fields) == {"model", "prompt", "strength", "mode"}


def _with(line: dict[str, object], more: dict[str, object]) -> dict[str, object]:
    """A line whose body has more fields."""
    body = line["body"]
    assert isinstance(body, dict)
    return {**line, "body": {**body, **more}}


async def test_null_in_a_batch_and_in_its_lines_is_not_given(gateway: Running, impasto_emulator: Emulator) -> None:
    from tests.plugins.gateway.batches.conftest import finish, jsonl, line

    nothing: dict[str, Any] = {**dict.fromkeys(NAMES)}
    lines = jsonl([{**_with(line("a"), nothing), "path": None}, line("b", extra_body=nothing)])
    file = await gateway.sdk.files.create(file=("in.jsonl", lines), purpose="batch")
    body = {
        "input_file_id": file.id,
        "endpoint": "/v1/images/generations",
        "completion_window": "24h",
        **dict.fromkeys(("metadata", "output_expires_after", "service_tier")),
    }
    answer = await gateway.ask("POST", "/v1/batches", json=body)
    assert answer.status == 200, answer.body
    batch = await finish(gateway.sdk, await gateway.sdk.batches.retrieve(answer.json["id"]))
    assert (batch.status, batch.request_counts.completed) == ("completed", 2)


@attrs.frozen(kw_only=True)
class Tiled:
    """Parameters of somebody else's model."""

    prompt: str
    tile: bool | None = None
    steps: int | None = None
    weights: dict[str, float] | None = None


def test_a_form_gives_the_fields_of_any_model_their_types() -> None:
    operation = attrs.evolve(Registry().operation("stability/stable-image-core"), params=Tiled)
    params: dict[str, object] = {"prompt": "null", "tile": "true", "steps": "5", "weights": "null"}
    call_args = CallArguments.from_fields({"model": "null", "stream": "false", **params}, form=True)
    assert (call_args.model, call_args.stream) == (None, False)
    assert call_args.for_operation(operation) == {"prompt": "null", "tile": True, "steps": 5}
    assert CallArguments.from_fields(params, form=False).for_operation(operation) == params
