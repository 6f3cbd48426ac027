"""Masks are decoded one at a time, and what that takes counts against ``max_bytes_in_flight``."""

from __future__ import annotations

import asyncio
import io
from base64 import b64encode
from typing import Any

import aiohttp
import pytest
from PIL import Image

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.http.memory_budget import IMAGE_BYTES
from impasto_plugins.images import masks
from tests.images import drawn
from tests.plugins.gateway.conftest import Answer, Running, Start, config
from tests.plugins.gateway.raw import until

SIDE = 512


def body() -> dict[str, str]:
    image, mask = (b64encode(drawn("PNG", mode, (SIDE, SIDE))).decode() for mode in ("RGB", "RGBA"))
    return {"model": "erase", "image": f"data:image/png;base64,{image}", "mask": f"data:image/png;base64,{mask}"}


async def test_many_masks_are_decoded_one_at_a_time_and_their_bytes_count(
    gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, alpha = gateway.gateway._app.memory, masks._alpha
    running, most, holder = 0, 0, []

    def watched(*args: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        holder.append(flow.used_bytes)
        try:
            return alpha(*args)
        finally:
            running -= 1

    monkeypatch.setattr(masks, "_alpha", watched)
    edits = [asyncio.create_task(gateway.ask("POST", "/v1/images/edits", json=body())) for _ in range(8)]
    assert (await gateway.ask("GET", "/health/liveliness")).status == 200
    answers: list[Answer] = await asyncio.gather(*edits)
    assert [answer.status for answer in answers] == [200] * 8
    assert (most, len(holder)) == (1, 8)
    assert min(holder) >= SIDE * SIDE * 4  # its pixels as they are in memory
    await gateway.idle()
    assert flow.used_bytes == 0


async def test_a_mask_that_never_fits_is_refused_by_name(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, general="  max_bytes_in_flight: 16777216\n"))
    mask = b64encode(drawn("PNG", "RGBA", (2048, 2048))).decode()
    answer = await gateway.ask("POST", "/v1/images/edits", json={**body(), "mask": f"data:image/png;base64,{mask}"})
    assert (answer.status, answer.error["param"]) == (413, "mask")
    assert "max_bytes_in_flight" in (answer.error["message"] or "")
    assert not impasto_emulator.requests
    await gateway.idle()
    assert gateway.gateway._app.memory.used_bytes == 0


async def test_a_converted_mask_counts_until_it_is_sent(gateway: Running, impasto_emulator: Emulator) -> None:
    """As an upload it is on the disk, and converted in memory: 24 of them took 216 MB that nobody had counted."""
    mask = Image.effect_noise((1500, 1500), 120).convert("RGBA")
    mask.putalpha(Image.effect_noise(mask.size, 120))
    upload = io.BytesIO()
    mask.save(upload, "PNG", compress_level=1)
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("model", "erase")
    form.add_field("image", drawn("PNG", size=(SIDE, SIDE)), filename="a.png")
    form.add_field("mask", io.BytesIO(upload.getvalue()), filename="mask.png")
    impasto_emulator.fault("delay", seconds=0.5)
    edit = asyncio.create_task(gateway.ask("POST", "/v1/images/edits", data=form))
    await until(lambda: bool(impasto_emulator.requests))
    used = gateway.gateway._app.memory.used_bytes
    assert (await edit).status == 200
    assert used > IMAGE_BYTES + impasto_emulator.requests[0].files["mask"].bytes > IMAGE_BYTES + 1_500_000
    await gateway.idle()
    assert gateway.gateway._app.memory.used_bytes == 0
