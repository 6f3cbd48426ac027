"""Defaults of a deployment, ``drop_params`` of one, and the default model."""

from __future__ import annotations

from base64 import b64encode

import pytest

from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.images import png
from tests.plugins.gateway.conftest import MODELS, Running, Start, config, entry


def sd3(base: str, *params: str, name: str = "sd3", model: str = "sd3") -> str:
    """One entry of model_list with more parameters."""
    return entry(name, MODELS[model], base) + "".join(f"      {each}\n" for each in params)


@pytest.fixture
async def gateway(start: Start, impasto_emulator: Emulator) -> Running:
    """A gateway whose sd3 has defaults, beside a core that drops what it does not take."""
    base = impasto_emulator.url
    entries = sd3(base, "strength: 0.7", "style_preset: anime", "output_format: webp")
    entries += sd3(base, "drop_params: true", name="core", model="core")
    return await start(config(base, entries=entries, general="  default_model: core\n"))


async def test_an_openai_edit_runs_on_sd3_with_a_default_strength(gateway: Running, impasto_emulator: Emulator) -> None:
    await gateway.sdk.images.edit(image=png(96, 96), prompt="a boat", model="sd3")
    fields = impasto_emulator.requests[0].fields
    assert (fields["strength"], fields["mode"], fields["style_preset"]) == ("0.7", "image-to-image", "anime")


async def test_the_same_model_still_makes_images_from_text(gateway: Running, impasto_emulator: Emulator) -> None:
    await gateway.sdk.images.generate(prompt="a boat", model="sd3")
    fields = impasto_emulator.requests[0].fields
    assert "strength" not in fields
    assert (fields["style_preset"], fields["output_format"]) == ("anime", "webp")


async def test_the_callers_value_comes_first_and_null_is_no_value(gateway: Running, impasto_emulator: Emulator) -> None:
    answer = await gateway.generate(style_preset="cinematic", output_format=None)
    assert answer.json["output_format"] == "webp"
    fields = impasto_emulator.requests[0].fields
    assert (fields["style_preset"], fields["output_format"]) == ("cinematic", "webp")


async def test_a_variation_uses_the_default_strength(gateway: Running, impasto_emulator: Emulator) -> None:
    image = "data:image/png;base64," + b64encode(png(96, 96)).decode()
    answer = await gateway.ask("POST", "/v1/images/variations", json={"model": "sd3", "image": image})
    assert impasto_emulator.requests[0].fields["strength"] == "0.7"
    assert all("strength" not in each for each in answer.json["warnings"])


async def test_drop_params_of_one_model(gateway: Running, impasto_emulator: Emulator) -> None:
    dropped = await gateway.generate(model="core", steps=20)
    assert dropped.json["warnings"][0].startswith("steps was dropped")
    refused = await gateway.generate(model="sd3", steps=20)
    assert (refused.status, refused.error["param"]) == (400, "steps")


async def test_drop_params_of_one_model_may_be_false(start: Start, impasto_emulator: Emulator) -> None:
    entries = sd3(impasto_emulator.url, "drop_params: false")
    more = "litellm_settings: {drop_params: true}\n"
    gateway = await start(config(impasto_emulator.url, entries=entries, more=more))
    assert (await gateway.generate(steps=20)).status == 400


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}], ids=["missing", "null", "empty"])
async def test_a_request_that_names_no_model_calls_the_default_one(
    gateway: Running, impasto_emulator: Emulator, body: dict[str, object]
) -> None:
    answer = await gateway.ask("POST", "/v1/images/generations", json={"prompt": "p", **body})
    assert answer.status == 200, answer.body
    assert impasto_emulator.requests[0].target == "/v2beta/stable-image/generate/core"


async def test_a_default_is_used_in_a_batch_too(gateway: Running, impasto_emulator: Emulator) -> None:
    from tests.plugins.gateway.batches.conftest import finish, line, submit

    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", model="sd3")]))
    assert batch.status == "completed"
    assert impasto_emulator.requests[0].fields["style_preset"] == "anime"


async def test_a_batchs_lines_say_themselves_how_many_images_they_have(
    start: Start, impasto_emulator: Emulator
) -> None:
    from tests.plugins.gateway.batches.conftest import finish, line, results, submit

    entries = sd3(impasto_emulator.url, "n: 2", "response_format: url")
    gateway = await start(config(impasto_emulator.url, entries=entries))
    assert len((await gateway.generate()).json["data"]) == 2
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", model="sd3"), line("b", model="sd3", n=2)]))
    done = await results(gateway.sdk, batch.output_file_id)
    data = {id: each["response"]["body"]["data"] for id, each in done.items()}
    assert {id: len(each) for id, each in data.items()} == {"a": 1, "b": 2}
    assert all("b64_json" in image for each in data.values() for image in each)


async def test_a_lower_order_goes_first_and_the_next_when_it_fails(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    entries = sd3(second.url) + sd3(second.url, "order: 2") + sd3(impasto_emulator.url, "order: 1")
    gateway = await start(config(impasto_emulator.url, entries=entries))
    for _ in range(5):
        assert (await gateway.generate()).status == 200
    assert (len(impasto_emulator.charges), len(second.charges)) == (5, 0)
    impasto_emulator.fault("status", status=402, times=1)
    assert (await gateway.generate()).status == 200
    assert (await gateway.generate()).status == 200  # the first one rests
    assert (len(impasto_emulator.charges), len(second.charges)) == (5, 2)


async def test_a_price_of_ones_own_is_what_is_told_and_counted(start: Start, impasto_emulator: Emulator) -> None:
    entries = sd3(impasto_emulator.url, "input_cost_per_image: 0.011")
    gateway = await start(config(impasto_emulator.url, entries=entries))
    answer = await gateway.generate(n=3)
    assert float(answer.headers["x-impasto-cost-usd"]) == pytest.approx(0.033)
    assert "0.011" in (await gateway.ask("GET", "/v1/models/sd3")).json["price"]


async def test_a_rate_of_ones_own_holds(start: Start, impasto_emulator: Emulator) -> None:
    key = KEY + "-of-a-rate"
    entries = entry("sd3", MODELS["sd3"], impasto_emulator.url, key) + "      rate_limit: 2/1h\n"
    gateway = await start(config(impasto_emulator.url, entries=entries, general="  max_wait_seconds: 0.5\n"))
    assert [(await gateway.generate()).status for _ in range(3)] == [200, 200, 429]
    assert len(impasto_emulator.requests) == 2
