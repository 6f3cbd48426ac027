"""A hostile provider behind the gateway: one clear error for the caller, and its key is in no answer, file or log."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from impasto_plugins.gateway.telemetry import access_log
from tests.distributions import OPERATIONS, install
from tests.plugins.gateway.conftest import Running, Start, config, entry
from tests.reliability.hostile import KEY, MODEL, event, job
from tests.reliability.servers import Answer, Server, head, http, in_json, raw

PLUGIN = "from tests.reliability.hostile import operation\n\npaint = operation()\n"
ECHO = f"you sent {KEY}"
NOT_YET = in_json({"poll": "/status"})


@pytest.fixture
async def villain(start: Start, provider: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    install(tmp_path / "site", "impasto-villain", {OPERATIONS: {MODEL: "impasto_villain:paint"}}, {})
    (tmp_path / "site" / "impasto_villain.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    entries = entry("paint", MODEL, provider.url, key=KEY)
    return await start(config(provider.url, entries=entries, general="  timeout: 1\n"))


ECHOES: dict[str, Answer] = {
    "an unusable answer": http(200, ECHO.encode(), content_type="text/plain", x_request_id=ECHO),
    "an image with a request id": http(200, b"no image", content_type="image/png", x_request_id=ECHO),
    "a refusal": in_json({"error": {"message": ECHO, "code": ECHO}}, 400, x_request_id=ECHO),
    "a job's id": job(id=ECHO),
    "an address": in_json({"url": f"https://{KEY}.example/{KEY}", "id": ECHO}),
    "a stream that is cut": raw(
        head(200, {"content-type": "text/event-stream"}) + event({"failed": 1}) + f"data: {KEY}\n\n".encode(),
        end="close",
    ),
}


@pytest.mark.parametrize("name", ECHOES)
async def test_a_key_that_the_provider_repeats_is_in_no_answer_file_or_log(
    villain: Running, provider: Server, state: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    access_log.access_logger.setLevel(logging.DEBUG)
    provider.posts, provider.polls = [ECHOES[name]], [NOT_YET]
    answer = await villain.ask(
        "POST",
        "/v1/images/generations",
        json={"model": "paint", "prompt": "p"},
        headers={"idempotency-key": "one"},
    )
    files = re.findall(r"/v1/images/files/[\w-]+\.\w+", str(answer.error["message"]))
    stored = [(await villain.ask("GET", path)).body for path in files]
    assert len(provider.paid) == 1
    texts = [str(answer), answer.body, *stored, (await villain.ask("GET", "/metrics")).body, caplog.text]
    texts += [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    assert [text[:200] for text in texts if KEY[:12] in str(text)] == []
    assert '"provider_request_ids"' in caplog.text
