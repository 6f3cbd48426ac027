"""A job with values that its provider chose and its plugin passed on: no interval, id or number breaks a call."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from impasto import (
    ChargeUnknown,
    ContentFiltered,
    Download,
    FailedArtifact,
    Operation,
    Pending,
    Request,
    Result,
    UnusableResult,
    WireRequest,
    WireResponse,
)
from impasto.dialects import image_in_body
from impasto_plugins.images.completeness import is_complete
from tests.images import png
from tests.reliability.hostile import KEY, MODEL, PICTURE, Dialect, attacked, by_path, operation
from tests.reliability.servers import Answer, http, in_json

STATUS = WireRequest(target="/status", method="GET")
IMAGES = [png(8, 8), png(16, 16), png(24, 24)]


@attrs.frozen
class Accepting(Dialect):
    """Each answer in JSON is the job."""

    pending: Any

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Any:
        return image_in_body(response, is_complete) if response.media_type == "image/png" else self.pending


def accepting(*polls: Answer, poll_interval: float | None = None, timeout: float = 2.0, **pending: Any) -> Any:
    left = [*polls]

    async def status(request: Any, wire: Any) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, wire)

    images = [http(200, each, content_type="image/png") for each in IMAGES]
    answers = by_path(status=status, a=images[0], b=images[1], c=images[2])
    model = operation(Accepting(Pending(**{"id": "j1", "poll": STATUS, **pending})))
    return attacked(in_json({}), answers, model=model, poll_interval=poll_interval, timeout=timeout)


@pytest.mark.parametrize("interval", [float("nan"), -1.0, "1", True, float("inf")])
async def test_an_invalid_interval_is_that_of_the_provider(interval: Any) -> None:
    async with accepting(PICTURE, interval=interval, first=interval) as (client, server):
        assert len((await client.run(MODEL, prompt="a kite")).artifacts) == 1
        assert len(server.polled) == 1


async def test_an_interval_of_nothing_does_not_poll_without_a_pause() -> None:
    async with accepting(in_json({}), interval=0.0, timeout=0.5) as (client, server):
        with pytest.raises(ChargeUnknown, match="job j1 continues"):
            await client.run(MODEL, prompt="a kite")
        assert len(server.polled) < 60


@pytest.mark.parametrize("id", [7, None, b"j1", "", "x" * 100_001])
async def test_an_accepted_job_without_a_usable_id_is_an_unusable_answer(id: Any) -> None:
    async with accepting(PICTURE, id=id) as (client, server):
        with pytest.raises(UnusableResult, match="must be text of 1 to 100,000 characters") as caught:
            await client.run(MODEL, prompt="a kite")
        assert (caught.value.billed, len(server.requests)) == ("yes", 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("poll", "wrong"),
        ("downloads", "wrong"),
        ("downloads", ("wrong",)),
        ("downloads", [Download(request=STATUS)]),
        ("errors", "wrong"),
        ("errors", ("wrong",)),
        ("errors", [FailedArtifact(index=0, error=ContentFiltered("not this"))]),
    ],
)
async def test_a_job_of_wrong_types_is_an_unusable_answer(field: str, value: object) -> None:
    wrong: Any = {field: value}
    async with accepting(PICTURE, **wrong) as (client, server):
        with pytest.raises(UnusableResult, match="plugin"):
            await client.run(MODEL, prompt="a kite")
        assert len(server.requests) == 1


async def test_a_time_to_live_of_a_wrong_type_hides_no_missing_job() -> None:
    missing = in_json({"error": {"message": "unknown"}}, 404)
    async with accepting(missing, result_ttl="1", interval=0.01) as (client, _):
        with pytest.raises(ChargeUnknown, match="the provider no longer knows job j1"):
            await client.run(MODEL, prompt="a kite")


async def test_images_of_one_number_are_all_fetched() -> None:
    """A plugin that forgets to number its downloads loses none of them."""
    downloads = tuple(Download(request=WireRequest(target=f"/{name}", method="GET")) for name in "abc")
    failed = (FailedArtifact(index=0, error=ContentFiltered(f"not this, {KEY}")),)
    async with accepting(PICTURE, poll=None, downloads=downloads, errors=failed) as (client, _):
        result: Result = await client.run(MODEL, prompt="a kite")
    assert [each.data for each in result.artifacts] == IMAGES
    assert [type(each.error) for each in result.errors] == [ContentFiltered]
    assert KEY not in str(result.errors[0].error)


async def test_a_download_of_wrong_types_fails_alone() -> None:
    wrong: Any = (Download(request="/a", index=0), Download(request=WireRequest(target="/b", method="GET"), index="1"))  # type: ignore[arg-type]
    async with accepting(PICTURE, poll=None, downloads=wrong) as (client, _):
        with pytest.raises(UnusableResult, match="plugin"):
            await asyncio.wait_for(client.run(MODEL, prompt="a kite"), 5)
