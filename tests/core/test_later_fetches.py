"""Images whose host refuses them: the errors lead back to them, for nothing."""

from __future__ import annotations

import pytest

from impasto import ChargeUnknown
from tests.core.test_downloads import GONE, SIZES, Vendor, acme, addresses, says, sizes


@pytest.mark.parametrize(("urls", "missing", "count"), [((0, 1, 2), 2, 3), ((0, None, 2), 2, 3), ((0, 1, 2), None, 3)])
@pytest.mark.parametrize("accepts", [True, False], ids=["job", "direct"])
async def test_images_whose_host_refuses_them_are_fetched_later_at_their_places(
    urls: tuple[int | None, ...], missing: int | None, count: int, accepts: bool
) -> None:
    answer = says(urls=[None if i is None else addresses(3)[i] for i in urls])
    vendor = Vendor(answer, accepts, images=dict.fromkeys(range(3) if missing is None else [missing], GONE))
    async with acme(vendor) as (client, recorder):
        try:
            result = await client.run("acme/x", prompt="a kite", n=count)
            error = next(each.error for each in result.errors if each.index == missing)
        except ChargeUnknown as all_of_them:
            error = all_of_them
        assert (type(error), error.billed) == (ChargeUnknown, "yes")
        assert error.id is not None
        vendor.images.clear()
        resumed = await client.resume("acme/x", error.id, n=error.count)
        job = (
            "job-1"
            if accepts
            else " ".join(
                "_" if i is None else addresses(3)[i].format(signed_url=recorder.urls["signed_url"]) for i in urls
            )
        )
        whole = await client.resume("acme/x", job, n=count)
    is_alone = missing is not None and not accepts
    came = [SIZES[i][1] for i in urls if i is not None]
    assert sizes(resumed) == ([SIZES[2][1]] if is_alone else came)
    assert sizes(whole) == came
    assert [each.index for each in whole.errors] == [i for i, url in enumerate(urls) if url is None]
    assert len(recorder.posts) == 1
