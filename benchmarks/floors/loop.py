"""What somebody writes who calls the provider by hand, with aiohttp and nothing else."""

from __future__ import annotations

import base64
from pathlib import Path

import aiohttp

KEY = "sk-benchmark"


def session() -> aiohttp.ClientSession:
    """One session, no limit of connections, the time-out that ours has."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=300.0, sock_connect=120.0)
    )


async def post(
    session: aiohttp.ClientSession,
    url: str,
    fields: dict[str, str],
    *,
    accept: str = "image/*",
    image: Path | None = None,
) -> bytes:
    """One call; the picture."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    if image is not None:
        form.add_field("image", image.open("rb"), filename="image.png", content_type="image/png")
    headers = {"authorization": f"Bearer {KEY}", "accept": accept}
    async with session.post(url, data=form, headers=headers, allow_redirects=False) as response:
        response.raise_for_status()
        if accept == "application/json":
            answer = await response.json()
            return base64.b64decode(answer["image"])
        return await response.read()
