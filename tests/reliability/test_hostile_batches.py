"""A hostile provider in a batch: each image is requested once, over all runs of it, and the key is in no file."""

from __future__ import annotations

from pathlib import Path

import pytest

import impasto
from tests.reliability.hostile import KEY, MODEL, PICTURE, attacked, event, images, job
from tests.reliability.servers import Answer, ServedRequest, Wire, head, http, in_json, raw

ECHO = f"you sent {KEY}"
AGAIN = impasto.Retry(base=0.001, cap=0.002)
ANSWERS: dict[str, tuple[Answer, str]] = {
    "redirect": (http(307, b"", location="/elsewhere", x_request_id=ECHO), "ambiguous"),
    "shorter length": (raw(head(200, {"content-type": "image/png", "content-length": "9"}) + b"x" * 99), "ambiguous"),
    "reset": (raw(end="reset"), "ambiguous"),
    "millions of lists": (in_json([[]] * 1_200_000), "ambiguous"),
    "no image": (in_json({"images": []}, x_request_id=ECHO), "unusable"),
    "an address outside": (in_json({"url": f"https://evil.example/{KEY}"}), "unusable"),
    "a stream that is cut": (
        raw(head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}), end="close"),
        "ambiguous",
    ),
    "a failure of no bill": (in_json({"failed": KEY}, x_request_id=ECHO), "ambiguous"),
    "an answer in words": (http(200, ECHO.encode(), content_type="text/plain"), "unusable"),
    "a job with the key in its id": (job(id=ECHO), "done"),
    "a free refusal": (in_json({"error": {"message": ECHO, "code": ECHO}}, 400, x_request_id=ECHO), "refused"),
}


async def outcomes(client: impasto.Client, out: Path) -> list[str]:
    rows = [{"id": f"row-{i}", "model": MODEL, "prompt": "a kite"} for i in range(3)]
    return [each.state async for each in client.batch(rows, out=out)]


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_batch_requests_each_image_once(name: str, tmp_path: Path) -> None:
    answer, state = ANSWERS[name]
    async with attacked(answer, retry=AGAIN, timeout=20.0) as (client, server):
        assert await outcomes(client, tmp_path / "out") == [state] * 3
        assert len(server.paid) == 3
        await outcomes(client, tmp_path / "out")
        assert len(server.paid) == 3, "nothing is requested again, since the run before reported each"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert [path.name for path in written if KEY[:12].encode() in path.read_bytes()] == []


async def test_a_batch_takes_up_a_job_whose_polls_misbehave(tmp_path: Path) -> None:
    """The first run gives up; the second fetches the paid images with free polls."""
    polls: list[Answer] = [http(302, b"", location="/elsewhere")]

    async def status(request: ServedRequest, wire: Wire) -> None:
        await polls[0](request, wire)

    async with attacked(job(), status, timeout=0.3) as (client, server):
        assert set(await outcomes(client, tmp_path / "out")) == {"pending"}
        polls[0] = http(200, event(images()), content_type="text/event-stream")
        again = await outcomes(client.with_options(timeout=20.0), tmp_path / "out")
        assert (again[-3:], len(server.paid)) == (["done"] * 3, 3)


async def test_a_good_answer_is_done(tmp_path: Path) -> None:
    async with attacked(PICTURE) as (client, server):
        assert await outcomes(client, tmp_path / "out") == ["done"] * 3
        await outcomes(client, tmp_path / "out")
        assert len(server.paid) == 3
