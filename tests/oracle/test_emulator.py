"""The emulator against the contract: raw HTTP requests made of the contract alone, on both sides of each bound.

The emulator reads our parameter classes. Here it has to agree with the vendor's documents instead.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import attrs
import pytest
import pytest_asyncio
from PIL import Image

from impasto_plugins.emulator import EmulatorSettings
from tests.images import padded, png
from tests.oracle.contract import BEDROCK, WIRE, Contract
from tests.oracle.emulator import (
    JUDGED,
    QUICK,
    Answer,
    Wire,
    check_error,
    check_rejection,
    fetch_result,
    form,
    in_json,
    judge,
    price,
)
from tests.oracle.samples import (
    Values,
    foreign_fields,
    inside,
    minimal_request,
    outside,
    request,
    sample_size,
    sizes,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
}
MAGIC = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}

of_stability = pytest.mark.parametrize("contract", JUDGED, ids=lambda contract: contract.id)
of_every = pytest.mark.parametrize("contract", [*JUDGED, *BEDROCK], ids=lambda contract: contract.id)
of_bedrock = pytest.mark.parametrize("contract", BEDROCK, ids=lambda contract: contract.id)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def wire(impasto_emulator: Any, session: aiohttp.ClientSession) -> Wire:
    return Wire(impasto_emulator.url, session)


@of_stability
async def test_each_bound_of_the_rest_api(wire: Wire, contract: Contract) -> None:
    await judge(wire, contract)


@of_bedrock
async def test_each_bound_on_bedrock(wire: Wire, contract: Contract) -> None:
    await judge(wire, contract)


@pytest.mark.parametrize("contract", [c for c in JUDGED if c.id in ("edit/erase", "edit/inpaint")], ids=lambda c: c.id)
async def test_the_largest_image_is_edited(wire: Wire, contract: Contract) -> None:
    field = contract.fields["image"]
    largest = max(sizes(field.limits)[0], key=math.prod)
    answer = await wire.send(contract, request(contract, "image", png(*largest)))
    assert answer.status == 200, answer
    assert Image.open(io.BytesIO(answer.body)).size == largest


OF_A_LIMIT = {contract.path: contract for contract in JUDGED if contract.limit is not None and contract.files}


@pytest.mark.parametrize("contract", OF_A_LIMIT.values(), ids=lambda contract: contract.id)
async def test_the_whole_request_is_limited(wire: Wire, contract: Contract) -> None:
    assert contract.limit is not None
    name = contract.files[0]

    async def send(size: int) -> tuple[int, Answer]:
        values = request(contract, name, padded(size, *sample_size(contract.fields[name].limits)))
        body = form(contract, values)()
        data = await body.as_bytes()
        stream = io.BytesIO(data)
        return len(data), await wire.ask(
            "POST", contract.path, data=stream, headers={"content-type": body.content_type}
        )

    length, _ = await send(6000)
    room = contract.limit - (length - 6000)
    length, answer = await send(room)
    assert (length, answer.status) == (contract.limit, contract.submit_status if contract.results else 200)
    length, answer = await send(room + 1)
    assert (length, answer.status) == (contract.limit + 1, 413)
    assert (answer.json["name"], answer.json.keys()) == ("payload_too_large", {"id", "name", "errors"})


@of_stability
async def test_the_answers_are_those_of_the_vendor(wire: Wire, contract: Contract) -> None:
    default = contract.fields["output_format"].default if "output_format" in contract.fields else None
    for name in (None, *(contract.fields["output_format"].choices if default else ())):
        values = {
            **minimal_request(contract),
            **({"output_format": name} if name else {}),
            **QUICK.get(contract.makes, {}),
        }
        answer = await wire.send(contract, values)
        if contract.results is not None:
            assert (answer.status, answer.json.keys()) == (contract.submit_status, {"id"})
            assert len(answer.json["id"]) == 64
            answer = await fetch_result(wire, contract, values)
        assert answer.status == 200
        if contract.makes == "3d":
            assert answer.headers["content-type"] == "model/gltf-binary"
            assert answer.body.startswith(b"glTF")
            continue
        media_type = MEDIA_TYPES[str(name or default)]
        assert answer.headers["content-type"] == media_type
        assert answer.headers["finish-reason"] == "SUCCESS"
        assert answer.headers["seed"].isdecimal()
        assert answer.headers["x-request-id"]
        in_json = await fetch_result(wire, contract, values, accept="application/json")
        assert in_json.headers["content-type"] == f"application/json; type={media_type}"
        assert in_json.json.keys() == {contract.makes, "finish_reason", "seed"}
        assert in_json.json["finish_reason"] == "SUCCESS"
        assert isinstance(in_json.json["seed"], int)
        assert base64.b64decode(in_json.json[contract.makes], validate=True)
        assert not {"finish-reason", "seed"} & {each.lower() for each in in_json.headers}


@of_every
async def test_a_request_is_charged_at_the_vendors_price(wire: Wire, contract: Contract) -> None:
    calls: list[Values] = [{}]
    if contract.credits_by_steps is not None:
        calls += [{"steps": contract.fields["steps"].least}, {"steps": contract.fields["steps"].most}]
    for values in calls:
        await wire.send(contract, {**minimal_request(contract), **QUICK.get(contract.makes, {}), **values})
        charge = (await wire.ask("GET", "/_emulator/charges")).json["charges"][-1]
        assert charge["usd"] == pytest.approx(price(contract, values))


OF_CONSTANTS = [contract for contract in JUDGED if contract.constants]


@pytest.mark.parametrize("contract", OF_CONSTANTS, ids=lambda contract: contract.id)
async def test_a_model_has_one_of_the_names_of_its_path(wire: Wire, contract: Contract) -> None:
    for name in contract.constants:
        check_rejection(contract, await wire.send(contract, {**minimal_request(contract), name: "none-such"}), (name,))


@pytest.mark.parametrize("contract", [c for c in OF_CONSTANTS if c.is_default], ids=lambda contract: contract.id)
async def test_without_a_model_the_vendors_own_is_meant(wire: Wire, contract: Contract) -> None:
    unnamed = attrs.evolve(contract, constants={})
    for name in ("steps", "cfg_scale"):
        if name in contract.fields:
            for value in inside(contract.fields[name]):
                values = {**request(contract, name, value), **QUICK.get(contract.makes, {})}
                answer = await wire.send(unnamed, values)
                assert answer.status == (contract.submit_status if contract.results else 200), answer
                charge = (await wire.ask("GET", "/_emulator/charges")).json["charges"][-1]
                assert charge["usd"] == pytest.approx(price(contract, values))
            for value in outside(contract.fields[name]):
                check_rejection(contract, await wire.send(unnamed, request(contract, name, value)), (name,))


@pytest.mark.parametrize("contract", [c for c in JUDGED if c.results], ids=lambda contract: contract.id)
async def test_a_result_is_for_the_key_that_started_it(wire: Wire, contract: Contract) -> None:
    job = (await wire.send(contract, {**minimal_request(contract), **QUICK.get(contract.makes, {})})).json["id"]
    for id in (job, "0" * 64):
        answer = await wire.ask("GET", f"{contract.results}{id}")
        assert (answer.status, answer.json["name"]) == (404, "generation_not_found")
        assert answer.json["errors"][0].startswith("id:")


@pytest.mark.parametrize("contract", [c for c in JUDGED if c.alternate_results], ids=lambda contract: contract.id)
async def test_a_result_is_at_the_vendors_other_path_too(wire: Wire, contract: Contract) -> None:
    answer = await fetch_result(
        wire, attrs.evolve(contract, results=contract.alternate_results), minimal_request(contract)
    )
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")


@of_stability
async def test_the_form_is_read_as_the_vendor_reads_it(wire: Wire, contract: Contract) -> None:
    quick = {**minimal_request(contract), **QUICK.get(contract.makes, {})}
    good = contract.submit_status if contract.results else 200
    answer = await wire.send(contract, {**quick, "none": "", "sede": "1"})
    assert answer.status == good, "an unknown field is dropped, and so is the samples' dummy part"
    answer = await wire.send(contract, quick, authorization="")
    assert (answer.status, answer.json["name"]) == (401, "unauthorized")
    name = next(name for name, field in contract.fields.items() if field.required)
    without = {other: value for other, value in quick.items() if other != name}
    check_rejection(contract, await wire.send(contract, without, authorization=""), (name,))  # before the key
    answer = await wire.ask("POST", contract.path, data={"prompt": "x"})
    assert (answer.status, answer.json["errors"]) == (400, ["content-type: must be multipart/form-data"])
    answer = await wire.ask("POST", contract.path, skip_auto_headers=["content-type"])
    assert (answer.status, answer.json["errors"]) == (400, ["content-type: required"])


@of_bedrock
async def test_a_model_of_bedrock_answers_in_its_form(wire: Wire, contract: Contract) -> None:
    for name in contract.fields["output_format"].choices:
        answer = await wire.send(contract, {**minimal_request(contract), "output_format": name})
        assert answer.status == 200, answer
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-amzn-requestid"]
        assert answer.json.keys() == {"seeds", "finish_reasons", "images"}
        [image], [reason], [seed] = (answer.json[key] for key in ("images", "finish_reasons", "seeds"))
        assert (reason, type(seed)) == (None, int)
        assert base64.b64decode(image, validate=True).startswith(MAGIC[name])
    encoded = quote(contract.path, safe="")
    answer = await wire.ask("POST", f"/model/{encoded}/invoke", json=in_json(minimal_request(contract)))
    assert answer.status == 200, "the colon in the path may be encoded"


LARGE = [contract for contract in BEDROCK if contract.id in ("sd3.5-large", "fast-upscale", "inpaint")]


@pytest.mark.parametrize("contract", LARGE, ids=lambda contract: contract.id)
async def test_a_body_on_bedrock_may_be_larger_than_a_request_elsewhere(wire: Wire, contract: Contract) -> None:
    size = 10 * 2**20 + 1  # no image is made of it: what else is wrong is reported before
    for name in contract.files:
        image = padded(size, *sample_size(contract.fields[name].limits))
        answer = await wire.send(contract, {**request(contract, name, image), "output_format": "none-such"})
        check_rejection(contract, answer, ("output_format",))


@of_bedrock
async def test_bedrock_refuses_a_field_that_the_model_has_not(wire: Wire, contract: Contract) -> None:
    for name, value in foreign_fields(contract):
        answer = await wire.send(contract, {**minimal_request(contract), name: value})
        assert answer.status == 400
        check_error(answer, "ValidationException")
        if contract.unknown is not None:
            assert json.loads(answer.json["message"]) == {"detail": contract.unknown.format(name)}


@of_bedrock
async def test_bedrock_refuses_the_other_form_of_an_id(wire: Wire, contract: Contract) -> None:
    other = contract.path.removeprefix("us.") if contract.path.startswith("us.") else f"us.{contract.path}"
    answer = await wire.ask("POST", f"/model/{other}/invoke", json=in_json(minimal_request(contract)))
    assert answer.status == 400
    check_error(answer, "ValidationException")


async def test_the_vendors_times_are_the_emulators_when_none_are_set() -> None:
    settings = EmulatorSettings()
    assert (settings.rate_requests, settings.rate_seconds) == (WIRE["requests"], WIRE["seconds"])
    assert (settings.lock_seconds, settings.result_seconds) == (WIRE["lock_seconds"], WIRE["keep_hours"] * 3600)


async def test_the_account_in_the_vendors_form(wire: Wire) -> None:
    paths = ("/v1/user/balance", "/v1/user/account", "/v1/engines/list")
    balance, account, engines = [await wire.ask("GET", path) for path in paths]
    assert isinstance(balance.json["credits"], int | float)
    assert {"id", "email", "organizations"} <= account.json.keys()
    assert all({"id", "name", "role", "is_default"} <= each.keys() for each in account.json["organizations"])
    assert all({"id", "name", "description", "type"} <= each.keys() for each in engines.json)
    for path in paths:
        answer = await wire.ask("GET", path, headers={"authorization": ""})
        assert (answer.status, answer.json["name"]) == (401, "unauthorized")
        assert answer.json.keys() == {"id", "name", "message"}
