"""CONTRIBUTING's two walks: the functions and files that a call enters are counted, and may only become fewer.

The number that counts is the event loop's, as a reader follows a call there; what threads run is printed beside it.
``pytest -s`` prints every function.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

import aiohttp
import attrs
import pytest

from impasto import Client
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from impasto_plugins.gateway.telemetry.tracing import Tracing
from tests.architecture.sources import ROOT
from tests.conftest import KEY
from tests.images import png
from tests.reliability.servers import serving

CORE, PLUGINS = "core/impasto/", "plugins/impasto_plugins/"
NOT_FUNCTIONS = {"<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<module>"}

TIMERS = {"watch", "enforce_timeouts", "_sweep", "_measure_lag", "_report_blocking"}
"""The gateway's functions that run from time to time, whether or not there is a call."""

MAX_CORE_FILES = 17
"""Files of the core that a call of the client enters."""

CALLER = "sk-a-key-with-a-budget"
CONFIG = """
model_list:
  - model_name: inpaint
    litellm_params: {{model: stability/stable-image-inpaint-v1:0, api_key: {key}, api_base: "{url}"}}
general_settings: {{master_key: sk-1234, data_dir: {folder}}}
files: {{folder: {folder}/files}}
keys:
  - {{name: ann, sha256: {sha256}, usd_per_month: 5}}
"""


@attrs.define
class Walk:
    """The functions that were entered, in the order of their first entry; True for those of the event loop."""

    entered: dict[CodeType, bool] = attrs.field(factory=dict[CodeType, bool])
    is_recording: bool = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if not self.is_recording or event != "call" or code.co_name in NOT_FUNCTIONS:
            return
        if code.co_filename.startswith((f"{ROOT}/{CORE}", f"{ROOT}/{PLUGINS}")) and not _is_timed(frame):
            self.entered[code] = self.entered.get(code, False) or threading.current_thread() is threading.main_thread()

    @contextmanager
    def recording(self) -> Iterator[None]:
        self.is_recording = True
        try:
            yield
        finally:
            self.is_recording = False

    def by_file(self, *, threads: bool) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for code, in_loop in self.entered.items():
            if in_loop or threads:
                path = str(Path(code.co_filename).relative_to(ROOT))
                names.setdefault(path, []).append(code.co_qualname if in_loop else f"{code.co_qualname} (thread)")
        return names

    def check(self, heading: str) -> None:
        """Hold the counts to those below a heading of CONTRIBUTING, and the files named there to those entered."""
        here, everywhere = self.by_file(threads=False), self.by_file(threads=True)
        functions, files = sum(map(len, here.values())), len(here)
        total = sum(map(len, everywhere.values()))
        lines = [f"{functions} functions in {files} files; with threads {total} in {len(everywhere)}"]
        lines += [f"{path} {len(names)}: {', '.join(names)}" for path, names in everywhere.items()]
        report = "\n".join(lines)
        print(report)
        _, _, text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition(f"\n## {heading}\n")
        text, _, _ = text.partition("\n## ")
        cap = re.search(r"(\d+) functions\s+in\s+(\d+)\s+files", text)
        assert cap is not None, heading
        assert functions <= int(cap[1]), report
        assert files <= int(cap[2]), report
        begins: list[int] = []
        for step in re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]:
            names = re.findall(r"`([a-z0-9_/]+\.py)`", step)
            found = {
                name: [i for i, path in enumerate(everywhere) if f"/{path}".endswith(f"/{name}")] for name in names
            }
            assert all(found.values()), f"not entered: {[name for name in names if not found[name]]}\n{report}"
            begins.append(found[names[0]][0])
        assert begins == sorted(begins), f"another step is entered first\n{report}"


def _is_timed(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in TIMERS:
            return True
        frame = frame.f_back
    return False


@pytest.fixture
def walk() -> Iterator[Walk]:
    walk = Walk()
    threading.setprofile(walk)
    sys.setprofile(walk)
    yield walk
    sys.setprofile(None)
    threading.setprofile(None)


async def test_a_call_of_the_client_enters_few_functions(walk: Walk) -> None:
    async with serving() as provider, Client(api_key=KEY, api_base=provider.url) as client:
        await client.run("stability/sd3.5-large", prompt="a boat")
        with walk.recording():
            await client.run("stability/sd3.5-large", prompt="a boat")
    walk.check("A call, from `client.run` to the socket and back")
    assert len([path for path in walk.by_file(threads=True) if path.startswith(CORE)]) <= MAX_CORE_FILES


async def test_an_edit_through_the_gateway_enters_few_functions(
    walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracing, "create_if_configured", lambda: None)  # tests of this process may have configured it
    digest = hashlib.sha256(CALLER.encode()).hexdigest()
    async with serving() as provider:
        config = CONFIG.format(key=KEY, url=provider.url, folder=tmp_path, sha256=digest)
        async with Gateway(parse(config.encode())) as gateway, aiohttp.ClientSession() as session:
            url = f"{gateway.url}/v1/images/edits"

            async def edit(key: str) -> None:
                form = aiohttp.FormData({"model": "inpaint", "prompt": "a boat"})
                form.add_field("image", png(64, 64), filename="boat.png", content_type="image/png")
                headers = {"authorization": f"Bearer {CALLER}", "idempotency-key": key}
                async with session.post(url, data=form, headers=headers) as response:
                    assert response.status == 200, await response.text()
                    await response.read()
                while gateway._app._tasks:
                    await asyncio.sleep(0.001)

            await edit("first")
            with walk.recording():
                await edit("second")
        assert len(provider.paid) == 2
    walk.check("An edit through the gateway, with a budget and an Idempotency-Key")
