"""The ways into impasto, each with one method: send a request, and return what was refused.

Only the surface is used: ``import impasto``, the ``impasto`` command, and HTTP.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import aiohttp
import attrs

import impasto
from tests.oracle.contract import Contract
from tests.oracle.recording import Provider
from tests.oracle.samples import Values, invalid_requests, minimal_request, rules, valid_requests
from tests.oracle.wire import ACCESS_KEY, KEY, REGION, SECRET_KEY, check, check_poll, media_type

Names = frozenset[str]
AWS = {"aws_region_name": REGION, "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}


class Entrance(Protocol):
    """One way in."""

    @property
    def provider(self) -> Provider:
        """What stands in for the providers."""
        ...

    async def send(self, contract: Contract, values: Values) -> Names:
        """Return the names of the fields that were refused; none if the request was taken."""
        ...

    def adapt(self, contract: Contract, values: Values) -> Values | None:
        """Return what this way in can say of a request; None if it has no words for it."""
        ...


def client_of(provider: Provider) -> impasto.Client:
    """Make a client whose providers are the stand-in."""
    return impasto.Client(
        api_key=KEY,
        api_base=provider.url,
        aws_region=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        bedrock_endpoint=provider.url,
        poll_interval=0.01,
        retry=impasto.Retry(attempts=1, refused=0),
    )


@attrs.frozen
class Run:
    """``client.run``."""

    client: impasto.Client
    provider: Provider

    async def send(self, contract: Contract, values: Values) -> Names:
        try:
            await self.client.run(contract.model, **values)
        except impasto.InvalidRequest as error:
            return frozenset(problem.field for problem in error.problems)
        return frozenset()

    def adapt(self, contract: Contract, values: Values) -> Values:
        return values


@attrs.frozen
class Functions:
    """The drop-in functions ``aimage_generation`` and ``aimage_edit``. They make images, and refuse a blank prompt."""

    provider: Provider

    async def send(self, contract: Contract, values: Values) -> Names:
        function = impasto.aimage_edit if is_edit(contract, values) else impasto.aimage_generation
        settings: dict[str, Any] = {"api_key": KEY, "api_base": self.provider.url}
        if contract.provider == "bedrock":
            settings = {**AWS, "aws_bedrock_runtime_endpoint": self.provider.url}
        try:
            await function(model=contract.model, **settings, **values)
        except impasto.InvalidRequest as error:
            return _field_names(contract, (problem.field for problem in error.problems))
        return frozenset()

    def adapt(self, contract: Contract, values: Values) -> Values | None:
        return None if values.get("prompt") == "" else values


@attrs.frozen
class Gateway:
    """HTTP requests to ``impasto serve``: JSON if no file is sent, else a form, in which an empty field is not given.

    It refuses a blank prompt.
    """

    provider: Provider
    url: str
    session: aiohttp.ClientSession

    async def send(self, contract: Contract, values: Values) -> Names:
        files = {name for name, value in values.items() if isinstance(value, bytes)}
        path = {"image": "images/generations", "audio": "audio/generations", "3d": "3d/generations"}[contract.makes]
        if contract.makes == "image" and is_edit(contract, values):
            path = "images/edits"
        fields = {"model": contract.model, **values}
        body: dict[str, Any] = {"data": form_of(fields)} if files else {"json": fields}
        async with self.session.post(f"{self.url}/v1/{path}", **body) as response:
            answer = await response.json()
        if response.status == 200:
            return frozenset()
        assert response.status == 400, answer
        error = answer["error"]
        names = {name for name in contract.fields if re.search(rf"(^|[:;] ){name}: ", error["message"])}
        return _field_names(contract, {*names, error["param"]})

    def adapt(self, contract: Contract, values: Values) -> Values | None:
        if values.get("prompt") == "":
            return None
        is_form = any(isinstance(value, bytes) for value in values.values())
        others = {name: value for name, value in values.items() if value != ""}
        return {**minimal_request(contract), **others} if is_form and "" in values.values() else values


def _field_names(contract: Contract, names: Iterable[str]) -> Names:
    """Return the model's own names, for which OpenAI's callers say "image" and "prompt"."""
    words = {"image": next(iter(contract.files), "image"), "prompt": "background_prompt"}
    return frozenset(name if name in contract.fields else words.get(name, name) for name in names)


@attrs.frozen
class Batch:
    """``client.batch``: a row of a manifest, in which a file is a ``data:`` URI."""

    client: impasto.Client
    provider: Provider

    async def send(self, contract: Contract, values: Values) -> Names:
        [outcome] = [each async for each in self.client.batch([row("one", contract, values)])]
        if isinstance(outcome.error, impasto.InvalidRequest):
            return frozenset(problem.field for problem in outcome.error.problems)
        assert outcome.state == "done", outcome
        return frozenset()

    def adapt(self, contract: Contract, values: Values) -> Values:
        return values


def is_edit(contract: Contract, values: Values) -> bool:
    """Return True if OpenAI's callers would ask for an edit: an image is given, or must be."""
    return any(contract.fields[name].required for name in contract.files) or any(
        name in values for name in contract.files
    )


def row(id: str, contract: Contract, values: Values) -> dict[str, object]:
    """Return a row of a manifest in the short form."""
    return {"id": id, "model": contract.model, **{name: _in_json(value) for name, value in values.items()}}


def _in_json(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    kind = media_type(value) if value[:1] != b"G" and value[:2] != b"II" and value[:1] != b"<" else "image/png"
    return f"data:{kind};base64,{base64.b64encode(value).decode()}"


def form_of(values: Mapping[str, object]) -> aiohttp.FormData:
    """Return a multipart form: bytes are files, all else is text."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in values.items():
        if isinstance(value, bytes):
            form.add_field(name, value, filename=f"{name}.png", content_type="application/octet-stream")
        else:
            form.add_field(name, value if isinstance(value, str) else json.dumps(value))
    return form


def summarize(values: Values) -> dict[str, object]:
    """Return a request as a failure shows it."""
    return {name: f"<{len(v)}>" if isinstance(v, str | bytes) and len(v) > 60 else v for name, v in values.items()}


async def judge(entrance: Entrance, contract: Contract) -> None:
    """Fail if a request at a bound is not taken as it is, or one beyond a bound is not refused by name."""
    for each in valid_requests(contract):
        if (values := entrance.adapt(contract, each)) is not None:
            await _judge_valid(entrance, contract, values, values)
    for wrong in invalid_requests(contract):
        if entrance.adapt(contract, wrong.values) == wrong.values:
            await _judge_invalid(entrance, contract, wrong.values, wrong.names)
    for _, values, names, implies, _ in rules(contract):
        if names:
            await _judge_invalid(entrance, contract, values, names)
        else:
            await _judge_valid(entrance, contract, values, {**values, **implies})


async def _judge_invalid(entrance: Entrance, contract: Contract, values: Values, names: tuple[str, ...]) -> None:
    entrance.provider.clear()
    actual = await entrance.send(contract, values)
    assert actual == {*names}, f"refused are {sorted(actual)}, not {sorted(names)}, of {summarize(values)}"
    assert not entrance.provider.requests, f"{summarize(values)} was sent"


async def _judge_valid(entrance: Entrance, contract: Contract, values: Values, expected: Values) -> None:
    provider = entrance.provider
    provider.clear()
    names = await entrance.send(contract, values)
    assert not names, f"{sorted(names)} were refused of {summarize(values)}"
    post, *polls = provider.requests
    check(contract, expected, post)
    assert len(polls) == (contract.results is not None)
    for poll in polls:
        check_poll(contract, poll)
