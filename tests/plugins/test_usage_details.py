"""Tokens of the output by kind, which few providers count: every entrance passes them on, under OpenAI's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import impasto
from impasto_plugins.cli.main import main
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.conftest import KEY
from tests.distributions import install
from tests.plugins.gateway.conftest import Running, config, entry

PLUGIN = """
import attrs
from impasto import Result
from impasto.dialects import TokenPrice, usage_by_modality
from impasto_plugins.stability.stable_image_core import operation

COUNTS = {
    "promptTokenCount": 10, "totalTokenCount": 1342,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
}


@attrs.frozen
class Dialect:
    sound: object = operation.dialect

    def __getattr__(self, name):
        return getattr(self.sound, name)

    def normalize_response(self, operation, request, response):
        result = self.sound.normalize_response(operation, request, response)
        return attrs.evolve(result, usage=usage_by_modality(COUNTS))


price = TokenPrice(text_input=0.3, image_input=0.3, output=30, text_output=2.5, as_of="2026-11-01")
tokens = attrs.evolve(operation, id="acme/tokens", dialect=Dialect(), price=price)
"""
USD = 0.038808
"""10 tokens at 0.3, 1,290 at 30 and 42 at 2.5 USD for a million."""
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 20},
    "output_tokens": 2664,
    "output_tokens_details": {"image_tokens": 2580, "text_tokens": 84},
    "total_tokens": 2684,
}
"""Those of two images."""


@pytest.fixture(autouse=True)
def installed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, impasto_emulator: Emulator
) -> None:
    site = tmp_path_factory.mktemp("site")
    install(site, "acme-tokens", {"impasto.operations": {"acme/tokens": "acme_tokens:tokens"}}, {"acme_tokens": PLUGIN})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("STABILITY_API_KEY", KEY)
    monkeypatch.setenv("STABILITY_API_BASE", impasto_emulator.url)


async def test_the_drop_in_function() -> None:
    response = await impasto.aimage_generation("x", "acme/tokens", n=2)
    assert response.usage.model_dump() == USAGE
    assert response.usage.output_tokens_details is not None
    assert response.usage.output_tokens_details.image_tokens == 2580
    assert response.cost is not None
    assert response.cost.usd == pytest.approx(2 * USD)


def test_the_command_line(environment: dict[str, str], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["generate", "acme/tokens", "x", "-n", "2", "--json"], env=environment)
    assert json.loads(done.stdout)["usage"] == USAGE


def test_a_batch(environment: dict[str, str], tmp_path: Path) -> None:
    row = {"id": "a", "model": "acme/tokens", "prompt": "x", "n": 2}
    Path("m.jsonl").write_text(json.dumps(row) + "\n")
    done = CliRunner().invoke(main, ["batch", "run", "m.jsonl", "--out", "out"], env=environment)
    assert done.exit_code == 0, done.output
    [line] = Path("out/results.jsonl").read_text().splitlines()
    body = json.loads(line)["response"]["body"]
    assert body["usage"] == USAGE
    assert body["usd"] == pytest.approx(2 * USD)


async def test_the_gateway_and_a_repeated_request(
    impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    text = config(impasto_emulator.url, entries=entry("tokens", "acme/tokens", impasto_emulator.url))
    async with Gateway(parse(text.encode())) as started:
        gateway = Running(started)
        for _ in range(2):
            body = {"model": "tokens", "prompt": "x", "n": 2}
            headers = {"idempotency-key": "one"}
            answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)
            assert answer.json["usage"] == USAGE
            assert float(answer.headers["x-impasto-cost-usd"]) == pytest.approx(2 * USD)
        await gateway.aclose()
    assert len(impasto_emulator.charges) == 2
