"""Bedrock's API keys in a configuration: each deployment has its own; LiteLLM's ``model_id`` and bare base models."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from impasto import ConfigError
from tests.bedrock import pictured
from tests.plugins.gateway.conftest import Start, config
from tests.recorder import Recorder

ARN = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc"
CORE = "bedrock/stability.stable-image-core-v1:1"


def entry(name: str, base: str, **params: str) -> str:
    reach = {"aws_region_name": "us-west-2", "aws_bedrock_runtime_endpoint": base, **params}
    lines = "".join(f"      {key}: {value}\n" for key, value in reach.items())
    return f"  - model_name: {name}\n    litellm_params:\n{lines}"


async def test_two_deployments_have_two_keys(start: Start, recorder: Recorder) -> None:
    recorder.answer = lambda seen: pictured()
    entries = "".join(entry("core", recorder.url, model=CORE, api_key=f"bedrock-key-{n}") for n in (1, 2))
    gateway = await start(config(recorder.url, entries=entries))
    for _ in range(40):  # which of two that are idle is chosen by chance
        assert (await gateway.generate(model="core")).status == 200
        if len({seen.header("authorization") for seen in recorder.seen}) == 2:
            break
    assert {seen.header("authorization") for seen in recorder.seen} == {"Bearer bedrock-key-1", "Bearer bedrock-key-2"}


@pytest.mark.parametrize(
    "params",
    [
        {"model": CORE, "model_id": ARN},
        {"model": f"bedrock/{ARN}", "base_model": "stability.stable-image-core-v1:1"},
        {"model": f"bedrock/{ARN}", "base_model": CORE},
    ],
    ids=["model_id", "bare base_model", "base_model"],
)
async def test_an_arn_is_called(start: Start, recorder: Recorder, params: dict[str, str]) -> None:
    recorder.answer = lambda seen: pictured()
    entries = entry("core", recorder.url, api_key="bedrock-key", **params)
    gateway = await start(config(recorder.url, entries=entries))
    answer = await gateway.generate(model="core")
    assert answer.status == 200, answer.body
    assert unquote(recorder.seen[-1].path) == f"/model/{ARN}/invoke"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"model": CORE, "model_id": "my-model"}, "model_id: takes an ARN"),
        ({"model": "stability/sd3", "model_id": ARN}, "model_id: takes an ARN"),
        ({"model": f"bedrock/{ARN}"}, "give base_model"),
        ({"model": CORE, "aws_access_key_id": "a", "aws_secret_access_key": "s"}, "two ways to sign in"),
    ],
)
async def test_what_can_not_be_is_found_at_the_start(
    start: Start, recorder: Recorder, params: dict[str, str], said: str
) -> None:
    entries = entry("core", recorder.url, api_key="bedrock-key", **params)
    with pytest.raises(ConfigError, match=said) as caught:
        await start(config(recorder.url, entries=entries))
    assert "bedrock-key" not in str(caught.value)
