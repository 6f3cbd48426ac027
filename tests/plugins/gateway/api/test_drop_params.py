"""``drop_params`` of the gateway: names that say where a call goes are refused by every entrance, however spelt."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.batches.conftest import finish, line, submit
from tests.plugins.gateway.conftest import Answer, Running, Start, config

SPELLINGS = ("api_base", "API_BASE", "Api-Key", "baseURL", "extra-headers", "Proxy", "TIMEOUT", "AWS_REGION_NAME")


@pytest.fixture
async def gateway(start: Start, impasto_emulator: Emulator) -> Running:
    """A gateway that drops what a model has no field for."""
    return await start(config(impasto_emulator.url, more="litellm_settings:\n  drop_params: true\n"))


async def sent(gateway: Running, way: str, fields: dict[str, Any]) -> Answer:
    """Send a request's fields in one of the ways in which clients do."""
    path = "/v1/images/generations"
    match way:
        case "json":
            return await gateway.ask("POST", path, json=fields)
        case "extra_body":
            model, prompt = fields.pop("model"), fields.pop("prompt")
            return await gateway.ask("POST", path, json={"model": model, "prompt": prompt, "extra_body": fields})
        case _:
            return await gateway.ask("POST", path, data=aiohttp.FormData(fields, default_to_multipart=True))


@pytest.mark.parametrize("way", ["json", "extra_body", "form"])
async def test_a_name_that_says_where_a_call_goes_is_refused(
    gateway: Running, impasto_emulator: Emulator, way: str
) -> None:
    for word in SPELLINGS:
        answer = await sent(gateway, way, {"model": "core", "prompt": "p", word: "x", "nonsense": "x"})
        assert (answer.status, answer.error["param"]) == (400, word), answer.body
    assert not impasto_emulator.requests


async def test_a_line_of_a_batch_with_such_a_name_is_refused(gateway: Running, impasto_emulator: Emulator) -> None:
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line(word, **{word: "x"}) for word in SPELLINGS]))
    assert batch.errors is not None
    assert [(each.line, each.param) for each in batch.errors.data or []] == [*enumerate(SPELLINGS, 1)]
    assert not impasto_emulator.requests
