"""A provider that makes several images in one request: a row's images share requests, and each is stored alone."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from tests.distributions import install
from tests.images import png

from .conftest import Run, Start, Write, ledger_rows, lines, row

OUT = Path("out")
PRICE = 0.04

PLUGIN = """
import asyncio, base64, json, os, re
import attrs
from impasto import (
    Artifact, BadRequest, ChargeUnknown, ContentFiltered, Cost, FailedArtifact, FlatPrice, Operation, Pending,
    Provider, Result, Usage, WireRequest,
)
from impasto.dialects import images_from_urls, images_of_job, unusable
from impasto.fields import integer, text


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True)
    seed: int | None = integer(0, 1000)
    samples: int | None = integer(1, 4)


class Dialect:
    def transform_request(self, operation, request, account):
        if request.job is not None and operation.id == "acme/signed":
            return images_of_job(request.job, account, re.compile("http://[^ ]+/images/[0-9-]+"), anonymous=True)
        if request.job is not None:
            return WireRequest(target=f"/jobs/{request.job}", method="GET")
        fields = attrs.asdict(request.params, filter=lambda _, value: value is not None)
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation, response):
        if response.status == 400:
            return BadRequest("no", status=400)
        status = response.status
        return None if status in (200, 202) else ChargeUnknown(f"HTTP {status}", status=status)

    def normalize_response(self, operation, request, response):
        if response.media_type == "image/png":
            return Result(artifacts=(Artifact(data=response.body, media_type="image/png"),))
        body = json.loads(response.body)
        if "urls" in body:
            return images_from_urls(
                body["urls"], response, anonymous=True, seeds=body["seeds"], revised_prompts=body["prompts"],
                usage=Usage(input_tokens=10, output_tokens=100), cost=Cost(usd=0.2, as_of="2026-11-01"), result_ttl=3e3,
            )
        if "id" in body:
            poll = WireRequest(target=f"/jobs/{body['id']}", method="GET")
            return Pending(id=body["id"], poll=poll, first=0.01, interval=0.01)
        return Result(
            artifacts=tuple(
                Artifact(data=base64.b64decode(each), media_type="image/png") for each in body["images"] if each
            ),
            errors=tuple(
                FailedArtifact(index=i, error=unusable(f"has no complete image {i + 1}", response)) if each == "" else
                FailedArtifact(index=i, error=ContentFiltered("filtered", status=200, billed="no"))
                for i, each in enumerate(body["images"]) if not each
            ),
            usage=Usage(input_tokens=10, output_tokens=100) if "tokens" in body else None,
            cost=Cost(usd=body["usd"], as_of="2026-11-01") if "usd" in body else None,
        )


def model(name, price=0.04):
    return Operation(
        id=f"acme/{name}", title=name, params=Params, target=f"/{name}", dialect=Dialect(),
        provider=Provider(
            name="acme", base_url="https://api.acme.example", base_url_variable="ACME_API_BASE",
            key_variable="ACME_API_KEY", poll_interval=0.01,
        ),
        native_n=("samples", 4), price=FlatPrice(cost=Cost(usd=price, as_of="2026-11-01")) if price else None,
    )


fine, job, unpriced, lacking, filtered, hanging, signed, garbled, damaged = (
    model("fine"), model("job"), model("unpriced", None), model("lacking"), model("filtered"), model("hanging"),
    model("signed"), model("garbled"), model("damaged"),
)

if os.environ.get("ACME_DIES"):
    from impasto_plugins.batch.ledger.recorder import LedgerRecorder

    store = LedgerRecorder.store_result

    async def dies(self, unit, outcome):
        if unit.index < 2:
            return await store(self, unit, outcome)
        await asyncio.sleep(0.3)
        os._exit(9)

    LedgerRecorder.store_result = dies
"""
MODELS = ("fine", "job", "unpriced", "lacking", "filtered", "hanging", "signed", "garbled", "damaged")


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a killed process leaves its connections broken."""


