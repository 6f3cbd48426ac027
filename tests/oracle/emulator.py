"""A plain HTTP client of the emulator, and how its answers are judged by the contract."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import aiohttp
import attrs
from PIL import Image

from tests.oracle.contract import STABILITY, Contract
from tests.oracle.entrances import summarize
from tests.oracle.samples import Values, invalid_requests, rules, valid_requests

JUDGED = [contract for contract in STABILITY if "emulator" not in contract.open]
QUICK: Mapping[str, Values] = {"audio": {"duration": 1}}
_keys = itertools.count()


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
            body = io.BytesIO(json.dumps(in_json(values)).encode())
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
    """Return True if an image of a request, or what is painted around it, takes long to make."""
    if sum(int(str(values.get(side, 0))) for side in ("left", "right", "up", "down")) > 1000:
        return True
    images = (values[name] for name in contract.files if name in values and contract.makes != "audio")
    return any(math.prod(Image.open(io.BytesIO(image)).size) > 2**18 for image in images if isinstance(image, bytes))


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


def price(contract: Contract, values: Values) -> float:
    """Return what a request costs, in USD."""
    if contract.usd is not None:
        return contract.usd
    if contract.credits is not None:
        return contract.credits / 100
    assert contract.credits_by_steps is not None
    base, each = contract.credits_by_steps
    return (base + each * float(values.get("steps", contract.fields["steps"].default))) / 100


def in_json(values: Values) -> Values:
    return {n: base64.b64encode(v).decode() if isinstance(v, bytes) else v for n, v in values.items()}
