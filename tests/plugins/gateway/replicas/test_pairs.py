"""A bucket at a gateway's start: one that is wrong, or that of another database, ends it; one that is away not."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from impasto import ConfigError
from impasto_plugins.cli.main import main
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.storage import bucket as bucket_contents
from impasto_plugins.gateway.storage.contents import StoreError
from tests.moto_s3 import Bucket, new_bucket
from tests.plugins.batch.shared.proxy_s3 import faulty
from tests.plugins.gateway.conftest import MASTER, Answer, Running, Start, config
from tests.postgres import PostgresServer
from tests.s3 import pretending

from .conftest import stored_in
from .processes import Balancer, free_port

pytestmark = pytest.mark.waits

OTHER_DATABASE = r"config: line \d+: files\.s3: the bucket has the images of another store .* `impasto state pair"
OTHER_BUCKET = r"config: line \d+: files\.s3: the images of general_settings\.state are in another bucket"

_numbers = itertools.count()

StartPair = Callable[[str, Bucket], Awaitable[Running]]


@pytest.fixture
def other(postgres_server: PostgresServer) -> str:
    """A second database, which is new."""
    return postgres_server.dsn(schema=f"other_{secrets.token_hex(6)}")


@pytest.fixture
def pair(start: Start, impasto_emulator: Emulator, tmp_path: Path) -> StartPair:
    """Starts a gateway on a database and a bucket, with a data directory of its own."""

    async def start_pair(state: str, bucket: Bucket) -> Running:
        return await start(text_of(impasto_emulator, state, stored_in(bucket), tmp_path / f"data-{next(_numbers)}"))

    return start_pair


def text_of(emulator: Emulator, state: str, files: str, data: Path) -> str:
    general = f"  state: {state}\n  data_dir: {data}\n"
    return config(emulator.url, models=("sd3",), general=general, more=files)


async def generate(gateway: Running, key: str) -> Answer:
    headers = {"authorization": f"Bearer {MASTER}", "idempotency-key": key}
    body = {"model": "sd3", "prompt": "a fox"}
    return await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)


async def readiness(gateway: Running) -> tuple[int, str]:
    answer = await gateway.ask("GET", "/health/readiness")
    return answer.status, answer.json["status"]


async def run(*words: str) -> tuple[int, str]:
    """The exit code and the output of a command."""
    result = await asyncio.to_thread(CliRunner().invoke, main, words)
    return result.exit_code, result.output


async def test_a_new_database_beside_the_bucket_of_another_is_refused_until_that_is_wanted(
    pair: StartPair, postgres: str, other: str, own_bucket: Bucket, impasto_emulator: Emulator
) -> None:
    one = await pair(postgres, own_bucket)
    assert (await generate(one, "k")).status == 200
    with pytest.raises(ConfigError, match=OTHER_DATABASE):
        await pair(other, own_bucket)
    assert (await generate(await pair(postgres, own_bucket), "k")).headers["idempotent-replayed"] == "true"
    assert len(impasto_emulator.charges) == 1


async def test_the_check_says_so_and_a_command_makes_a_pair(
    pair: StartPair, postgres: str, other: str, own_bucket: Bucket, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    text = config("http://127.0.0.1:9", models=("sd3",), general=f"  state: {other}\n", more=stored_in(own_bucket))
    path.write_text(text)
    assert (await run("serve", "--config", str(path), "--check"))[0] == 0, "both are new"
    await pair(postgres, own_bucket)
    code, output = await run("serve", "--config", str(path), "--check")
    assert code == 2
    assert "files.s3: the bucket has the images of another store than that of general_settings.state" in output
    assert (await run("state", "pair", "--config", str(path))) == (0, "the database and the bucket belong together\n")
    assert (await run("serve", "--config", str(path), "--check"))[0] == 0
    await pair(other, own_bucket)
    with pytest.raises(ConfigError, match=OTHER_DATABASE):
        await pair(postgres, own_bucket)


async def test_a_database_with_an_empty_bucket_in_place_of_its_own_is_refused(
    pair: StartPair, postgres: str, own_bucket: Bucket
) -> None:
    await pair(postgres, own_bucket)
    with pytest.raises(ConfigError, match=OTHER_BUCKET):
        await pair(postgres, new_bucket(own_bucket.url, f"{own_bucket.name}-2"))


async def test_several_replicas_start_at_once_on_a_new_pair(pair: StartPair, postgres: str, own_bucket: Bucket) -> None:
    replicas = await asyncio.gather(*(pair(postgres, own_bucket) for _ in range(4)))
    answers = await asyncio.gather(*(generate(each, "k") for each in replicas))
    assert {each.status for each in answers} == {200}
    assert [await readiness(each) for each in replicas] == [(200, "ready")] * 4


async def test_a_bucket_that_is_away_is_an_outage(
    pair: StartPair, postgres: str, own_bucket: Bucket, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_contents, "CHECK_SECONDS", 0.0)
    with Balancer([int(own_bucket.url.rpartition(":")[2])]) as gate:
        gate.go_away()
        gateway = await pair(postgres, Bucket(gate.url, own_bucket.name))
        assert await readiness(gateway) == (503, "no storage")
        assert (await generate(gateway, "k")).status == 503
        gate.come_back()
        assert await readiness(gateway) == (200, "ready")
        assert (await generate(gateway, "k")).status == 200
        gate.go_away()
        assert await readiness(gateway) == (503, "no storage")
    assert len(impasto_emulator.charges) == 1


async def test_the_bucket_of_another_database_is_not_used_either_if_it_was_away_at_the_start(
    pair: StartPair, postgres: str, other: str, own_bucket: Bucket, impasto_emulator: Emulator
) -> None:
    await pair(postgres, own_bucket)
    with Balancer([int(own_bucket.url.rpartition(":")[2])]) as gate:
        gate.go_away()
        gateway = await pair(other, Bucket(gate.url, own_bucket.name))
        gate.come_back()
        assert await readiness(gateway) == (503, "no storage")
        assert (await generate(gateway, "k")).status == 503
        batches = gateway.gateway._app.runtime.places.batches
        for use in (batches.ages(), batches.delete(["x"]), batches.delete_folder("x"), batches.copy("x", "y")):
            with pytest.raises(StoreError, match="the bucket has the images of another store"):
                await use  # nothing of the other database is deleted
    assert impasto_emulator.requests == []


@pytest.mark.parametrize("is_shared", [True, False])
async def test_a_wrong_bucket_ends_the_start_as_the_check_says(
    start: Start, postgres: str, bucket: Bucket, impasto_emulator: Emulator, tmp_path: Path, *, is_shared: bool
) -> None:
    path, state = tmp_path / "config.yaml", postgres if is_shared else str(tmp_path / "state")
    async with pretending() as fake:
        wrong = {
            stored_in(Bucket(bucket.url, "nowhere")): "there is no such bucket",
            stored_in(Bucket(fake.url, "pictures")).replace("secret-of-the-test", "other"): "refused the credentials",
        }
        for files, reason in wrong.items():
            path.write_text(text_of(impasto_emulator, state, files, tmp_path / "data"))
            with pytest.raises(ConfigError, match=rf"config: line \d+: files\.s3: .*{reason}"):
                await start(path.read_text())
            code, output = await run("serve", "--config", str(path), "--check")
            assert (code, reason in output) == (2, True)


async def test_the_check_warns_of_a_bucket_that_is_away(
    postgres: str, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    path, away = tmp_path / "config.yaml", Bucket(f"http://127.0.0.1:{free_port()}", "away")
    path.write_text(text_of(impasto_emulator, postgres, stored_in(away), tmp_path / "data"))
    code, output = await run("serve", "--config", str(path), "--check")
    assert code == 0
    assert "Warning: files.s3: EndpointConnectionError; the gateway starts all the same" in output


async def test_a_service_that_ignores_conditions_is_refused_for_batches_alone(
    start: Start, postgres: str, own_bucket: Bucket, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    with faulty(own_bucket.url) as proxy:
        proxy.ignores_conditions = True
        text = text_of(impasto_emulator, postgres, stored_in(Bucket(proxy.url, own_bucket.name)), tmp_path / "data")
        with pytest.raises(ConfigError, match=r"files\.s3: this service ignores the header If-None-Match"):
            await start(text)
        gateway = await start(f"{text}batches: {{enabled: false}}\n")
        assert (await generate(gateway, "k")).status == 200
