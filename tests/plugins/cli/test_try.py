"""`impasto try`: the main job, and the page it leaves."""

from __future__ import annotations

import re
import signal
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from impasto_plugins.cli.demo.more_steps import MORE_STEPS
from impasto_plugins.cli.demo.tour import STEPS
from tests.plugins.cli.conftest import Run


class Page(HTMLParser):
    """What a page refers to, its text, and whether its tags close in order."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images, and jobs that are asked for often."""
    monkeypatch.setattr("impasto_plugins.cli.demo.tour.IMAGE_SCALE", 0.15)
    monkeypatch.setattr("impasto_plugins.cli.demo.tour.POLL_SECONDS", 0.05)


@pytest.fixture
def tried(run: Run) -> tuple[str, Page]:
    """What it said, and the page, of a run without a key but with a proxy; the working folder holds what it made."""
    nobody = "http://127.0.0.1:9"
    result = run(
        "try", "--no-open", STABILITY_API_KEY=None, STABILITY_API_BASE=None, http_proxy=nobody, https_proxy=nobody
    )
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout, Page(Path("impasto-try/index.html").read_text("utf-8"))


def test_try_generates_and_edits_images_and_writes_a_page(tried: tuple[str, Page]) -> None:
    message, page = tried
    folder = Path("impasto-try")
    assert "impasto-try/index.html" in message
    assert page.open == []
    assert not {"script", "link", "iframe"} & set(page.tags), "it loads or runs something"
    for link in page.links:
        assert link.startswith("#") or (folder / link).is_file(), link
        assert "/" not in link
    for step in STEPS:
        assert step.title in message
        assert str(step.file) in page.links
        for name, value in step.params.items():
            assert name in page.text
            assert str(value) in page.text
        with Image.open(folder / step.file) as picture:
            picture.load()
    with Image.open(folder / "cut-out.png") as cut:
        assert cut.mode == "RGBA"
    for refused in ("grow_mask", "seed", "unknown parameter 'negativ_prompt'"):
        assert f"  {refused}" in message
        assert refused in page.text
    assert f"{len(STEPS)} images, {len(STEPS)} charges" in message
    assert "own sum is the same" in page.text


def test_all_shows_sounds_and_3d_models_too(run: Run) -> None:
    output = run("try", "--no-open", "--all").stdout
    assert "18 images, 3 sounds, 2 3D models, 23 charges" in output
    text = Path("impasto-try/index.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert (page.tags.count("audio"), page.tags.count("canvas"), page.tags.count("script")) == (5, 2, 1)
    assert "<script>" in text, "it is in the page, and loads nothing"
    for link in page.links:
        assert link.startswith("#") or (Path("impasto-try") / link).is_file(), link
    for step in MORE_STEPS:
        assert step.model in page.text
        assert (Path("impasto-try") / step.file).is_file()
    for holder, file in zip(re.findall(r'data-glb="([^"]+)"', text), ("fox-3d.glb", "lighthouse-3d.glb"), strict=True):
        assert b64decode(holder) == (Path("impasto-try") / file).read_bytes()
    assert "own sum is the same" in page.text


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tour of few calls: the first, whose images others need, and those with the longest title and model."""
    taken = [*STEPS[:2], max(STEPS, key=lambda step: len(step.title)), max(STEPS, key=lambda step: len(step.model))]
    monkeypatch.setattr("impasto_plugins.cli.demo.tour.STEPS", tuple(step for step in STEPS if step in taken))


@pytest.mark.usefixtures("short")
def test_try_replaces_its_own_page_and_nobody_elses_files(run: Run) -> None:
    for _ in range(2):
        assert run("try", "--no-open", "--out", "new/folder").exit_code == 0
        assert Path("new/folder/index.html").is_file()
    Path("mine").mkdir()
    Path("mine/lighthouse.png").write_text("precious")
    result = run("try", "--no-open", "--out", "mine")
    assert result.exit_code == 2
    assert "contains other files" in result.stderr
    assert Path("mine/lighthouse.png").read_text() == "precious"
    Path("file").touch()
    assert run("try", "--no-open", "--out", "file").exit_code == 2


@pytest.mark.usefixtures("short")
def test_one_that_was_interrupted_can_be_run_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as interrupted:
        interrupted.setattr(
            "impasto_plugins.cli.demo.page.write", lambda page, tour: signal.raise_signal(signal.SIGINT)
        )
        assert run("try", "--no-open").exit_code == 130
    assert Path("impasto-try/lighthouse.png").is_file()
    assert run("try", "--no-open").exit_code == 0
    assert "did not come to its end" not in Path("impasto-try/index.html").read_text("utf-8")


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("columns", ["80", "200"])
def test_no_line_is_wider_than_the_terminal(run: Run, columns: str) -> None:
    tried, looked = (run(*words, COLUMNS=columns).stdout for words in (("try", "--no-open"), ("doctor",)))
    assert max(map(len, (tried + looked).splitlines())) <= int(columns)
    assert (STEPS[0].model in tried) == (columns == "200")
