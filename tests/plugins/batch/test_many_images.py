"""A provider that answers one request with several images: all are kept, counted and paid for once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import impasto
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.distributions import install
from tests.plugins.test_many_artifacts import SEVERAL

from .conftest import Run, Write, lines, row

OUT = Path("out")
PRICE = 0.03


@pytest.fixture(autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path_factory.mktemp("site")
    points = {"impasto.operations": {f"acme/{name}": f"several:{name}" for name in ("four", "none")}}
    install(site, "acme-several", points, {"several": SEVERAL})
    monkeypatch.syspath_prepend(str(site))


def four(id: str, **fields: object) -> dict[str, object]:
    return row(id, model="acme/four", **fields)


def test_all_images_are_kept_and_counted(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(four("cat", seed=1), four("dogs", n=2, seed=5), row("plain", seed=9))
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert (done.exit_code, done.stdout) == (0, f"complete: 13 of 13 done, charged: {13 * PRICE:.2f} USD\n")
    assert "9 more images came than were requested; all of them are saved" in done.stderr
    assert len(impasto_emulator.charges) == 4
    found = {str(line["custom_id"]): line["response"]["body"] for line in lines(OUT / "results.jsonl")}  # type: ignore[index]
    assert {id: [each["index"] for each in body["data"]] for id, body in found.items()} == {
        "cat": [0, 1, 2, 3],
        "dogs": list(range(8)),
        "plain": [0],
    }
    assert found["cat"]["usd"] == pytest.approx(4 * PRICE)
    assert found["cat"]["warnings"] == ["the provider answered one request with 4 artifacts: all are counted"]
    paths = [each["path"] for body in found.values() for each in body["data"]]
    assert len(set(paths)) == 13
    assert {"cat.png", "cat-1.png", "cat-3.png", "dogs-0.png", "dogs-7.png", "plain.png"} < set(paths)
    assert all((OUT / path).is_file() for path in paths)
    text = (OUT / "report.html").read_text()
    assert text.count("<p>a lighthouse</p>") == text.count("<figure>") == 13
    status = json.loads(batch("status", "out", "--json").stdout)
    assert (status["state"], status["total"], status["done"], status["strangers"]) == ("complete", 13, 13, 0)


def test_a_second_run_knows_them(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(four("cat"), four("dogs", n=2))
    assert batch("run", "manifest.jsonl", "--out", "out", "--budget", "0.15", "--concurrency", "1").exit_code == 1
    assert len(impasto_emulator.charges) == 2
    manifest(four("dogs", n=2), row("plain"))
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert (done.exit_code, len(impasto_emulator.charges)) == (0, 4)
    assert "the manifest no longer has 4 images of earlier runs" in done.stderr
    status = json.loads(batch("status", "out", "--json").stdout)
    assert (status["state"], status["total"], status["done"], status["strangers"]) == ("complete", 9, 9, 4)
    indices = {
        str(line["custom_id"]): [each["index"] for each in line["response"]["body"]["data"]]  # type: ignore[index]
        for line in lines(OUT / "results.jsonl")
    }
    assert indices == {"cat": [0, 1, 2, 3], "dogs": list(range(8)), "plain": [0]}


def test_the_budget_counts_what_came(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*(four(f"cat-{number}") for number in range(9)))
    done = batch("run", "manifest.jsonl", "--out", "out", "--budget", "0.25", "--concurrency", "1")
    assert done.exit_code == 1
    assert len(impasto_emulator.charges) == 2, "8 images for 0.24 USD"


def test_an_answer_without_an_image_is_unusable(batch: Run, manifest: Write) -> None:
    manifest(row("none", model="acme/none"))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    (line,) = lines(OUT / "errors.jsonl")
    error = line["error"]
    assert (error["code"], error["billed"], error["usd"]) == ("unusable_result", "yes", PRICE)  # type: ignore[index]
    (path,) = error["kept"]  # type: ignore[index]
    assert (OUT / path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("folder", [True, False], ids=["with a folder", "without"])
async def test_from_a_program(impasto_emulator: Emulator, tmp_path: Path, folder: bool) -> None:
    more: impasto.BatchOptions = {"out": tmp_path / "out"} if folder else {}
    requests = [four("cat"), four("dogs", n=2)]
    async with impasto.Client(api_key=KEY, api_base=impasto_emulator.url) as client:
        outcomes: list[impasto.Outcome] = []
        for _ in range(2 if folder else 1):
            outcomes = [outcome async for outcome in client.batch(requests, **more)]
            assert {(each.id, each.index) for each in outcomes} == {
                *(("cat", index) for index in range(4)),
                *(("dogs", index) for index in range(8)),
            }
            assert {each.state for each in outcomes} == {"done"}
            if folder:
                assert len({each.path for each in outcomes}) == 12
        costs = [each.cost.usd for each in outcomes if each.cost is not None]
        assert len(impasto_emulator.charges) == 3
        assert folder or sum(costs) == pytest.approx(12 * PRICE)


BESIDE = """
import attrs
from impasto import ContentFiltered, FailedArtifact, File, UnusableResult
from several import model, Several


class Beside(Several):
    def normalize_response(self, operation, request, response):
        result = Several.normalize_response(self, operation, request, response)
        filtered = ContentFiltered("blurred", status=200)
        filtered.artifacts, filtered.billed = result.artifacts[:2], "unknown"
        unusable = UnusableResult("no image", raw=b"<html>")
        nested = UnusableResult("too large for memory")
        nested.file = File.of(b"<spooled>")
        filtered.errors = (nested,)
        lost = tuple(FailedArtifact(index=index + 4, error=error) for index, error in enumerate((filtered, unusable)))
        return attrs.evolve(result, errors=lost)


beside = attrs.evolve(model("beside", 2), dialect=Beside(2))
"""


def test_unusable_answers_beside_images_are_saved(
    batch: Run, manifest: Write, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("beside")
    install(site, "acme-beside", {"impasto.operations": {"acme/beside": "beside:beside"}}, {"beside": BESIDE})
    monkeypatch.syspath_prepend(str(site))
    manifest(row("cat", model="acme/beside", n=2, seed=1))
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert done.stdout == "complete: 4 of 4 done, charged: 0.24 USD\n", (
        "4 images and 4 that were or may have been charged"
    )
    (line,) = lines(OUT / "results.jsonl")
    warnings = line["response"]["body"]["warnings"]  # type: ignore[index]
    messages = [
        each for each in warnings if each.startswith("bytes of failed images of the same answer are saved in: ")
    ]
    paths = [path for each in messages for path in each.partition(": ")[2].split(", ")]
    assert len(messages) == 2
    assert {path.relative_to(OUT).as_posix() for path in (OUT / "kept").iterdir()} == set(paths)
    assert len(set(paths)) == 4, "the same content is stored once"
    images = {path for path in paths if path.endswith(".png")}
    assert len(images) == 2
    assert all((OUT / path).read_bytes().startswith(b"\x89PNG") for path in images)
    assert {(OUT / path).read_bytes() for path in paths if path not in images} == {b"<html>", b"<spooled>"}
