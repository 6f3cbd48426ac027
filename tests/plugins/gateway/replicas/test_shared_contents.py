"""What one replica has made, the other serves, whatever becomes of the first."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections import Counter
from collections.abc import Sequence
from typing import Any

import aiohttp
import openai
import pytest

from impasto_plugins.emulator import Emulator
from tests.images import drawn
from tests.moto_s3 import Bucket
from tests.plugins.gateway.batches.conftest import finish, line, results, submit
from tests.plugins.gateway.conftest import MASTER, Answer

from .conftest import OTHER_KEY
from .processes import Balancer, Replica

pytestmark = pytest.mark.waits

BODY = {"model": "sd3", "prompt": "a fox"}


async def ask(url: str, method: str, path: str, *, key: str = MASTER, **options: Any) -> Answer:
    """One request, on a connection of its own."""
    headers = {"authorization": f"Bearer {key}", **options.pop("headers", {})}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, path if "://" in path else url + path, headers=headers, **options) as answer,
    ):
        return Answer(answer.status, answer.headers, await answer.read())


async def generate(url: str, key: str, **body: object) -> Answer:
    headers = {"idempotency-key": key}
    return await ask(url, "POST", "/v1/images/generations", json={**BODY, **body}, headers=headers)


def sdk(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=MASTER, base_url=f"{url}/v1", max_retries=0)


async def test_an_answer_is_replayed_by_the_other_replica_after_the_first_has_died(
    replicas: Sequence[Replica], provider: Emulator
) -> None:
    one, two = replicas
    first = await generate(one.url, "replay")
    await asyncio.to_thread(one.kill)
    again = await generate(two.url, "replay")
    assert (first.status, again.status) == (200, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json["data"] == first.json["data"]
    assert len(provider.charges) == 1


async def test_a_url_and_its_replay_are_served_wherever_they_are_asked_for(
    replicas: Sequence[Replica], provider: Emulator
) -> None:
    one, two = replicas
    first = await generate(one.url, "url", response_format="url")
    again = await generate(two.url, "url", response_format="url")
    (url,) = (each["url"] for each in first.json["data"])
    assert [each["url"] for each in again.json["data"]] == [url]
    await asyncio.to_thread(one.kill)
    async with aiohttp.ClientSession() as anyone, anyone.get(url) as answer:
        assert (answer.status, (await answer.read())[:4]) == (200, b"\x89PNG")
    assert len(provider.charges) == 1


async def test_a_job_of_one_replica_is_told_by_the_other(replicas: Sequence[Replica], provider: Emulator) -> None:
    one, two = replicas
    started = await ask(one.url, "POST", "/v1/images/generations", json=BODY, headers={"prefer": "respond-async"})
    assert started.status == 202
    path = started.headers["location"]
    async with asyncio.timeout(30):
        while (await ask(one.url, "GET", path)).json["status"] == "in_progress":
            await asyncio.sleep(0.05)
    await asyncio.to_thread(one.kill)
    job = await ask(two.url, "GET", path)
    assert job.json["status"] == "completed"
    assert base64.b64decode(job.json["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert (await ask(two.url, "GET", path, key=OTHER_KEY)).status == 404
    assert len(provider.charges) == 1


async def test_a_file_of_one_replica_is_the_others_too(
    replicas: Sequence[Replica], provider: Emulator, bucket: Bucket
) -> None:
    one, two = replicas
    image = drawn("PNG", size=(160, 96))
    async with sdk(one.url) as here, sdk(two.url) as there:
        file = await here.files.create(file=("fox.png", image), purpose="vision")
        assert (await there.files.content(file.id)).content == image
        body = {"model": "erase", "images": [{"file_id": file.id}], "mask": {"file_id": file.id}}
        assert (await ask(two.url, "POST", "/v1/images/edits", json=body)).status == 200
        assert (await ask(two.url, "GET", f"/v1/files/{file.id}/content", key=OTHER_KEY)).status == 404
        assert (await there.files.delete(file.id)).deleted
        assert (await ask(one.url, "GET", f"/v1/files/{file.id}")).status == 404
    client = bucket.client()
    found = client.list_objects_v2(Bucket=bucket.name, Prefix="gateway/batches/files/").get("Contents", [])
    assert [each["Key"] for each in found if file.id in each["Key"]] == []


async def test_a_batch_is_made_and_read_through_a_balancer(balancer: Balancer, provider: Emulator) -> None:
    image = drawn("PNG", size=(160, 96))
    async with sdk(balancer.url) as client:
        upload = await client.files.create(file=("fox.png", image), purpose="vision")
        lines = [line(f"p{i}", seed=i + 1) for i in range(6)]
        lines += [line("url", response_format="url"), line("file", url="/v1/images/generations", n=2)]
        batch = await finish(client, await submit(client, lines))
        outputs = await results(client, batch.output_file_id)
        assert batch.status == "completed"
        assert batch.request_counts.completed == len(lines)
        assert outputs.keys() == {each["custom_id"] for each in lines}
        url = outputs["url"]["response"]["body"]["data"][0]["url"]
        image_answer = await ask(balancer.url, "GET", url, headers={"authorization": ""})
        assert image_answer.body.startswith(b"\x89PNG")
        assert len(outputs["file"]["response"]["body"]["data"]) == 2
        edits = [line("edit", "/v1/images/edits", model="erase", images=[{"file_id": upload.id}], mask=None)]
        batch = await finish(client, await submit(client, edits, "/v1/images/edits"))
        assert batch.status == "completed", batch
    assert len(provider.charges) == len(lines) + 2


async def test_a_batch_outlives_its_replica(replicas: Sequence[Replica], provider: Emulator) -> None:
    provider.fault("delay", seconds=0.2)
    lines = [line(f"p{i}", seed=i + 1) for i in range(30)]
    async with sdk(replicas[0].url) as client:
        batch = await submit(client, lines)
    async with asyncio.timeout(30):
        while len(provider.charges) < 6:
            await asyncio.sleep(0.02)
    (running,) = (each for each in replicas if runs(each, batch.id))
    (other,) = (each for each in replicas if each is not running)
    await asyncio.to_thread(running.kill)
    async with sdk(other.url) as client:
        batch = await finish(client, batch)
        outputs = await results(client, batch.output_file_id)
        failures = await results(client, batch.error_file_id) if batch.error_file_id else {}
    assert batch.status == "completed"
    assert outputs.keys() | failures.keys() == {f"p{i}" for i in range(30)}
    assert max(Counter(charge.seed for charge in provider.charges).values()) == 1
    assert {each["error"]["code"] for each in failures.values()} <= {"charge_unknown"}
    assert len(failures) <= 4
    assert len(provider.charges) >= len(outputs)


def runs(replica: Replica, id: str) -> bool:
    """Return True if a replica has the batch's folder."""
    return (replica.folder / replica.name / "impasto/batches/runs" / id / ".impasto").exists()


