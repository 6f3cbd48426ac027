"""Images that did not come though they were charged: every entrance says the same cost.

The vendor's bill is three times 0.03 USD, unless the plugin reports its own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import impasto
from impasto import SpendLimitExceeded
from impasto_plugins.cli.main import main
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.conftest import KEY
from tests.distributions import install
from tests.plugins.gateway.batches.conftest import finish, line, results, submit
from tests.plugins.gateway.conftest import Running, config, entry, key_entry

PLUGIN = """
import attrs
from impasto import ContentFiltered, Cost, FailedArtifact, Result
from impasto.fields import integer, text
from impasto_plugins.stability.stable_image_core import Params as CoreParams, operation as core


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True, role="prompt")
    seed: int | None = integer(0, 1000)
    samples: int | None = integer(1, 4)


@attrs.frozen
class Dialect:
    billed: str
    usd: float | None = None
    usd_of_error: float | None = None
    sound: object = core.dialect

    def __getattr__(self, name):
        return getattr(self.sound, name)

    def transform_request(self, operation, request, account):
        params = CoreParams(prompt=request.params.prompt, seed=request.params.seed)
        return self.sound.transform_request(core, attrs.evolve(request, params=params), account)

    def normalize_response(self, operation, request, response):
        error = ContentFiltered("filtered", status=200, billed=self.billed)
        if self.usd_of_error is not None:
            error.cost = Cost(usd=self.usd_of_error, as_of="2026-11-01")
        if operation.native_n is None:
            if request.params.seed == 2:
                raise error
            result = self.sound.normalize_response(operation, request, response)
        else:
            [artifact] = self.sound.normalize_response(operation, request, response).artifacts
            errors = (FailedArtifact(index=1, error=error),) if request.count > 1 else ()
            result = Result(artifacts=(artifact,) * (request.count - len(errors)), errors=errors)
        cost = Cost(usd=self.usd * len(result.artifacts), as_of="2026-11-01") if self.usd is not None else None
        return attrs.evolve(result, cost=cost)


def model(name, dialect, native=True):
    native_n = ("samples", 4) if native else None
    return attrs.evolve(core, id=f"acme/{name}", params=Params, dialect=dialect, native_n=native_n)


