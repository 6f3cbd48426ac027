"""The contact sheet and the sets for training, as those who open them find them."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image
from pyarrow import parquet  # type: ignore[import-untyped]  # it ships no types

from impasto_plugins.batch.output import report
from impasto_plugins.emulator import Emulator
from tests.plugins.batch.conftest import Run, Write, many, row

NASTY = "<script>alert(1)</script> \" ' & </figure> {{7*7}} $title é漢"


class Page(HTMLParser):
    """What a browser makes of a page: its tags, its texts, where it leads and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.leads += [value or "" for name, value in attrs if name == "href"]
        self.loads += [value or "" for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_contact_sheet(batch: Run, manifest: Write) -> None:
    manifest(row(f"{NASTY[:8]}b&' id".replace("/", ""), prompt=NASTY), row("bad", prompt=f"[public_figure] {NASTY}"))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    text = Path("out/report.html").read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert page.text.count(NASTY) == 2, "as it was asked for, for the picture and for the failure"
    assert "provider_refused" in page.text
    assert "0.03 USD" in page.text
    (picture,) = page.leads
    assert (Path("out") / unquote(picture)).is_file()
    (thumbnail,) = page.loads
    kind, _, data = thumbnail.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert max(small.size) <= 256
    match = re.search(r"(https?:)?//[a-z]", text.replace("<!doctype", "").replace(data, ""))
    assert not match, "it names no address at all"
    assert "default-src 'none'" in text


def test_no_report_if_not_asked_for(batch: Run, manifest: Write) -> None:
    manifest(row("a"))
    batch("run", "manifest.jsonl", "--out", "out", "--no-report")
    assert not Path("out/report.html").exists()


def test_pages_of_a_large_batch(batch: Run, manifest: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "A_PAGE", 2)
    manifest(*many(5))
    batch("run", "manifest.jsonl", "--out", "out")
    assert "The first 2 images are shown" in Path("out/report.html").read_text()
    assert batch("report", "out", "--all").stdout.splitlines() == [
        "out/report.html",
        "out/report-2.html",
        "out/report-3.html",
    ]
    pages = [Page(Path("out", name).read_text()) for name in ("report.html", "report-2.html", "report-3.html")]
    assert [len(page.loads) for page in pages] == [2, 2, 1]


def test_a_picture_that_is_gone_or_damaged_spoils_no_report(batch: Run, manifest: Write) -> None:
    manifest(*many(2))
    batch("run", "manifest.jsonl", "--out", "out")
    Path("out/picture-0.png").unlink()
    Path("out/picture-1.png").write_bytes(b"none")
    assert batch("report", "out").exit_code == 0
    assert Page(Path("out/report.html").read_text()).loads == []


def test_a_webdataset(batch: Run, manifest: Write) -> None:
    manifest(*many(3), row("bad", prompt="[public_figure]"))
    batch("run", "manifest.jsonl", "--out", "out")
    assert batch("export", "out", "--form", "webdataset", "-o", "set", "--shard", "2").stdout.splitlines() == [
        "set/00000.tar",
        "set/00001.tar",
    ]
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(Path("set").iterdir()):
        with tarfile.open(path) as tar:
            for entry in tar:
                key, _, kind = entry.name.partition(".")
                file = tar.extractfile(entry)
                assert file is not None
                samples.setdefault(key, {})[kind] = file.read()
    assert len(samples) == 3
    for sample in samples.values():
        facts = json.loads(sample["json"])
        assert sample["txt"] == b"a lighthouse"
        assert sample["png"] == Path("out", f"{facts['id']}.png").read_bytes()
        assert facts["request"]["seed"] == facts["seed"]


def test_a_parquet_set(batch: Run, manifest: Write) -> None:
    manifest(*many(3))
    batch("run", "manifest.jsonl", "--out", "out")
    assert batch("export", "out", "-o", "set").stdout == "set/00000.parquet\n"
    rows = parquet.read_table("set/00000.parquet").to_pylist()
    assert {each["seed"]: each["prompt"] for each in rows} == dict.fromkeys((1, 2, 3), "a lighthouse")
    for each in rows:
        assert each["image"]["bytes"] == Path("out", each["image"]["path"]).read_bytes()


def test_a_set_takes_no_folder_that_is_there(batch: Run, manifest: Write, tmp_path: Path) -> None:
    manifest(row("a"))
    batch("run", "manifest.jsonl", "--out", "out")
    (tmp_path / "set").mkdir()
    for words, message in (
        (("out", "-o", "set"), "'set' exists; give a folder that does not exist"),
        (("x", "-o", "y"), "is not a batch folder"),
    ):
        done = batch("export", *words)
        assert (done.exit_code, message in done.stderr) == (2, True)


def test_images_stand_in_the_manifests_order_and_failures_below_them(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("status", status=503, times=3)  # the first comes last: the next run makes it
    rows = [row(id, seed=number, prompt=f"a {id}") for number, id in enumerate("ecadb", 1)]
    manifest(rows[0], row("bad-2", prompt="a [public_figure]"), *rows[1:], row("bad-1", prompt="a [public_figure]"))
    batch("run", "manifest.jsonl", "--out", "out", "--concurrency", "1")
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    for words in ((), ("--all",)):
        batch("report", "out", *words)
        text = Path("out/report.html").read_text()
        assert re.findall("<b>([a-e])</b>", text) == list("ecadb")
        sheet, _, failures = text.partition('<h2 id="failures">')
        assert re.findall("<td>(bad-.)</td>", failures) == ["bad-2", "bad-1"]
        assert "bad-" not in sheet
        assert "Failures are below the images: 2." in sheet


def test_a_report_cuts_no_word(batch: Run, manifest: Write) -> None:
    words = [f"word{number}" for number in range(200)]
    manifest(row("good", prompt=" ".join(words)), row("bad", prompt=" ".join(["[public_figure]", *words])))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    style, _, text = Path("out/report.html").read_text().partition("</style>")
    texts = re.findall(r">([^<]*word[^<]*)<", text)
    assert len(texts) == 2
    for excerpt in texts:
        assert set(excerpt.split()) <= {*words, "[public_figure]", "…"}
    assert text.count(f'{" ".join(words)}"') == 2, "the whole prompt is there for whoever points at it"
    assert "anywhere" not in style.partition("h2 {")[2]
    assert "line-clamp" not in style
