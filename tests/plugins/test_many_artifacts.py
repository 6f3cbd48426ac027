"""A provider that answers one request with several images, with none, or with far too many.

The plugin stands for one whose API has a count of its own: every entrance delivers and counts what came.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import impasto
from impasto import SpendLimitExceeded, UnusableResult
from impasto_plugins.cli.main import main
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.conftest import KEY
from tests.distributions import install
from tests.plugins.gateway.batches.conftest import finish, line, results, submit
from tests.plugins.gateway.conftest import Running, config, entry, key_entry

SEVERAL = """
import attrs
from impasto import Artifact, FailedArtifact, ProviderFault, Result
from impasto_plugins.stability.stable_image_core import operation


@attrs.frozen
class Several:
    count: int
    empty: bool = False
    sound: object = operation.dialect

    def __getattr__(self, name):
        return getattr(self.sound, name)

    def normalize_response(self, operation, request, response):
        [artifact] = self.sound.normalize_response(operation, request, response).artifacts
        if self.empty:
            artifact = attrs.evolve(artifact, data=b"")
        return Result(artifacts=(artifact,) * self.count)


def model(name, *given):
    return attrs.evolve(operation, id=f"acme/{name}", dialect=Several(*given))


none, four, most, flood, empty = (
    model("none", 0), model("four", 4), model("most", 64), model("flood", 65), model("empty", 1, True)
)
"""
MODELS = ("none", "four", "most", "flood", "empty")
UNUSABLE = ("none", "flood", "empty")
PRICE = 0.03


@pytest.fixture(autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path_factory.mktemp("site")
    points = {"impasto.operations": {f"acme/{name}": f"several:{name}" for name in MODELS}}
    install(site, "acme-several", points, {"several": SEVERAL})
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture
async def emulated(impasto_emulator: Emulator) -> AsyncIterator[impasto.Client]:
    async with impasto.Client(api_key=KEY, api_base=impasto_emulator.url) as client:
        yield client


@pytest.mark.parametrize("n", [1, 2])
async def test_the_client_counts_what_came(emulated: impasto.Client, impasto_emulator: Emulator, n: int) -> None:
    result = await emulated.run("acme/four", prompt="x", n=n)
    assert len(result.artifacts) == 4 * n
    assert result.cost is not None
    assert result.cost.usd == pytest.approx(PRICE * 4 * n)
    assert result.warnings == ("the provider answered one request with 4 artifacts: all are counted",)
    assert len(impasto_emulator.charges) == n


@pytest.mark.parametrize("model", UNUSABLE)
async def test_none_empty_or_too_many_is_unusable_and_its_bytes_are_kept(emulated: impasto.Client, model: str) -> None:
    with pytest.raises(UnusableResult) as caught:
        await emulated.run(f"acme/{model}", prompt="x")
    assert caught.value.billed == "yes"
    assert caught.value.raw.startswith(b"\x89PNG")
    assert ("at most 64 are accepted" in str(caught.value)) is (model == "flood")


async def test_as_many_as_the_bound_are_taken(emulated: impasto.Client) -> None:
    assert len((await emulated.run("acme/most", prompt="x")).artifacts) == 64


async def test_the_spend_limit_counts_what_came(emulated: impasto.Client) -> None:
    limited = emulated.with_options(spend_limit_usd=5 * PRICE - 0.001)
    await limited.run("acme/four", prompt="x")
    with pytest.raises(SpendLimitExceeded, match="0.029 of spend_limit_usd"):
        await limited.run("acme/four", prompt="x")


async def test_the_place_of_a_lost_image_is_behind_those_that_came(
    emulated: impasto.Client, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("status", status=400, name="bad_request", times=1)
    result = await emulated.run("acme/four", prompt="x", n=3)
    assert len(result.artifacts) == 8
    assert [failure.index for failure in result.errors] in ([0], [4], [8])


async def test_the_drop_in_function_returns_all(impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABILITY_API_KEY", KEY)
    monkeypatch.setenv("STABILITY_API_BASE", impasto_emulator.url)
    response = await impasto.aimage_generation("x", "acme/four", n=2)
    assert len(response.data) == 8
    assert response.cost is not None
    assert response.cost.usd == pytest.approx(PRICE * 8)
    with pytest.raises(UnusableResult):
        await impasto.aimage_generation("x", "acme/none")


@pytest.mark.parametrize("words", [[], ["-o", "x.png"], ["-o", "x.png", "-n", "2"], ["-n", "2", "--json"]])
def test_the_command_line_saves_all(environment: dict[str, str], tmp_path: Path, words: list[str]) -> None:
    result = CliRunner().invoke(main, ["generate", "acme/four", "x", "-p", "seed=7", *words], env=environment)
    assert result.exit_code == 0, result.output
    count = 8 if "2" in words else 4
    assert len(list(tmp_path.glob("*.png"))) == count
    if "--json" in words:
        payload = json.loads(result.stdout)
        assert len({each["path"] for each in payload["files"]}) == count
        assert payload["cost"]["usd"] == pytest.approx(PRICE * count)
    else:
        assert len(set(result.stdout.split())) == count
    if "-o" in words:
        assert (tmp_path / ("x-1.png" if count == 8 else "x.png")).is_file()


def test_the_command_line_keeps_the_bytes_of_an_unusable_answer(environment: dict[str, str], tmp_path: Path) -> None:
    for model in UNUSABLE:
        result = CliRunner().invoke(main, ["generate", f"acme/{model}", "x", "-o", f"{model}.png"], env=environment)
        assert result.exit_code == 1
        assert (tmp_path / f"{model}-unusable.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
async def gateway(
    impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    entries = "".join(entry(name, f"acme/{name}", impasto_emulator.url) for name in MODELS)
    keys = f"keys:\n{key_entry('studio', 'sk-studio', images_per_day=9, usd_per_month=0.24)}"
    async with Gateway(parse(config(impasto_emulator.url, entries=entries, more=keys).encode())) as started:
        running = Running(started)
        yield running
        await running.aclose()


@pytest.mark.parametrize("form", ["b64_json", "url"])
async def test_the_gateway_answers_with_all(gateway: Running, form: str) -> None:
    answer = await gateway.generate(model="four", n=2, response_format=form)
    assert len(answer.json["data"]) == 8
    assert answer.headers["x-impasto-cost-usd"] == "0.24"
    assert "4 artifacts" in answer.headers["x-impasto-warnings"]
    if form == "b64_json":
        assert all(base64.b64decode(each["b64_json"]).startswith(b"\x89PNG") for each in answer.json["data"])


async def test_the_gateway_streams_an_event_for_each(gateway: Running) -> None:
    answer = await gateway.generate(model="four", stream=True)
    assert answer.body.count(b"event: image_generation.completed") == 4


async def test_the_gateways_limits_count_what_came(gateway: Running) -> None:
    headers = {"authorization": "Bearer sk-studio"}
    asks = [
        await gateway.ask("POST", "/v1/images/generations", json={"model": "four", "prompt": "x"}, headers=headers)
        for _ in range(4)
    ]
    assert [answer.status for answer in asks] == [200, 200, 429, 429], "8 images for 0.24 USD is all that is allowed"


@pytest.mark.parametrize("model", UNUSABLE)
async def test_the_gateway_never_answers_200_without_an_image(gateway: Running, model: str) -> None:
    answer = await gateway.generate(model=model)
    assert (answer.status, answer.error["code"]) == (502, "unusable_result")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_batch_of_the_gateway_delivers_all(gateway: Running, impasto_emulator: Emulator) -> None:
    batch = await finish(
        gateway.sdk, await submit(gateway.sdk, [line("cat", model="four", n=2), line("dog", model="four")])
    )
    assert (batch.status, batch.request_counts.completed) == ("completed", 2)
    lines = await results(gateway.sdk, batch.output_file_id)
    assert {id: len(each["response"]["body"]["data"]) for id, each in lines.items()} == {"cat": 8, "dog": 4}
    assert lines["cat"]["response"]["body"]["cost_usd"] == pytest.approx(PRICE * 8)
    assert len(impasto_emulator.charges) == 3
