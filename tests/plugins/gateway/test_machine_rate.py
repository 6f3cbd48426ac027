"""One rate limit for all workers of a gateway and the batches beside it, as the provider counts them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.plugins.gateway.conftest import MASTER, Serve, sdk_client
from tests.reliability.servers import ServedRequest, Server, Wire, picture, refused
from tests.reliability.test_rates import most_in

REQUESTS, SECONDS = 6, 2.0


class Strict:
    """A provider that refuses what is beyond its limit, as the vendor does."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.is_exceeded = False

    async def __call__(self, request: ServedRequest, wire: Wire) -> None:
        self.times.append(request.at)
        self.is_exceeded |= most_in(self.times, SECONDS) > REQUESTS
        await (refused(429, "rate_limit_exceeded") if self.is_exceeded else picture())(request, wire)


async def test_workers_and_a_batch_share_the_limit_of_their_key(provider: Server, serve: Serve, tmp_path: Path) -> None:
    strict = Strict()
    provider.posts = [strict]
    config = f"""
model_list:
  - model_name: sd3
    litellm_params:
      model: stability/sd3.5-large
      api_key: sk-shared
      api_base: {provider.url}
      rate_limit: {REQUESTS}/{SECONDS:g}s
general_settings:
  master_key: {MASTER}
"""
    manifest = tmp_path / "rows.jsonl"
    rows = [{"id": f"r{number}", "model": "stability/sd3.5-large", "prompt": "p"} for number in range(6)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    process, url = await asyncio.to_thread(serve, config, "--workers", "2")

    async def call() -> int:
        async with sdk_client(url) as sdk:  # a socket each
            return len((await sdk.images.generate(model="sd3", prompt="p")).data or ())

    command = ["-m", "impasto", "batch", "run", str(manifest), "--out", str(tmp_path / "out")]
    batch = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--rate",
        f"{REQUESTS}/{SECONDS:g}s",
        env={**os.environ, "STABILITY_API_KEY": "sk-shared", "STABILITY_API_BASE": provider.url},
    )
    assert await asyncio.gather(*(call() for _ in range(12))) == [1] * 12
    assert await batch.wait() == 0
    assert len(strict.times) == 18
    assert not strict.is_exceeded
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0
