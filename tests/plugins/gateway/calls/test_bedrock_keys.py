"""Bedrock's API keys in a configuration: each deployment has its own; LiteLLM's ``model_id`` and bare base models."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from impasto import ConfigError
from tests.bedrock import failed, pictured
from tests.plugins.gateway.conftest import Start, config
from tests.recorder import Answer, ReceivedRequest, Recorder

ARN = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc"
CORE = "bedrock/stability.stable-image-core-v1:1"


def entry(name: str, base: str, **params: str) -> str:
    reach = {"aws_region_name": "us-west-2", "aws_bedrock_runtime_endpoint": base, **params}
    lines = "".join(f"      {key}: {value}\n" for key, value in reach.items())
    return f"  - model_name: {name}\n    litellm_params:\n{lines}"


async def test_two_deployments_have_two_keys(start: Start, recorder: Recorder) -> None:
    recorder.answer = lambda request: pictured()
    entries = "".join(entry("core", recorder.url, model=CORE, api_key=f"bedrock-key-{n}") for n in (1, 2))
    gateway = await start(config(recorder.url, entries=entries))
    for _ in range(40):  # which of two that are idle is chosen by chance
        assert (await gateway.generate(model="core")).status == 200
        if len({request.header("authorization") for request in recorder.requests}) == 2:
            break
    assert {request.header("authorization") for request in recorder.requests} == {
        "Bearer bedrock-key-1",
        "Bearer bedrock-key-2",
    }


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
    recorder.answer = lambda request: pictured()
    entries = entry("core", recorder.url, api_key="bedrock-key", **params)
    gateway = await start(config(recorder.url, entries=entries))
    answer = await gateway.generate(model="core")
    assert answer.status == 200, answer.body
    assert unquote(recorder.requests[-1].path) == f"/model/{ARN}/invoke"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": CORE, "model_id": "my-model"}, "model_id: must be an ARN"),
        ({"model": "stability/sd3", "model_id": ARN}, "model_id: must be an ARN"),
        ({"model": f"bedrock/{ARN}"}, "give base_model"),
        ({"model": CORE, "aws_access_key_id": "a", "aws_secret_access_key": "s"}, "two ways to sign in"),
    ],
)
async def test_contradictory_settings_are_found_at_the_start(
    start: Start, recorder: Recorder, params: dict[str, str], message: str
) -> None:
    entries = entry("core", recorder.url, api_key="bedrock-key", **params)
    with pytest.raises(ConfigError, match=message) as caught:
        await start(config(recorder.url, entries=entries))
    assert "bedrock-key" not in str(caught.value)


@pytest.mark.parametrize("code", ["ThrottlingException", "ModelNotReadyException", "TooManyRequestsException"])
async def test_a_throttled_deployment_is_stood_in_for_at_once(start: Start, recorder: Recorder, code: str) -> None:
    """One request each: nobody waits for a model that is throttled while another is free."""

    def answer(request: ReceivedRequest) -> Answer:
        return failed(code, 429) if request.header("authorization") == "Bearer bedrock-key-1" else pictured()

    recorder.answer = answer
    entries = "".join(entry("core", recorder.url, model=CORE, api_key=f"bedrock-key-{n}") for n in (1, 2))
    gateway = await start(config(recorder.url, entries=entries))
    for _ in range(40):
        recorder.requests.clear()
        assert (await gateway.generate(model="core")).status == 200
        keys = [request.header("authorization") for request in recorder.requests]
        assert keys[-1] == "Bearer bedrock-key-2"
        assert len(keys) == len(set(keys)), "the throttled one was not asked twice"
        if len(keys) == 2:
            break
    else:
        pytest.fail("the throttled one was never first")


async def test_a_deployment_alone_is_tried_again_after_a_throttle(start: Start, recorder: Recorder) -> None:
    answers = [failed("ThrottlingException", 429)]
    recorder.answer = lambda request: answers.pop() if answers else pictured()
    entries = entry("core", recorder.url, model=CORE, api_key="bedrock-key")
    gateway = await start(config(recorder.url, entries=entries))
    assert (await gateway.generate(model="core")).status == 200
    assert len(recorder.requests) == 2
