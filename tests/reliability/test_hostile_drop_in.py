"""The drop-in functions against a hostile provider: the same one error, one paid request, and no key in it."""

from __future__ import annotations

import asyncio
import traceback

import pytest

import impasto
from tests.reliability.conftest import CORE
from tests.reliability.hostile import KEY
from tests.reliability.servers import PICTURE, Answer, Server, head, http, in_json, picture, raw, serving
from tests.reliability.test_hostile_answers import UNKNOWN

ECHO = f"you sent {KEY}"
ANSWERS: dict[str, Answer] = {
    **{name: answer for name, answer in UNKNOWN.items() if "stream" not in name},
    "a refusal that repeats the key": in_json({"id": ECHO, "name": ECHO, "errors": [ECHO]}, 400, x_request_id=ECHO),
    "a page that repeats the key": http(502, ECHO.encode(), content_type=f"text/{KEY}", x_request_id=ECHO),
    "an image that is cut": raw(head(200, {"content-type": "image/png"}) + PICTURE[:40], end="close"),
}
CALLS = ("aimage_generation", "image_generation", "aimage_edit", "stream")


async def call(function: str, url: str) -> object:
    where = {"model": CORE, "api_base": url, "api_key": KEY, "timeout": 20.0}
    match function:
        case "aimage_generation":
            return await impasto.aimage_generation("a kite", **where)  # type: ignore[call-overload]  # of a test
        case "image_generation":
            return await asyncio.to_thread(lambda: impasto.image_generation("a kite", **where))  # type: ignore[call-overload]
        case "aimage_edit":
            edit = {**where, "model": "stability/inpaint"}
            return await impasto.aimage_edit(PICTURE, prompt="a kite", **edit)  # type: ignore[call-overload]
        case _:
            events = await impasto.aimage_generation("a kite", stream=True, **where)
            return [each async for each in events]


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize("name", ANSWERS)
async def test_one_error_and_one_paid_request(name: str, function: str) -> None:
    async with serving(Server(posts=[ANSWERS[name], picture()])) as server:
        with pytest.raises(impasto.ImpastoError) as caught:
            await call(function, server.url)
        assert len(server.requests) == 1
    assert caught.value.billed in ("no", "yes", "unknown")
    assert (caught.value.billed == "no") == isinstance(caught.value, impasto.BadRequest)
    assert KEY[:12] not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.args)
