"""Settings that a third party's provider declares: in the configuration, and in the drop-in functions.

``api_version`` is a word of LiteLLM's that is refused for other providers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import impasto
from impasto import InvalidRequest
from impasto.registry import OPERATIONS
from impasto.testing import Answer, Recorder, recording
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.distributions import ACME, install
from tests.images import png
from tests.plugins.gateway.conftest import Start, config, entry

CLOUD = (
    ACME.replace('key_prefix=""', 'key_prefix="", settings=("project", "api_version")')
    + """
class Cloud(Dialect):
    def transform_request(self, operation, request, account):
        wire = super().transform_request(operation, request, account)
        place = "/{project}/{api_version}".format_map({"api_version": "eu", **account.settings})
        return attrs.evolve(wire, target=place + request.target)


paint = attrs.evolve(paint, dialect=Cloud())
"""
)


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Recorder]:
    install(tmp_path, "Acme_Cloud", {OPERATIONS: {"acme/cloud": "acme_cloud:paint"}}, {"acme_cloud": CLOUD})
    monkeypatch.syspath_prepend(tmp_path)
    async with recording(lambda _: Answer(headers={"content-type": "image/png"}, body=png(64, 64))) as recorder:
        yield recorder


def entries(cloud: Recorder, *params: str) -> str:
    return entry("paint", "acme/cloud", cloud.url) + "".join(f"      {each}\n" for each in params)


async def test_a_deployments_settings_reach_its_provider(
    start: Start, cloud: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_PLACE", "us")
    two = entries(cloud, "project: kites", "api_version: os.environ/ACME_PLACE", "steps: 7")
    two += entries(cloud, "project: boats").replace("paint", "other")
    gateway = await start(config("", entries=two))
    for model in ("paint", "other"):
        answer = await gateway.generate(model=model)
        assert answer.status == 200, answer.body
    assert [each.target for each in cloud.posts] == ["/kites/us/paint", "/boats/eu/paint"]
    assert b'name="project"' not in cloud.posts[0].body


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("project: 7", "project of acme must be text, not a whole number"),
        ('project: ""', "project of acme must be text, not empty"),
        (
            "projct: kites",
            "projct: is not a setting of a deployment, nor a parameter of this model; did you mean project?",
        ),
        ("project: os.environ/ACME_NOT_SET", "ACME_NOT_SET"),
    ],
)
async def test_a_wrong_setting_is_reported_once_with_its_line(cloud: Recorder, param: str, message: str) -> None:
    with pytest.raises(impasto.ConfigError) as caught:
        async with Gateway(parse(config("", entries=entries(cloud, param)).encode())):
            pass
    assert message in str(caught.value)
    assert str(caught.value).count("line 7") == 1, caught.value


async def test_the_drop_in_functions_take_them_too(cloud: Recorder) -> None:
    call: dict[str, Any] = {"model": "acme/cloud", "api_base": cloud.url, "api_key": "any"}
    await impasto.aimage_generation("a kite", project="kites", **call)
    await impasto.aimage_generation("a kite", project="kites", api_version="us", **call)
    assert [each.target for each in cloud.posts] == ["/kites/eu/paint", "/kites/us/paint"]
    with pytest.raises(InvalidRequest, match="projct"):
        await impasto.aimage_generation("a kite", projct="kites", **call)
    assert len(cloud.posts) == 2
