"""The emulator against the contract: raw HTTP requests made of the contract alone, on both sides of each bound.

The emulator reads our parameter classes. Here it has to agree with the vendor's documents instead.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import aiohttp
import attrs
import pytest
import pytest_asyncio
from PIL import Image

from tests.oracle.contract import BEDROCK, EVERY, STABILITY, Contract
from tests.oracle.entrances import summarize
from tests.oracle.samples import (
    Values,
    inside,
    invalid_requests,
    minimal_request,
    outside,
    request,
    rules,
    sample_size,
    sizes,
    valid_requests,
)
from tests.pictures import padded, png

pytestmark = pytest.mark.asyncio(loop_scope="module")

JUDGED = [contract for contract in STABILITY if "emulator" not in contract.open]
MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
}
MAGIC = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}
QUICK: Mapping[str, Values] = {"audio": {"duration": 1}}
_keys = itertools.count()

of_stability = pytest.mark.parametrize("contract", JUDGED, ids=lambda contract: contract.id)
of_every = pytest.mark.parametrize("contract", [*JUDGED, *BEDROCK], ids=lambda contract: contract.id)
of_bedrock = pytest.mark.parametrize("contract", BEDROCK, ids=lambda contract: contract.id)


@attrs.frozen
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=lambda body: repr(body[:500]))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class Wire:
    """A plain HTTP client."""

    url: str
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request, with a key of its own if there is none: keys are counted one by one."""
        headers = {"authorization": f"Bearer sk-oracle-{next(_keys)}", **options.pop("headers", {})}
        headers = {name: value for name, value in headers.items() if value}
        async with self.session.request(method, f"{self.url}{path}", headers=headers, **options) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def send(self, contract: Contract, values: Values, **headers: str) -> Answer:
        """Send an operation's request as the contract has it."""
        if contract.provider == "bedrock":
            path = f"/model/{contract.path}/invoke"
            body = io.BytesIO(json.dumps(_in_json(values)).encode())
            return await self.ask("POST", path, data=body, headers={"content-type": "application/json", **headers})
        return await self.ask("POST", contract.path, data=form(contract, values), headers=headers)


def form(contract: Contract, values: Values) -> aiohttp.FormData:
    """Return the multipart form of a request."""
    parts = aiohttp.FormData(default_to_multipart=True)
    for name, value in {**contract.constants, **values}.items():
        if isinstance(value, bytes):
            parts.add_field(name, io.BytesIO(value), filename=name, content_type="application/octet-stream")
        else:
            parts.add_field(name, value if isinstance(value, str) else format(Decimal(repr(value)), "f"))
    return parts


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def wire(impasto_emulator: Any, session: aiohttp.ClientSession) -> Wire:
    return Wire(impasto_emulator.url, session)


def check_rejection(contract: Contract, answer: Answer, names: tuple[str, ...]) -> None:
    """Fail if an answer is not the vendor's refusal of these fields."""
    assert answer.status == 400, answer
    if contract.provider == "bedrock":
        check_error(answer, "ValidationException")
        message = answer.json["message"]  # whose words are not established, but that they name the field
        assert all(name in message for name in names), message
        assert not [name for name in {*contract.fields} - {*names} if re.search(rf"\b{name}: ", message)], message
        return
    assert answer.json.keys() == {"id", "name", "errors"}
    assert answer.json["name"] == "bad_request"
    assert {entry.partition(":")[0] for entry in answer.json["errors"]} == {*names}, answer


def check_choices(contract: Contract, answer: Answer, name: str) -> None:
    """Fail if the vendor's refusal of a value does not list its choices; Bedrock's words are not established."""
    if contract.provider == "stability":
        [entry] = answer.json["errors"]
        assert entry.startswith(f"{name}: invalid enum value. Expected ")
        assert sorted(re.findall(r"'([^']+)'", entry)) == sorted(contract.fields[name].choices)


def check_error(answer: Answer, code: str) -> None:
    """Fail if an answer is not a refusal in Bedrock's form."""
    assert answer.headers["x-amzn-errortype"].partition(":")[0] == code
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    assert answer.json.keys() == {"message"}


