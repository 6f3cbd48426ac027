"""A plugin that raises what is no Exception: its caller gets an answer, and everybody else is served as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from impasto.registry import OPERATIONS
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.distributions import ACME, install
from tests.plugins.gateway.conftest import Start, config, entry

PANICS = (
    ACME
    + '''
import asyncio

class PanicException(BaseException):
    """As pyo3 raises it for a panic in Rust."""

class Mute(Exception):
    """It can't say what it is."""

    def __str__(self):
        raise SystemExit(7)

    __repr__ = __str__


KINDS = {
    "panic": PanicException, "exit": SystemExit, "cancel": asyncio.CancelledError, "error": RuntimeError,
    "interrupt": KeyboardInterrupt, "mute": Mute, "closes": GeneratorExit,
}


class Panics(Dialect):
    def transform_request(self, operation, request, account):
        place, _, kind = request.params.prompt.partition(" ")
        if place == "pack":
            raise KINDS[kind]
        return super().transform_request(operation, request, account)


class Price:
    cost = None

    def quote(self, params):
        place, _, kind = params.prompt.partition(" ")
        if place == "price":
            raise KINDS[kind]


class Rule:
    def problems(self, given):
        place, _, kind = str(given.get("prompt")).partition(" ")
        if place == "rule":
            raise KINDS[kind]
        return ()


paint = attrs.evolve(paint, dialect=Panics(), price=Price(), rules=(Rule(),))
'''
)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    install(tmp_path, "Acme_Panics", {OPERATIONS: {"acme/panics": "acme_panics:paint"}}, {"acme_panics": PANICS})
    monkeypatch.syspath_prepend(tmp_path)
    return "acme-panics"


@pytest.mark.parametrize("kind", ["panic", "exit", "cancel", "error", "interrupt", "mute", "closes"])
@pytest.mark.parametrize("place", ["pack", "price", "rule"])
async def test_a_plugin_that_panics_is_answered_for_and_nobody_else_is_disturbed(
    start: Start, impasto_emulator: Emulator, plugin: str, place: str, kind: str
) -> None:
    entries = entry("acme", "acme/panics", impasto_emulator.url) + entry("sd3", "stability/sd3", impasto_emulator.url)
    gateway = await start(config(impasto_emulator.url, entries=entries, general=f"  plugins: [{plugin}]\n"))
    answer = await gateway.generate(model="acme", prompt=f"{place} {kind}")
    assert (answer.status, answer.error["code"]) == (500, "plugin_error"), answer.body
    assert KEY not in answer.body.decode()
    assert not impasto_emulator.requests
    assert (await gateway.generate()).status == 200
    app = gateway.gateway._app
    assert app.memory.used_bytes == 0
