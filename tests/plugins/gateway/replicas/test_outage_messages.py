"""What callers read while the state or the bucket is away: never where it is, who uses it, or a folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.storage import bucket as bucket_contents
from impasto_plugins.transports import s3
from tests.moto_s3 import Bucket
from tests.plugins.gateway.api.test_jobs import URI
from tests.plugins.gateway.batches.conftest import finish, jsonl, line, submit
from tests.plugins.gateway.conftest import Answer, Running, Start, config, key_entry
from tests.postgres import PASSWORD, PostgresServer, own_server

from .conftest import stored_in
from .processes import Balancer

pytestmark = [pytest.mark.waits, pytest.mark.usefixtures("short_window")]

LIMITED = "sk-limited-" + "k" * 24
PATH = "/v1/images/generations"
BODY = {"model": "sd3", "prompt": "a fox"}
EDIT = {"model": "creative", "prompt": "a fox", "images": [{"image_url": URI}]}


@attrs.frozen
class World:
    """A gateway, its database, the way to its bucket, and what the gateway had before the outage."""

    gateway: Running
    database: PostgresServer
    gate: Balancer
    secrets: frozenset[str]
    names: Mapping[str, str]

    async def answers(self) -> AsyncIterator[tuple[str, Answer]]:
        """Yield the answer to a request of each kind."""
        ask = self.gateway.ask
        limited = {"authorization": f"Bearer {LIMITED}"}
        for what, headers in {
            "a call": {},
            "a call with a key": {"idempotency-key": "new"},
            "a repeated call": {"idempotency-key": "before"},
            "an SDK's retry": {"x-stainless-retry-count": "1"},
            "a job": {"prefer": "respond-async"},
            "a call of a key with limits": limited,
        }.items():
            yield what, await ask("POST", PATH, json=BODY, headers=headers)
            yield f"{what}, several images", await ask("POST", PATH, json={**BODY, "n": 2}, headers=headers)
            yield f"{what}, an edit", await ask("POST", "/v1/images/edits", json=EDIT, headers=headers)
        yield "a stream", await ask("POST", PATH, json={**BODY, "stream": True})
        yield "URLs", await ask("POST", PATH, json={**BODY, "response_format": "url"})
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", jsonl([line("a")]), filename="in.jsonl")
        yield "an upload", await ask("POST", "/v1/files", data=form)
        batch = {"input_file_id": self.names["file"], "endpoint": PATH, "completion_window": "24h"}
        yield "a new batch", await ask("POST", "/v1/batches", json=batch)
        for path in (
            "images/jobs/{job}", "images/files/{image}", "files", "files/{file}", "files/{file}/content",
            "files/{output}/content", "batches", "batches/{batch}", "models", "models/sd3",
        ):  # fmt: skip
            yield path, await ask("GET", "/v1/" + path.format(**self.names))
        yield "cancel", await ask("POST", f"/v1/batches/{self.names['batch']}/cancel")
        yield "delete", await ask("DELETE", f"/v1/files/{self.names['file']}")
        for path in ("/health/liveliness", "/health/readiness", "/metrics"):
            yield path, await ask("GET", path)


@pytest.fixture
def gate(own_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Balancer]:
    monkeypatch.setattr(bucket_contents, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(s3, "_PAUSE", 0.01)
    monkeypatch.setattr(s3, "_MAX_PAUSE", 0.05)
    with Balancer([int(own_bucket.url.rpartition(":")[2])]) as gate:
        yield gate


@pytest.fixture
async def world(
    start: Start, impasto_emulator: Emulator, own_bucket: Bucket, gate: Balancer, tmp_path: Path
) -> AsyncIterator[World]:
    with own_server() as database:
        general = f"  state: {database.dsn(schema='records_of_it')}\n  data_dir: {tmp_path / 'data'}\n"
        keys = f"keys:\n{key_entry('limited', LIMITED, images_per_day=100)}"
        more = stored_in(own_bucket, gate.url) + keys
        gateway = await start(config(impasto_emulator.url, general=general, more=more))
        ask = gateway.ask
        before: Any = await ask("POST", PATH, json={**BODY, "n": 1}, headers={"idempotency-key": "before"})
        assert before.status == 200, before.body
        job = await ask("POST", PATH, json=BODY, headers={"prefer": "respond-async"})
        batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))
        assert batch.status == "completed"
        names = {
            "job": job.headers["location"].rpartition("/")[2],
            "image": "a" * 43 + ".png",
            "file": batch.input_file_id,
            "output": batch.output_file_id,
            "batch": batch.id,
        }
        secrets = {
            f":{database.port}", str(gate.port), own_bucket.name, str(tmp_path), "postgres:", "postgresql:", PASSWORD,
            "records_of_it", "AKIATEST", "secret-of-the-test",
        }  # fmt: skip
        yield World(gateway, database, gate, frozenset(secrets), names)


@pytest.mark.parametrize("away", ["the state", "the bucket"])
async def test_no_answer_says_where_it_is(world: World, away: str, caplog: pytest.LogCaptureFixture) -> None:
    if away == "the state":
        await asyncio.to_thread(world.database.stop)
    else:
        world.gate.go_away()
    refused = set[str]()
    async for what, answer in world.answers():
        text = f"{answer.headers} {answer.body.decode('utf-8', 'replace')}"
        assert [secret for secret in world.secrets if secret in text] == [], f"{what}: {text}"
        if answer.status >= 500:
            refused.add(what)
    assert {"a call with a key", "a job", "an upload", "/health/readiness"} <= refused
    if away == "the state":
        assert {"a call", "a stream", "URLs", "a call of a key with limits", "files", "batches"} <= refused
        answer = await world.gateway.generate()
        assert (answer.error["code"], answer.headers["x-should-retry"]) == ("overloaded", "true")
        assert "its log has the reason; nothing was sent" in str(answer.error["message"])
        assert f"127.0.0.1:{world.database.port}" in caplog.text
