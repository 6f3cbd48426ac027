"""Answers with images in ``data:`` URIs among their addresses."""

from __future__ import annotations

import base64

import pytest

from impasto import ContentFiltered, Cost, UnusableResult
from tests.core.test_downloads import IMAGES, Vendor, acme, addresses, says, sizes


def in_data_uri(number: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(IMAGES[number].body).decode()}"


CUT = in_data_uri(1)[:-40]


@pytest.mark.parametrize("accepts", [True, False], ids=["job", "direct"])
async def test_an_image_in_a_data_uri_is_one_of_the_others_and_not_fetched(accepts: bool) -> None:
    urls = [in_data_uri(0), addresses(2)[1], in_data_uri(2).replace("data:image/png", "DATA:", 1), None]
    end = says(urls=urls, seeds=[5, 6, 7], usd=0.5)
    async with acme(Vendor(end, accepts)) as (client, recorder):
        result = await client.run("acme/x", prompt="a kite", n=4)
    assert sizes(result) == [8, 9, 10]
    assert [each.seed for each in result.artifacts] == [5, 6, 7]
    assert [(each.index, type(each.error)) for each in result.errors] == [(3, ContentFiltered)]
    assert result.cost == Cost(usd=0.5, as_of="2026-11-01")
    assert [each.target for each in recorder.requests if each.host == "signed_url"] == ["/1.png?sig=s1"]


@pytest.mark.parametrize("accepts", [True, False], ids=["job", "direct"])
async def test_images_in_data_uris_alone_need_no_request(accepts: bool) -> None:
    async with acme(Vendor(says(urls=[in_data_uri(0), in_data_uri(1)]), accepts)) as (client, recorder):
        result = await client.run("acme/x", prompt="a kite", n=2)
    assert sizes(result) == [8, 9]
    assert not [each for each in recorder.requests if each.host == "signed_url"]


@pytest.mark.parametrize(
    "damaged",
    ["data:image/png;base64,!", "data:image/png;base64,", "data:text/html,<b>", "data:", in_data_uri(1)[:-40]],
)
async def test_a_damaged_data_uri_loses_no_other_image(damaged: str) -> None:
    async with acme(Vendor(says(urls=[in_data_uri(0), damaged]))) as (client, _):
        result = await client.run("acme/x", prompt="a kite", n=2)
    assert sizes(result) == [8]
    assert [(each.index, type(each.error), each.error.billed) for each in result.errors] == [(1, UnusableResult, "yes")]
