"""A bucket that is away: nothing is sent that could be lost, and what was paid for is not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import openai
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway import sweep
from impasto_plugins.gateway.idempotency import late_uploads
from impasto_plugins.gateway.storage import bucket as bucket_contents
from impasto_plugins.transports import s3
from tests.moto_s3 import Bucket
from tests.plugins.gateway.batches.conftest import finish, line, results, submit
from tests.plugins.gateway.conftest import MASTER, Answer, Running, Start, config
from tests.plugins.gateway.storage.test_salvage import path_in

from .conftest import stored_in
from .processes import Balancer

pytestmark = pytest.mark.waits

BODY = {"model": "sd3", "prompt": "a fox"}


@pytest.fixture
def gate(own_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Balancer]:
    """The way to the bucket, which can be closed."""
    monkeypatch.setattr(bucket_contents, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(s3, "_PAUSE", 0.01)
    monkeypatch.setattr(s3, "_MAX_PAUSE", 0.05)
    monkeypatch.setattr("impasto_plugins.gateway.batches.scheduler.RETRY_SECONDS", 0.2)
    monkeypatch.setattr("impasto_plugins.gateway.batches.scheduler.WATCH_SECONDS", 0.2)
    monkeypatch.setattr("impasto_plugins.batch.shared.segments.FLUSH_SECONDS", 0.1)
    with Balancer([int(own_bucket.url.rpartition(":")[2])]) as gate:
        yield gate


StartReplica = Callable[[str, str], Awaitable[Running]]


@pytest.fixture
def replica(start: Start, impasto_emulator: Emulator, postgres: str, tmp_path: Path) -> StartReplica:
    """Starts a replica with a data directory of this name, and this section ``files``."""

    async def start_replica(name: str, files: str) -> Running:
        general = f"  state: {postgres}\n  data_dir: {tmp_path / name}\n"
        return await start(config(impasto_emulator.url, models=("sd3", "core"), general=general, more=files))

    return start_replica


async def generate(gateway: Running, key: str) -> Answer:
    headers = {"authorization": f"Bearer {MASTER}", "idempotency-key": key}
    return await gateway.ask("POST", "/v1/images/generations", json=BODY, headers=headers)


async def test_without_the_bucket_nothing_is_sent_that_could_be_lost(
    replica: StartReplica, impasto_emulator: Emulator, own_bucket: Bucket, gate: Balancer
) -> None:
    gateway = await replica("one", stored_in(own_bucket, gate.url))
    gate.go_away()
    refusal = await generate(gateway, "k")
    assert (refusal.status, refusal.error["code"], refusal.headers["x-should-retry"]) == (503, "overloaded", "true")
    assert refusal.headers["retry-after"]
    job = await gateway.ask("POST", "/v1/images/generations", json=BODY, headers={"prefer": "respond-async"})
    assert job.status == 503
    with pytest.raises(openai.InternalServerError, match="can't store files now"):
        await submit(gateway.sdk, [line("a")])
    assert impasto_emulator.requests == []
    answer = await gateway.generate(response_format="url")  # a call that nobody will look for
    assert answer.status == 200
    assert "could not be stored for a URL" in answer.json["warnings"][0]
    gate.come_back()
    assert (await generate(gateway, "k")).status == 200
    assert len(impasto_emulator.charges) == 2
    assert [each async for each in gateway.sdk.files.list()] == []


async def generate_while_away(gateway: Running, gate: Balancer, key: str) -> Answer:
    """Pay for an image that the bucket does not take."""
    assert (await generate(gateway, f"before {key}")).status == 200
    bucket_contents.CHECK_SECONDS = 60.0  # the fixture of the gate restores it
    gate.go_away()
    answer = await generate(gateway, key)
    assert answer.status == 200
    bucket_contents.CHECK_SECONDS = 0.0
    return answer


async def generate_until_stored(gateway: Running, key: str) -> Answer:
    """Repeat a request as long as it is refused."""
    async with asyncio.timeout(30):
        while (answer := await generate(gateway, key)).status == 503:
            assert answer.headers["retry-after"]
            await asyncio.sleep(0.1)
    return answer


async def test_an_image_that_was_paid_for_while_the_bucket_was_away_is_uploaded_when_it_is_back(
    replica: StartReplica,
    impasto_emulator: Emulator,
    own_bucket: Bucket,
    gate: Balancer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = await replica("one", stored_in(own_bucket, gate.url))
    two = await replica("two", stored_in(own_bucket))
    first = await generate_while_away(one, gate, "k")
    assert "stays on this machine until the bucket can be written to" in caplog.text
    folder = one.gateway._idempotency.store.contents.folder
    assert len([*folder.iterdir()]) == 1
    refusal = await generate(two, "k")
    assert (refusal.status, refusal.error["code"], refusal.headers["x-should-retry"]) == (503, "overloaded", "true")
    here = await generate(one, "k")  # its own copy needs no bucket
    assert (here.status, here.headers["idempotent-replayed"]) == (200, "true")
    assert here.json["data"] == first.json["data"]
    assert (await generate(one, "new")).status == 503
    gate.come_back()
    again = await generate_until_stored(two, "k")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json["data"] == first.json["data"]
    assert [*folder.iterdir()] == []
    assert len(impasto_emulator.charges) == 2
    assert (await generate(one, "new")).status == 200
    assert "secret-of-the-test" not in caplog.text


async def test_an_image_on_the_disk_of_a_replica_that_ended_is_there_when_it_starts_again(
    replica: StartReplica,
    impasto_emulator: Emulator,
    own_bucket: Bucket,
    gate: Balancer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late_uploads, "_LAST_SECONDS", 0.1)
    one = await replica("one", stored_in(own_bucket, gate.url))
    two = await replica("two", stored_in(own_bucket))
    first = await generate_while_away(one, gate, "k")
    await one.gateway.__aexit__(None, None, None)
    gate.come_back()
    assert (await generate(two, "k")).status == 503
    await replica("one", stored_in(own_bucket, gate.url))
    again = await generate_until_stored(two, "k")
    assert again.json["data"] == first.json["data"]
    assert len(impasto_emulator.charges) == 2


async def test_an_image_that_was_lost_with_a_disk_is_reported_as_charged_for_good(
    replica: StartReplica,
    impasto_emulator: Emulator,
    own_bucket: Bucket,
    gate: Balancer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late_uploads, "_LAST_SECONDS", 0.1)
    monkeypatch.setattr(late_uploads, "ANNOUNCED_SECONDS", 3.0)
    one = await replica("one", stored_in(own_bucket, gate.url))
    two = await replica("two", stored_in(own_bucket))
    await generate_while_away(one, gate, "k")
    await one.gateway.__aexit__(None, None, None)
    gate.come_back()
    loss = await generate_until_stored(two, "k")
    assert (loss.status, loss.error["code"], loss.headers["x-should-retry"]) == (502, "charge_unknown", "false")
    assert "was made and charged, and is not in the gateway's storage" in str(loss.error["message"])
    assert len(impasto_emulator.charges) == 2


async def test_a_paid_answer_that_can_not_be_used_is_uploaded_when_the_bucket_is_back(
    replica: StartReplica, impasto_emulator: Emulator, own_bucket: Bucket, gate: Balancer, tmp_path: Path
) -> None:
    one = await replica("one", stored_in(own_bucket, gate.url))
    two = await replica("two", stored_in(own_bucket))
    gate.go_away()
    blocked = await one.generate(model="core", prompt="[content_filtered]")
    path = path_in(blocked.error["message"])
    here = await one.ask("GET", path)
    assert (here.status, here.body[:4]) == (200, b"\x89PNG")
    async with asyncio.timeout(30):
        while (early := await two.ask("GET", path)).status == 404:  # until it is announced
            await asyncio.sleep(0.02)
    assert (early.status, early.error["code"], early.headers["x-should-retry"]) == (503, "overloaded", "true")
    gate.come_back()
    async with asyncio.timeout(30):
        while (there := await two.ask("GET", path)).status == 503:
            await asyncio.sleep(0.1)
    assert (there.status, there.body, there.headers["content-type"]) == (200, here.body, "image/png")
    async with asyncio.timeout(30):
        while [*(tmp_path / "one/unread").iterdir()]:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(30):
        unknown = path.replace(path[-47:-4], "a" * 43)
        while (await two.ask("GET", unknown)).status != 404:  # until nothing is announced
            await asyncio.sleep(0.02)
    assert len(impasto_emulator.charges) == 1


async def test_a_stored_outcome_that_can_not_be_read_now_is_not_lost(
    replica: StartReplica, impasto_emulator: Emulator, own_bucket: Bucket, gate: Balancer
) -> None:
    gateway = await replica("one", stored_in(own_bucket, gate.url))
    first = await generate(gateway, "k")
    gate.go_away()
    assert (await generate(gateway, "k")).status == 503
    gate.come_back()
    assert (await generate(gateway, "k")).json["data"] == first.json["data"]
    assert len(impasto_emulator.charges) == 1


async def test_a_batch_waits_for_the_bucket_and_pays_for_nothing_twice(
    replica: StartReplica,
    impasto_emulator: Emulator,
    own_bucket: Bucket,
    gate: Balancer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = await replica("one", f"{stored_in(own_bucket, gate.url)}batches: {{concurrency: 2}}\n")
    impasto_emulator.fault("delay", seconds=0.2)
    batch = await submit(gateway.sdk, [line(f"p{i}", seed=i + 1) for i in range(8)])
    async with asyncio.timeout(30):
        while len(impasto_emulator.charges) < 2:
            await asyncio.sleep(0.02)
    gate.go_away()
    async with asyncio.timeout(30):
        while "can't continue now" not in caplog.text:
            await asyncio.sleep(0.02)
    paid = len(impasto_emulator.charges)
    gate.come_back()
    batch = await finish(gateway.sdk, batch)
    assert batch.status == "completed"
    outputs = await results(gateway.sdk, batch.output_file_id)
    assert outputs.keys() == {f"p{i}" for i in range(8)}
    assert paid <= 6
    assert len(impasto_emulator.charges) == 8


async def test_a_gateway_whose_images_stay_on_its_machine_says_so(
    replica: StartReplica, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await replica("one", "")
    assert "with files.s3 all machines have them" in caplog.text
    assert (await generate(gateway, "k")).status == 200
    (image,) = await asyncio.to_thread(lambda: list((tmp_path / "one/outcomes").iterdir()))
    stray = image.with_name("f" * 64 + ".0")  # another replica has deleted its row
    stray.touch()
    an_hour_ago = image.stat().st_mtime - 3600
    os.utime(stray, (an_hour_ago, an_hour_ago))
    app = gateway.gateway._app
    await sweep.sweep(app.runtime, app.state, app.idempotency.store, app.batches)
    assert image.exists()
    assert "have no record" not in caplog.text


def test_a_folder_of_images_is_refused_beside_shared_records() -> None:
    from impasto import ConfigError
    from impasto_plugins.gateway.config.loader import parse

    state = "  state: postgresql://u:p@db.example/x\n"
    text = config("http://127.0.0.1:9", general=state, more="files:\n  folder: here\n")
    with pytest.raises(ConfigError, match=r"files\.folder: can't be used with a general_settings\.state .*; give s3"):
        parse(text.encode())
