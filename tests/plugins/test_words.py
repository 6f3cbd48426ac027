"""Each entrance speaks its own language: no message to HTTP or a shell has a name, value or type of Python."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from impasto.testing.recorder import Answer, Recorder, always, recording
from impasto_plugins.cli.main import main
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.distributions import install
from tests.field_kinds import GIF, MODULES, POINTS
from tests.plugins.gateway.conftest import Running, config, entry

PYTHON = re.compile(
    r"client\.|impasto\.[a-z]|Client\(|\bRetry\b|\b[a-z_]+=|\.raw\b|bytes, a path|open binary|Mapping|keyword"
    r"|\b(?:None|True|False|NoneType|str|int|float|dict|tuple|bool|await|Python)\b"
)
FIELDS = (
    "text", "prompt", "images", "image", "mask", "colors", "tile", "width", "background", "style", "weights",
    "members", "subjects", "canvas", "n", "size", "seed", "quality", "response_format", "stream", "partial_images",
    "user", "output_format", "colour", "extra_body", "model",
)  # fmt: skip
IMAGE = "data:image/png;base64,eA=="
VALUES: tuple[Any, ...] = (
    True, 7, -1, 0.5, 1e30, "", "x", "7", "x" * 200, IMAGE, "data:image/png;base64,!", "http://example.com/x.png",
    [], [7], [None], [True], [[]], [{}], ["x"] * 9, [IMAGE], [[IMAGE]], [{"color": 7}], [{"image": 7}],
    [{"image": "x"}], [{"image": []}], [{"image": [IMAGE]}], [{"image": IMAGE}], [{"details": [7]}],
    {}, {"a": 1}, {"width": 65}, {"strength": True}, {"strength": 7}, {"layers": "x"}, {"layers": [[]]},
    {"reference": 7}, {"reference": []}, {"reference": [IMAGE]}, {"reference": [IMAGE] * 2},
)  # fmt: skip
OPTIONS = (
    ["-n", "0"], ["-n", "x"], ["-o", "x.foo"], ["--timeout", "-1"], ["--timeout", "x"], ["--transport", "no"],
    ["--middleware", "no"], ["--api-base", "ftp://x"], ["--api-base", "http://example.com"], ["--budget", "1"],
)  # fmt: skip
VARIABLES = {"KINDS_KEY": "sk-key-of-a-test", "KINDS_BASE_URL": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path_factory.mktemp("site")
    install(site, "impasto-kinds", POINTS, MODULES)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def provider() -> AsyncIterator[Recorder]:
    async with recording(always(Answer(headers={"content-type": "image/gif"}, body=GIF))) as recorder:
        yield recorder


@pytest.fixture
async def gateway(provider: Recorder) -> AsyncIterator[Running]:
    text = config(provider.url, entries=entry("kinds", "kinds/all", provider.url))
    async with Gateway(parse(text.encode())) as started:
        running = Running(started)
        yield running
        await running.aclose()


def bodies(**more: object) -> Iterator[dict[str, Any]]:
    for name in FIELDS:
        for value in VALUES:
            yield {"model": "kinds", "prompt": "a fox", **more, name: value}


def in_python(messages: Iterable[str]) -> list[str]:
    return [message for message in messages if PYTHON.search(message)]


@pytest.mark.parametrize("path", ["generations", "edits"])
async def test_a_request_to_the_gateway(gateway: Running, path: str) -> None:
    more: dict[str, object] = {"images": [{"image_url": IMAGE}]} if path == "edits" else {}
    messages = set[str]()
    for body in bodies(**more):
        answer = await gateway.ask("POST", f"/v1/images/{path}", json=body)
        messages.add(answer.headers.get("x-impasto-warnings", ""))
        messages.add(answer.error["message"] or "" if answer.status != 200 else "")
    assert len(messages) > 150
    assert in_python(messages) == []


def test_the_command_line() -> None:
    texts = {f"{name}={each if isinstance(each, str) else json.dumps(each)}" for name in FIELDS for each in VALUES[::3]}
    outputs = set[str]()
    for words in [*(["-p", text] for text in texts), *OPTIONS]:
        done = CliRunner().invoke(main, ["generate", "kinds/all", "a fox", "--timeout", "0.1", *words], env=VARIABLES)
        outputs.add(done.output.replace(words[-1], ""))
    assert len(outputs) > 80
    assert in_python(outputs) == []


def test_a_manifest() -> None:
    rows = [{**body, "id": f"row {number}", "model": "kinds/all"} for number, body in enumerate(bodies())]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["batch", "run", "rows.jsonl", "--out", "out", "--skip-invalid"]
    done = CliRunner().invoke(main, words, env=VARIABLES)
    messages = {line.partition("): ")[2] for line in done.output.splitlines()}
    assert len(messages) > 50
    assert in_python(messages) == []
