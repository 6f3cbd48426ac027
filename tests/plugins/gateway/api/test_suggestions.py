"""An unknown model's closest names, among those that the key may use."""

from __future__ import annotations

import pytest

from tests.plugins.gateway.conftest import Running


@pytest.mark.parametrize(("model", "closest"), [("cores", "core"), ("stability/core", "core"), ("Erase", "erase")])
async def test_the_closest_names_are_named(standing: Running, model: str, closest: str) -> None:
    answer = await standing.ask("POST", "/v1/images/generations", json={"prompt": "p", "model": model})
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert f"closest: {closest}" in str(answer.error["message"])


async def test_if_none_is_near_the_list_is_pointed_to(standing: Running) -> None:
    answer = await standing.ask("POST", "/v1/images/generations", json={"prompt": "p", "model": "zz/qq-7"})
    assert str(answer.error["message"]).endswith("or this key may not use it; see GET /v1/models")