def is_large(contract: Contract, values: Values) -> bool:
    """Return True if an image of a request, or what is painted around it, has more than a megapixel."""
    if sum(int(str(values.get(side, 0))) for side in ("left", "right", "up", "down")) > 1000:
        return True
    images = (values[name] for name in contract.files if name in values and contract.makes != "audio")
    return any(math.prod(Image.open(io.BytesIO(image)).size) > 2**20 for image in images if isinstance(image, bytes))


async def judge(wire: Wire, contract: Contract) -> None:
    """Fail if the emulator refuses what the vendor takes, or takes what it refuses."""
    status = contract.submit_status if contract.results else 200
    for values in valid_requests(contract):
        if is_large(contract, values):  # to make that takes seconds: all that is wrong is reported before
            [name, *_] = [name for name, field in contract.fields.items() if field.kind == "choice"]
            check_rejection(contract, await wire.send(contract, {**values, name: "none-such"}), (name,))
            continue
        answer = await wire.send(contract, {**QUICK.get(contract.makes, {}), **values})
        assert answer.status == status, (summarize(values), answer)
    for each in invalid_requests(contract):
        field = contract.fields[each.names[0]]
        if "emulator" not in field.open and not (each.is_fraction and "fractions" in field.open):
            answer = await wire.send(contract, each.values)
            assert answer.status != status, summarize(each.values)
            check_rejection(contract, answer, each.names)
            if field.kind == "choice" and each.values.get(each.names[0]) == "none-such":
                check_choices(contract, answer, each.names[0])
    for why, values, names, _, is_known in rules(contract):
        if is_known:
            answer = await wire.send(contract, values)
            assert (answer.status == status) == (not names), (why, answer)
            if names:
                check_rejection(contract, answer, names)


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
async def test_what_comes_back_is_what_the_vendor_sends(wire: Wire, contract: Contract) -> None:
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


async def fetch_result(wire: Wire, contract: Contract, values: Values, **headers: str) -> Answer:
    """Return the whole answer, of a job when it is ready."""
    key = {"authorization": f"Bearer sk-job-{next(_keys)}"}
    answer = await wire.send(contract, values, **key, **headers)
    if contract.results is None:
        return answer
    id = answer.json["id"]
    while (result := await wire.ask("GET", f"{contract.results}{id}", headers={**key, **headers})).status == 202:
        assert result.json == {"id": id, "status": "in-progress"}
        await asyncio.sleep(0.02)  # slower than the limit of requests
    return result


@of_every
async def test_a_request_is_charged_at_the_vendors_price(wire: Wire, contract: Contract) -> None:
    calls: list[Values] = [{}]
    if contract.credits_by_steps is not None:
        calls += [{"steps": contract.fields["steps"].least}, {"steps": contract.fields["steps"].most}]
    for values in calls:
        await wire.send(contract, {**minimal_request(contract), **QUICK.get(contract.makes, {}), **values})
        charge = (await wire.ask("GET", "/_emulator/charges")).json["charges"][-1]
        assert charge["usd"] == pytest.approx(price(contract, values))


def price(contract: Contract, values: Values) -> float:
    """Return what a request costs, in USD."""
    if contract.usd is not None:
        return contract.usd
    if contract.credits is not None:
        return contract.credits / 100
    assert contract.credits_by_steps is not None
    base, each = contract.credits_by_steps
    return (base + each * float(values.get("steps", contract.fields["steps"].default))) / 100


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
    answer = await wire.ask("POST", f"/model/{encoded}/invoke", json=_in_json(minimal_request(contract)))
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
    others = {name for each in EVERY for name in each.fields} - {*contract.fields, *contract.open}
    for name in sorted(others):
        answer = await wire.send(contract, {**minimal_request(contract), name: 1})
        assert answer.status == 400
        check_error(answer, "ValidationException")
        if contract.unknown is not None:
            assert json.loads(answer.json["message"]) == {"detail": contract.unknown.format(name)}


@of_bedrock
async def test_bedrock_refuses_the_other_form_of_an_id(wire: Wire, contract: Contract) -> None:
    other = contract.path.removeprefix("us.") if contract.path.startswith("us.") else f"us.{contract.path}"
    answer = await wire.ask("POST", f"/model/{other}/invoke", json=_in_json(minimal_request(contract)))
    assert answer.status == 400
    check_error(answer, "ValidationException")


def _in_json(values: Values) -> Values:
    return {n: base64.b64encode(v).decode() if isinstance(v, bytes) else v for n, v in values.items()}


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
