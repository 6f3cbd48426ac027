"""The drop-in functions, the gateway and batches against the contract: the same requests, the same wire."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import impasto
from tests.oracle.contract import EVERY, Contract
from tests.oracle.entrances import AWS, Batch, Functions, Gateway, is_edit, judge, row
from tests.oracle.recording import Provider, RecordedRequest
from tests.oracle.samples import Values, full_requests
from tests.oracle.wire import ACCESS_KEY, KEY, REGION, SECRET_KEY, check

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one client, one gateway and one stand-in for all requests

MASTER = "sk-oracle-" + "0" * 24
COMMAND = Path(sys.executable).with_name("impasto")

of_every = pytest.mark.parametrize("contract", EVERY, ids=lambda contract: f"{contract.provider}-{contract.id}")
of_images = pytest.mark.parametrize(
    "contract", [c for c in EVERY if c.makes == "image"], ids=lambda contract: f"{contract.provider}-{contract.id}"
)


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_POLL_INTERVAL", "0.01")


def configuration(url: str) -> str:
    """Return a gateway's configuration: every model, under its own name."""
    reach = {"stability": {"api_key": KEY, "api_base": url}, "bedrock": {**AWS, "aws_bedrock_runtime_endpoint": url}}
    models = [
        {"model_name": contract.model, "litellm_params": {"model": contract.model, **reach[contract.provider]}}
        for contract in EVERY
    ]
    # JSON is YAML
    return json.dumps({"model_list": models, "general_settings": {"master_key": MASTER, "poll_interval": 0.01}})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(recorder_of_module: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """``impasto serve`` in a process of its own."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "config.yaml").write_text(configuration(recorder_of_module.url))
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *("serve", "--config", folder / "config.yaml", "--port", "0"),
            env={**_environment(), "XDG_STATE_HOME": str(folder), "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("RUNNING on "), (folder / "log").read_text()
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {MASTER}"}) as session:
            yield Gateway(recorder_of_module, line.split()[-1], session)
    finally:
        process.terminate()
        await process.communicate()  # which reads the access log to its end


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("STABILITY_", "AWS_"))}


@of_images
async def test_the_drop_in_functions_keep_each_bound(provider: Provider, contract: Contract) -> None:
    await judge(Functions(provider), contract)


@of_every
async def test_the_gateway_keeps_each_bound(gateway: Gateway, provider: Provider, contract: Contract) -> None:
    await judge(gateway, contract)


@of_every
async def test_a_batch_keeps_each_bound(client: impasto.Client, provider: Provider, contract: Contract) -> None:
    await judge(Batch(client, provider), contract)


@of_images
async def test_the_blocking_functions_send_the_same(
    provider: Provider, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"api_key": KEY, "api_base": provider.url}
    if contract.provider == "bedrock":
        settings = {**AWS, "aws_bedrock_runtime_endpoint": provider.url}
    for values in full_requests(contract):
        provider.clear()
        function: Any = impasto.image_edit if is_edit(contract, values) else impasto.image_generation
        await asyncio.to_thread(function, model=contract.model, **settings, **values)
        check(contract, values, provider.requests[0])


def line(id: str, contract: Contract, values: Values) -> tuple[str, dict[str, object]]:
    """Return the path of a line of a batch, and the line in OpenAI's form."""
    kind = "images" if contract.makes == "image" else contract.makes
    url = f"/v1/{kind}/{'edits' if contract.makes == 'image' and is_edit(contract, values) else 'generations'}"
    body = {name: value for name, value in row(id, contract, values).items() if name != "id"}
    return url, {"custom_id": id, "method": "POST", "url": url, "body": body}


def check_all(expected: list[tuple[Contract, Values]], provider: Provider) -> None:
    """Fail if the requests are not these, in any order."""
    posts = [each for each in provider.requests if each.method == "POST"]
    for contract, values in expected:
        posts.remove(next(post for post in posts if _is(contract, values, post)))
    assert not posts


@pytest.mark.parametrize("url", ["/v1/images/generations", "/v1/images/edits"])
async def test_a_batch_of_the_gateway_sends_the_same(gateway: Gateway, provider: Provider, url: str) -> None:
    lines: list[str] = []
    expected: list[tuple[Contract, Values]] = []
    for contract in EVERY:
        for values in full_requests(contract):
            path, theirs = line(f"line-{len(lines)}", contract, values)
            if path == url:
                lines.append(json.dumps(theirs))
                expected.append((contract, values))
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", "\n".join(lines), filename="lines.jsonl")
    api = f"{gateway.url}/v1"
    async with gateway.session.post(f"{api}/files", data=form) as answer:
        file = await answer.json()
    order = {"input_file_id": file["id"], "endpoint": url, "completion_window": "24h"}
    async with gateway.session.post(f"{api}/batches", json=order) as answer:
        batch = await answer.json()
    while batch["status"] not in ("completed", "failed", "expired", "cancelled"):
        await asyncio.sleep(0.02)
        async with gateway.session.get(f"{api}/batches/{batch['id']}") as answer:
            batch = await answer.json()
    assert (batch["status"], batch["request_counts"]["failed"]) == ("completed", 0), batch
    check_all(expected, provider)


async def test_a_manifest_sends_the_same(provider: Provider, tmp_path: Path) -> None:
    expected: list[tuple[Contract, Values]] = []
    rows: list[str] = []
    for contract in EVERY:
        for number, values in enumerate(full_requests(contract)):
            id = f"{contract.provider}-{contract.id}-{number}".replace("/", ".").replace(" ", "_")
            _, theirs = line(f"{id}-openai", contract, values)
            rows += [json.dumps(row(id, contract, values)), json.dumps(theirs)]
            expected += [(contract, values)] * 2
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    settings = {
        "STABILITY_API_KEY": KEY,
        "STABILITY_API_BASE": provider.url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_BEDROCK_RUNTIME_ENDPOINT": provider.url,
        "IMPASTO_POLL_INTERVAL": "0.01",
    }
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *("batch", "run", tmp_path / "manifest.jsonl", "--out", tmp_path / "out", "--json"),
        env={**_environment(), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output = await process.communicate()
    assert process.returncode == 0, output
    check_all(expected, provider)


def _is(contract: Contract, values: Values, post: RecordedRequest) -> bool:
    try:
        check(contract, values, post)
    except AssertionError:
        return False
    return True
