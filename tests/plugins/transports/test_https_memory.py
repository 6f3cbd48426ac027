"""What a call held is let go of when it ends."""

import gc

import impasto
from tests.images import padded


async def test_a_call_is_released_at_its_end(client: impasto.Client) -> None:
    await client.run("stability/upscale-fast", image=padded(100_000))
    gc.collect()
    before = sum(isinstance(each, impasto.Call | impasto.File) for each in gc.get_objects())
    for _ in range(10):
        await client.run("stability/upscale-fast", image=padded(100_000))
    gc.collect()
    assert sum(isinstance(each, impasto.Call | impasto.File) for each in gc.get_objects()) <= before
