"""LiteLLM's image function, called as its users do: ``python litellm_sdk.py URL CALLS``.

Prints microseconds of CPU a call. Run by a Python that has LiteLLM, and nothing of ours.
"""

import asyncio
import sys
import time

import litellm  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]  # its own environment's


async def main(url: str, calls: int) -> None:
    async def call() -> object:
        return await litellm.aimage_generation(
            prompt="a lighthouse on a cliff", model="stability/stable-image-core", api_key="k", api_base=url
        )

    await call()
    start = time.process_time()
    for _ in range(calls):
        await call()
    print((time.process_time() - start) / calls * 1e6)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
