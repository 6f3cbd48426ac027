"""A gateway whose configuration names models that a plugin's resolver finds."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from impasto.registry import OPERATIONS
from impasto_plugins.cli.main import main
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.distributions import ACME, install
from tests.recorder import Recorder

MODULE = ACME + "\ndef find(model):\n    return attrs.evolve(paint, id=model) if model != 'acme/none' else None\n"
CONFIG = """
model_list:
  - model_name: paint
    litellm_params:
      model: acme/{model}
      api_key: acme-key
      api_base: {base}
general_settings:
  master_key: sk-1234
"""


@pytest.fixture(autouse=True)
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme-resolved", {OPERATIONS: {"acme/*": "acme_resolved:find"}}, {"acme_resolved": MODULE})
    monkeypatch.syspath_prepend(str(tmp_path))


async def test_a_model_of_a_resolver_is_listed_and_called(recorder: Recorder) -> None:
    config = parse(CONFIG.format(model="new", base=recorder.url).encode(), environment={})
    headers = {"authorization": "Bearer sk-1234"}
    async with Gateway(config, port=0) as gateway, aiohttp.ClientSession(gateway.url, headers=headers) as http:
        async with http.get("/v1/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["paint"]
        async with http.post("/v1/images/generations", json={"model": "paint", "prompt": "a barn"}) as answer:
            assert answer.status == 200, await answer.text()
            assert len((await answer.json())["data"]) == 1


@pytest.mark.parametrize(("model", "code"), [("new", 0), ("none", 2)])
def test_check_asks_the_resolver(tmp_path: Path, model: str, code: int) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(model=model, base="http://127.0.0.1:9"))
    result = CliRunner().invoke(main, ["serve", "--config", str(path), "--check"])
    assert result.exit_code == code, result.output
    assert ("unknown model 'acme/none'; the resolver 'acme/*' has no model of this name" in result.output) == (
        code == 2
    )