async def test_a_replica_that_was_stopped_for_longer_than_its_lease_pays_for_nothing_again(
    replicas: Sequence[Replica], provider: Emulator
) -> None:
    provider.fault("delay", seconds=0.2)
    async with sdk(replicas[0].url) as client:
        batch = await submit(client, [line(f"p{i}", seed=i + 1) for i in range(16)])
    async with asyncio.timeout(30):
        while len(provider.charges) < 4:
            await asyncio.sleep(0.02)
    (running,) = (each for each in replicas if runs(each, batch.id))
    (other,) = (each for each in replicas if each is not running)
    running.signal(signal.SIGSTOP)
    async with sdk(other.url) as client:
        batch = await finish(client, batch)
        running.signal(signal.SIGCONT)
        before = await client.files.content(batch.output_file_id)
        async with asyncio.timeout(30):
            while "another replica runs it" not in running.log.read_text():
                await asyncio.sleep(0.05)
        assert (await client.batches.retrieve(batch.id)) == batch
        assert (await client.files.content(batch.output_file_id)).content == before.content
    assert max(Counter(charge.seed for charge in provider.charges).values()) == 1


async def test_a_batch_goes_on_elsewhere_when_its_replica_ends_in_peace(
    replicas: Sequence[Replica], provider: Emulator
) -> None:
    provider.fault("delay", seconds=0.1)
    lines = [line(f"p{i}", seed=i + 1) for i in range(20)]
    async with sdk(replicas[0].url) as here:
        batch = await submit(here, lines)
    async with asyncio.timeout(30):
        while len(provider.charges) < 4:
            await asyncio.sleep(0.02)
    (running,) = (each for each in replicas if runs(each, batch.id))
    (other,) = (each for each in replicas if each is not running)
    await asyncio.to_thread(running.terminate)
    async with sdk(other.url) as client:
        batch = await finish(client, batch)
        outputs = await results(client, batch.output_file_id)
    assert outputs.keys() == {f"p{i}" for i in range(20)}
    assert len(provider.charges) == 20
    assert json.dumps(batch.to_dict()).count("_lease") == 0
