"""OpenAI's client, whose pictures come as base64 in JSON and are decoded here: ``python openai_sdk.py URL CALLS``.

Prints microseconds of CPU a call. Run by a Python that has the package openai, and nothing of ours.
"""

import asyncio
import base64
import sys
import time

import openai


async def main(url: str, calls: int) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:

        async def call() -> bytes:
            answer = await client.images.generate(model="m", prompt="a lighthouse on a cliff")
            assert answer.data is not None
            return base64.b64decode(answer.data[0].b64_json or "")

        await call()
        start = time.process_time()
        for _ in range(calls):
            await call()
        print((time.process_time() - start) / calls * 1e6)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