charged, perhaps, free, own = (
    model("charged", Dialect("yes")), model("perhaps", Dialect("unknown")), model("free", Dialect("no")),
    model("own", Dialect("yes", 0.02)),
)
apart, own_apart = model("apart", Dialect("yes"), native=False), model("own_apart", Dialect("yes", 0.02), native=False)
own_error = model("own_error", Dialect("yes", None, 0.01), native=False)
own_errors = model("own_errors", Dialect("unknown", 0.02, 0.01), native=False)
own_part = model("own_part", Dialect("yes", None, 0.01))
stated_perhaps = model("stated_perhaps", Dialect("unknown", None, 0.01))
"""
COSTS = {
    "charged": (0.09, 0.09),
    "perhaps": (0.06, 0.09),
    "free": (0.06, 0.06),
    "own": (0.04, 0.04),  # nothing is added to what the provider says of its answer
    "apart": (0.09, 0.09),
    "own_apart": (0.07, 0.07),  # the request that failed has no cost of its own: its price counts
    "own_error": (0.07, 0.07),  # the request that failed has a cost of its own
    "own_errors": (0.04, 0.05),
    "own_part": (0.07, 0.07),  # an image that failed in an answer with others has a cost of its own
    "stated_perhaps": (0.06, 0.07),
}
"""The cost of a call for three images as far as it is known, and the most that it may have been."""
EVERY = pytest.mark.parametrize(("model", "cost", "possible"), [(name, *costs) for name, costs in COSTS.items()])


@pytest.fixture(autouse=True)
def installed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, impasto_emulator: Emulator
) -> None:
    site = tmp_path_factory.mktemp("site")
    points = {"impasto.operations": {f"acme/{name}": f"charged:{name}" for name in COSTS}}
    install(site, "acme-charged", points, {"charged": PLUGIN})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("STABILITY_API_KEY", KEY)
    monkeypatch.setenv("STABILITY_API_BASE", impasto_emulator.url)


@EVERY
async def test_the_client(model: str, cost: float, possible: float) -> None:
    async with impasto.Client(spend_limit_usd=possible + 0.0899) as client:
        result = await client.run(f"acme/{model}", prompt="x", seed=1, n=3)
        assert (len(result.artifacts), [each.index for each in result.errors]) == (2, [1])
        assert result.cost is not None
        assert result.possible_cost is not None
        assert (result.cost.usd, result.possible_cost.usd) == (cost, possible)
        assert result.cost.credits == (cost / 0.01 if "own" not in model else None)
        with pytest.raises(SpendLimitExceeded):  # the limit has counted what may have been charged
            await client.run("acme/charged", prompt="x", n=3)


@EVERY
async def test_the_drop_in_function(model: str, cost: float, possible: float) -> None:
    response = await impasto.aimage_generation("x", f"acme/{model}", n=3, seed=1)
    assert response.cost is not None
    assert (response.cost.usd, response.hidden_params["response_cost"]) == (cost, cost)


@EVERY
def test_the_command_line(
    environment: dict[str, str], tmp_path: Path, model: str, cost: float, possible: float
) -> None:
    words = ["generate", f"acme/{model}", "x", "-n", "3", "-p", "seed=1", "--json"]
    done = CliRunner().invoke(main, words, env=environment)
    assert json.loads(done.stdout)["cost"]["usd"] == cost


@EVERY
async def test_a_batch(tmp_path: Path, model: str, cost: float, possible: float) -> None:
    row = {"id": "a", "model": f"acme/{model}", "prompt": "x", "seed": 1, "n": 3}
    async with impasto.Client() as client:
        found = [each async for each in client.batch([row])]
    assert sorted(each.state for each in found) == ["done", "done", "filtered"]
    assert sum(each.cost.usd for each in found if each.cost is not None) == pytest.approx(possible)
    assert [each.cost for each in found if each.state == "filtered"] != [None] or model == "free"


@pytest.fixture
async def gateway(
    impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    entries = "".join(entry(name, f"acme/{name}", impasto_emulator.url) for name in COSTS)
    keys = [
        key_entry(f"of-{name}", f"sk-{name}", usd_per_month=round(most + 0.0899, 4))
        for name, (_, most) in COSTS.items()
    ]
    text = config(impasto_emulator.url, entries=entries, more=f"keys:\n{''.join(keys)}")
    async with Gateway(parse(text.encode())) as started:
        running = Running(started)
        yield running
        await running.aclose()


@EVERY
async def test_the_gateway(gateway: Running, model: str, cost: float, possible: float) -> None:
    headers = {"authorization": f"Bearer sk-{model}"}
    body = {"model": model, "prompt": "x", "n": 3, "seed": 1}
    answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)
    assert answer.headers["x-impasto-cost-usd"] == f"{cost:g}"
    metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    [usd] = [line for line in metrics.splitlines() if "usd" in line and f'model="{model}"' in line and line[0] != "#"]
    assert float(usd.split()[-1]) == pytest.approx(cost)
    again = await gateway.ask(
        "POST", "/v1/images/generations", json={"model": "charged", "prompt": "x", "n": 3}, headers=headers
    )
    assert again.status == 429, "the key's budget has counted what may have been charged"


async def test_a_batch_of_the_gateway(gateway: Running) -> None:
    lines = [line(name, model=name, n=3, seed=1) for name in COSTS]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines))
    outputs = await results(gateway.sdk, batch.output_file_id)
    bills = {name: each["response"]["body"]["cost_usd"] for name, each in outputs.items()}
    assert bills == {name: cost for name, (cost, _) in COSTS.items()}


@pytest.mark.parametrize(
    ("more", "cost"), [("", 0.01), ("      input_cost_per_image: 0.5\n", 0.5)], ids=["own", "configured"]
)
async def test_a_failed_call_of_the_gateway_costs_what_its_provider_says_unless_a_price_is_configured(
    impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, cost: float
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    entries = entry("m", "acme/own_error", impasto_emulator.url) + more
    keys = key_entry("a", "sk-of-a", usd_per_month=round(cost + 0.0299, 4))
    async with Gateway(parse(config(impasto_emulator.url, entries=entries, more=f"keys:\n{keys}").encode())) as started:
        running = Running(started)
        body = {"model": "m", "prompt": "x", "seed": 2}
        headers = {"authorization": "Bearer sk-of-a"}
        answers = [await running.ask("POST", "/v1/images/generations", json=body, headers=headers) for _ in range(2)]
        metrics = (await running.ask("GET", "/metrics")).body.decode()
        await running.aclose()
    assert [each.error["code"] for each in answers] == ["moderation_blocked", "insufficient_quota"]
    [usd] = [line for line in metrics.splitlines() if "usd" in line and 'model="m"' in line and line[0] != "#"]
    assert float(usd.split()[-1]) == pytest.approx(cost)
