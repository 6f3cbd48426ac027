"""AzureOpenAI clients as they are: Azure's paths and its key header."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.gateway.conftest import MASTER, Running

VERSION = "2025-04-01-preview"


@pytest.fixture(params=["endpoint", "deployment", "base_url"])
def azure(request: pytest.FixtureRequest, standing: Running) -> openai.AsyncAzureOpenAI:
    """Azure's client, told in each of its ways where it is."""
    where: dict[str, Any] = {
        "endpoint": {"azure_endpoint": standing.url},
        "deployment": {"azure_endpoint": standing.url, "azure_deployment": "core"},
        "base_url": {"base_url": f"{standing.url}/v1"},
    }[request.param]
    client: openai.AsyncAzureOpenAI = openai.AsyncAzureOpenAI(
        api_key=MASTER, api_version=VERSION, max_retries=0, **where
    )
    return client


async def test_azures_client_makes_and_edits_images(azure: openai.AsyncAzureOpenAI, impasto_emulator: Emulator) -> None:
    async with azure:
        response = await azure.images.generate(prompt="a boat", model="core", n=1)
        assert response.data is not None
        if azure._azure_deployment is None:
            await azure.images.edit(prompt="a boat", model="erase", image=png(96, 96))
    targets = [each.target for each in impasto_emulator.requests]
    assert targets[0] == "/v2beta/stable-image/generate/core"
    assert targets[1:] in ([], ["/v2beta/stable-image/edit/erase"])


async def test_azures_client_lists_models_and_files(azure: openai.AsyncAzureOpenAI) -> None:
    async with azure:
        assert "core" in {each.id async for each in azure.models.list()}
        file = await azure.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
        assert file.id in {each.id async for each in azure.files.list(limit=100)}
        assert [each.id async for each in azure.batches.list(limit=1)] == []
        await azure.files.delete(file.id)


async def test_the_path_names_the_model(standing: Running, impasto_emulator: Emulator) -> None:
    for body in ({}, {"model": "dall-e-3"}, {"model": None}):
        path = f"/openai/deployments/core/images/generations?api-version={VERSION}"
        answer = await standing.ask("POST", path, json={"prompt": "p", **body})
        assert answer.status == 200, answer.body
    assert {each.target for each in impasto_emulator.requests} == {"/v2beta/stable-image/generate/core"}


@pytest.mark.parametrize("model", ["nothing", "a/b", "a%2Fb"])
async def test_a_deployment_that_is_none(standing: Running, model: str) -> None:
    answer = await standing.ask("POST", f"/openai/deployments/{model}/images/generations", json={"prompt": "p"})
    assert (answer.status, answer.error["code"]) in ((404, "model_not_found"), (404, "unknown_url"))


async def test_azures_newer_paths(standing: Running) -> None:
    async with openai.AsyncOpenAI(
        api_key=MASTER, base_url=f"{standing.url}/openai/v1", default_query={"api-version": "preview"}
    ) as client:
        assert (await client.images.generate(prompt="a boat", model="core")).data
        assert "core" in {each.id async for each in client.models.list()}
