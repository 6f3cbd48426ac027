"""A client in another process: a pickle of its settings, as Ray, Dask and process pools send it."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

import impasto
from impasto_plugins.emulator import Emulator

CORE = "stability/stable-image-core"


async def generate(client: impasto.Client) -> str:
    async with client:
        return (await client.run(CORE, prompt="p")).artifacts[0].media_type


def run_there(client: impasto.Client) -> str:
    return asyncio.run(generate(client))


async def test_a_client_that_is_in_use_works_in_a_process_of_its_own(impasto_emulator: Emulator) -> None:
    async with impasto.Client(api_key="sk-code", api_base=impasto_emulator.url, timeout=30) as client:
        await client.run(CORE, prompt="p")
        sibling = client.with_options(retry=impasto.Retry(attempts=1))
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            loop = asyncio.get_running_loop()
            for each in (client, sibling):
                assert await loop.run_in_executor(pool, run_there, each) == "image/png"
        await client.run(CORE, prompt="p")
    assert len(impasto_emulator.charges) == 4


def test_a_key_of_the_environment_is_not_in_the_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABILITY_API_KEY", "sk-canary-environment")
    data = pickle.dumps(impasto.Client(timeout=7))
    assert b"canary" not in data
    assert b"canary" in pickle.dumps(impasto.Client(api_key="sk-canary-code")), "one that is given in code has to be"
    assert pickle.loads(data)._options.timeout == 7


def test_a_client_with_a_registry_is_refused_in_plain_words() -> None:
    with pytest.raises(TypeError, match="its own registry can't be pickled"):
        pickle.dumps(impasto.Client(registry=impasto.Registry(discover=False)))