class Vendor(BaseHTTPRequestHandler):
    """Makes as many images as are asked for; a request without a number gets the vendor's own four."""

    posts: ClassVar[list[dict[str, Any]]] = []
    polls: ClassVar[list[str]] = []
    is_job_done: ClassVar[bool] = True
    refused: ClassVar[set[int]] = set()
    """Indices of images that their host refuses."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.posts.append(body)
        number, first = body.get("samples", 4), body.get("seed", 0)
        images: list[str | None] = [base64.b64encode(png(8, 8 + first + i)).decode() for i in range(number)]
        answer: dict[str, object] = {"images": images, "tokens": 1}
        match self.path:
            case "/job":
                type(self).posts[-1]["images"] = images
                self.answer(202, {"id": f"job-{len(self.posts)}"})
                return
            case "/signed":
                type(self).posts[-1]["images"] = images
                here = f"http://{self.headers['host']}/images/{len(self.posts)}"
                urls, seeds = [f"{here}-{index}" for index in range(number)], [first + i for i in range(number)]
                prompts = [f"a finer cat {index}" for index in range(number)]
                self.answer(200, {"urls": urls, "seeds": seeds, "prompts": prompts})
                return
            case "/lacking":
                images.pop()
            case "/filtered":
                images[0] = None
            case "/unpriced":
                answer["usd"] = 0.07
            case "/damaged":
                images[1:] = [""] * (number - 1)
            case "/garbled":
                answer = {"pictures": images}
            case "/hanging":
                return  # the connection ends without an answer
        self.answer(200, answer)

    def do_GET(self) -> None:
        self.polls.append(self.path)
        if self.path.startswith("/images/"):
            number, index = map(int, self.path.rpartition("/")[2].split("-"))
            image = base64.b64decode(self.posts[number - 1]["images"][index])
            is_there = self.is_job_done or index == 0
            if index in self.refused:
                self.answer_bytes(403, b"<Error>AccessDenied</Error>", "application/xml")
                return
            self.answer_bytes(200 if is_there else 503, image if is_there else b"", "image/png")
            return
        if not self.is_job_done:
            self.answer(202, {"id": self.path.rpartition("/")[2]})
            return
        post = self.posts[int(self.path.rpartition("-")[2]) - 1]
        self.answer(200, {"images": post["images"]})

    def answer(self, status: int, body: dict[str, object]) -> None:
        self.answer_bytes(status, json.dumps(body).encode(), "application/json")

    def answer_bytes(self, status: int, data: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def vendor(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> Iterator[type[Vendor]]:
    site = tmp_path_factory.mktemp("site")
    points = {"impasto.operations": {f"acme/{name}": f"native:{name}" for name in MODELS}}
    install(site, "acme-native", points, {"native": PLUGIN})
    monkeypatch.syspath_prepend(str(site))
    Vendor.posts, Vendor.polls, Vendor.is_job_done, Vendor.refused = [], [], True, set()
    server = QuietServer(("127.0.0.1", 0), Vendor)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    environment["ACME_API_KEY"] = "acme-key-of-tests"
    environment["ACME_API_BASE"] = f"http://127.0.0.1:{server.server_port}"
    environment["PYTHONPATH"] = str(site)
    yield Vendor
    server.shutdown()
    thread.join()
    server.server_close()


def several(id: str, n: int, model: str = "fine", **fields: object) -> dict[str, object]:
    return row(id, model=f"acme/{model}", n=n, **fields)


def results() -> dict[str, Any]:
    return {str(line["custom_id"]): line["response"]["body"] for line in lines(OUT / "results.jsonl")}  # type: ignore[index]


def test_a_row_of_six_makes_requests_of_four_and_two(batch: Run, manifest: Write, vendor: type[Vendor]) -> None:
    manifest(several("cat", 6, seed=10), several("dog", 1))
    done = batch("run", "manifest.jsonl", "--out", "out", "--concurrency", "1")
    assert (done.exit_code, done.stdout) == (0, "complete: 7 of 7 done, charged: 0.28 USD\n")
    assert [(post["samples"], post.get("seed")) for post in vendor.posts] == [(4, 10), (2, 14), (1, None)]
    cat = results()["cat"]
    assert [each["index"] for each in cat["data"]] == [0, 1, 2, 3, 4, 5]
    assert cat["usd"] == pytest.approx(6 * PRICE)
    assert "warnings" not in cat
    assert cat["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 20},
        "output_tokens": 200,
        "total_tokens": 220,
    }
    for index, each in enumerate(cat["data"]):  # every image is that of its seed
        assert (OUT / each["path"]).read_bytes() == png(8, 18 + index)


def test_an_image_that_did_not_come_fails_alone(batch: Run, manifest: Write, vendor: type[Vendor]) -> None:
    manifest(several("cat", 3, "lacking"), several("dog", 3, "filtered", seed=1))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    assert [each["index"] for each in results()["cat"]["data"]] == [0, 1]
    assert [each["index"] for each in results()["dog"]["data"]] == [1, 2]
    assert (OUT / "dog-1.png").read_bytes() == png(8, 10)
    failures = {line["custom_id"]: (line["index"], line["error"]["code"]) for line in lines(OUT / "errors.jsonl")}  # type: ignore[index]
    assert failures == {"cat": (2, "unusable_result"), "dog": (0, "moderation_blocked")}
    status = json.loads(batch("status", "out", "--json").stdout)
    assert {name: status[name] for name in ("total", "done", "unusable", "filtered", "charges_unknown")} == {
        "total": 6,
        "done": 4,
        "unusable": 1,
        "filtered": 1,
        "charges_unknown": 1,
    }
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    assert len(vendor.posts) == 2, "nothing is requested again"


def test_a_request_that_breaks_off_may_have_charged_each_image(
    batch: Run, manifest: Write, vendor: type[Vendor]
) -> None:
    manifest(several("cat", 4, "hanging"))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    status = json.loads(batch("status", "out", "--json").stdout)
    assert (status["ambiguous"], status["charges_unknown"]) == (4, 4)
    assert status["cost_usd"] == pytest.approx(4 * PRICE)
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    assert len(vendor.posts) == 1


def test_an_answer_that_can_not_be_read_is_stored_once_for_all_its_images(batch: Run, manifest: Write) -> None:
    manifest(several("cat", 4, "garbled"), several("dog", 2, "garbled"))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    errors: Any = lines(OUT / "errors.jsonl")
    assert len(errors) == 6
    saved = {(each["custom_id"], *each["error"]["kept"]) for each in errors}
    assert sorted(id for id, _ in saved) == ["cat", "dog"]
    for _, path in saved:
        assert b"pictures" in (OUT / path).read_bytes()
        assert len(list((OUT / path).parent.iterdir())) == 2


def test_an_answer_with_several_damaged_images_is_stored_once(batch: Run, manifest: Write) -> None:
    manifest(several("cat", 4, "damaged"), several("dog", 2, "damaged"))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    errors: Any = lines(OUT / "errors.jsonl")
    came = sorted((each["custom_id"], each["index"]) for each in errors)
    assert came == [("cat", 1), ("cat", 2), ("cat", 3), ("dog", 1)]
    for id in ("cat", "dog"):
        (path,) = {path for each in errors if each["custom_id"] == id for path in each["error"]["kept"]}
        assert json.loads((OUT / path).read_bytes())["images"][1] == ""
    assert len(list((OUT / "kept").iterdir())) == 2


def test_a_budget_has_room_for_all_images_of_a_request(batch: Run, manifest: Write, vendor: type[Vendor]) -> None:
    manifest(several("cat", 4), several("dog", 4))
    done = batch("run", "manifest.jsonl", "--out", "out", "--budget", "0.30", "--concurrency", "1")
    assert done.exit_code == 1
    assert "a request for 4 images of acme/fine may cost 0.16" in done.stderr
    assert [post["samples"] for post in vendor.posts] == [4]


def test_a_budget_without_a_price_sends_nothing(batch: Run, manifest: Write, vendor: type[Vendor]) -> None:
    manifest(several("cat", 4, "unpriced"))
    done = batch("run", "manifest.jsonl", "--out", "out", "--budget", "5")
    assert done.exit_code != 0
    assert "the price of acme/unpriced is unknown" in done.stderr
    assert vendor.posts == []


def test_the_cost_that_the_provider_reports_is_the_cost(batch: Run, manifest: Write) -> None:
    manifest(several("cat", 4, "unpriced"))
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert done.exit_code == 0
    assert results()["cat"]["usd"] == pytest.approx(0.07)
    assert json.loads(batch("status", "out", "--json").stdout)["cost_usd"] == pytest.approx(0.07)


def test_a_kill_while_a_job_of_four_runs_pays_nothing_twice(
    batch: Run, start: Start, manifest: Write, vendor: type[Vendor]
) -> None:
    manifest(several("cat", 4, "job", seed=1))
    vendor.is_job_done = False
    process = start("run", "manifest.jsonl", "--out", "out")
    while len(vendor.polls) < 2:  # the job's id is in the ledger before the first
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    vendor.is_job_done = True
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert (done.exit_code, done.stdout) == (0, "complete: 4 of 4 done, charged: 0.16 USD\n")
    assert len(vendor.posts) == 1
    cat = results()["cat"]
    assert [each["index"] for each in cat["data"]] == [0, 1, 2, 3]
    assert "warnings" not in cat
    assert [(OUT / each["path"]).read_bytes() for each in cat["data"]] == [png(8, 9 + i) for i in range(4)]


def test_a_kill_while_images_are_fetched_from_their_addresses_loses_none(
    batch: Run, start: Start, manifest: Write, vendor: type[Vendor]
) -> None:
    manifest(several("cat", 4, "signed", seed=1))
    vendor.is_job_done = False
    process = start("run", "manifest.jsonl", "--out", "out")
    while len(set(vendor.polls)) < 4:
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    vendor.is_job_done = True
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert (done.exit_code, done.stdout) == (0, "complete: 4 of 4 done, charged: 0.20 USD\n")
    assert len(vendor.posts) == 1
    check_signed(4)


def check_signed(n: int) -> None:
    """Check the results of a row whose first answer says more than addresses, whoever fetched the images."""
    cat = results()["cat"]
    assert [(OUT / each["path"]).read_bytes() for each in cat["data"]] == [png(8, 9 + i) for i in range(n)]
    assert [each["seed"] for each in cat["data"]] == [1 + i for i in range(n)]
    assert [each["revised_prompt"] for each in cat["data"]] == [f"a finer cat {i}" for i in range(n)]
    assert (cat["usage"]["input_tokens"], cat["usage"]["output_tokens"]) == (10, 100)
    assert cat["usd"] == pytest.approx(0.2)


def test_a_kill_among_the_rows_of_four_images_keeps_each_in_its_place(
    batch: Run, start: Start, manifest: Write, vendor: type[Vendor]
) -> None:
    """The first images of a job are stored, the others not: they are fetched again and no image is stored twice."""
    manifest(several("cat", 4, "job", seed=1))
    process = start("run", "manifest.jsonl", "--out", "out", ACME_DIES="1")
    process.communicate(timeout=30)
    assert process.returncode == 9
    kinds = [(each["row"], each["index"]) for each in ledger_rows(OUT) if "index" in each]
    assert ("done", 0) in kinds
    assert ("done", 3) not in kinds
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert (done.exit_code, len(vendor.posts)) == (0, 1)
    assert [each["index"] for each in results()["cat"]["data"]] == [0, 1, 2, 3]
    assert [(OUT / each["path"]).read_bytes() for each in results()["cat"]["data"]] == [png(8, 9 + i) for i in range(4)]


def test_a_folder_of_the_version_before_is_resumed(batch: Run, manifest: Write) -> None:
    """It was left by a run that was killed: two images are done, one was requested, two were not."""
    shutil.copytree(Path(__file__).parent / "ledger" / "folder_before_native_n", OUT)
    rows = [row("cat", prompt="a cat", seed=5, n=2), row("dog", prompt="a dog", n=2), row("owl", prompt="an owl")]
    manifest(*rows)
    done = batch("run", "manifest.jsonl", "--out", "out", "--emulator")
    assert done.exit_code == 1
    assert "the last run stopped before 1 image came that may have been charged" in done.stderr
    status = json.loads(batch("status", "out", "--json").stdout)
    assert {name: status[name] for name in ("total", "done", "ambiguous", "cost_usd")} == {
        "total": 5,
        "done": 4,
        "ambiguous": 1,
        "cost_usd": 0.15,
    }
    intents = [(each["id"], each["index"]) for each in ledger_rows(OUT) if each["row"] == "intent"]
    assert sorted(intents) == [("cat", 0), ("cat", 1), ("dog", 0), ("dog", 1), ("owl", 0)]
