"""Third parties' stand-ins: the group ``impasto.emulators``, through each entrance that uses an emulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from impasto import BrokenPlugin, Client, ConfigError, Registry
from impasto.registry import EMULATORS, OPERATIONS
from impasto_plugins.cli.main import main
from tests.distributions import ACME, install

STAND_IN = (
    ACME
    + """
import asyncio, io
from contextlib import asynccontextmanager
from PIL import Image
from aiohttp import web

paint_here = attrs.evolve(paint, id="acme/there", provider=attrs.evolve(acme, name="there"))
none = attrs.evolve(paint, id="bare/paint", provider=attrs.evolve(acme, name="bare"))
log = []

def image():
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    return out.getvalue()

async def answer(request):
    log.append((request.headers.get("x-key"), (await request.post())["prompt"]))
    return web.Response(body=image(), content_type="image/png")

@asynccontextmanager
async def serve():
    app = web.Application()
    app.router.add_post("/paint", answer)
    runner = web.AppRunner(app)
    async with asyncio.TaskGroup():  # wants to be left by the task that entered it
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        log.append("started")
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
            log.append("stopped")

@asynccontextmanager
async def far():
    yield "https://api.acme.example"

@asynccontextmanager
async def fails():
    raise OSError("no free port")
    yield ""

def no_context():
    return "http://127.0.0.1:1"

failing = attrs.evolve(paint, provider=attrs.evolve(acme, name="failing"))
distant = attrs.evolve(paint, provider=attrs.evolve(acme, name="distant"))
odd = attrs.evolve(paint, provider=attrs.evolve(acme, name="odd"))
guest = attrs.evolve(paint, id="stability/guest", provider=attrs.evolve(acme, name="stability"))
"""
)
NAMES = {"acme/paint": "paint", "there/paint": "paint_here", "bare/paint": "none", "failing/paint": "failing"}
NAMES |= {"distant/paint": "distant", "odd/paint": "odd", "stability/guest": "guest"}
SERVES = {"acme": "serve", "there": "serve", "failing": "fails", "distant": "far", "odd": "no_context"}
SERVES |= {"stability/guest": "serve"}


@pytest.fixture(autouse=True)
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        OPERATIONS: {name: f"acme_stand_in:{attribute}" for name, attribute in NAMES.items()},
        EMULATORS: {name: f"acme_stand_in:{attribute}" for name, attribute in SERVES.items()},
    }
    install(tmp_path, "acme-stand-in", points, {"acme_stand_in": STAND_IN})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("ACME_KEY", raising=False)


def log() -> list[object]:
    import acme_stand_in  # type: ignore[import-not-found]  # installed by this test

    return acme_stand_in.log  # type: ignore[no-any-return]


async def test_a_client_uses_the_stand_in_of_each_provider() -> None:
    settings = {"emulator": {"image_scale": 0.05}}
    async with Client(transport="emulator", providers=settings) as client:
        assert len((await client.run("acme/paint", prompt="a barn")).artifacts) == 1
        log().clear()
        assert len((await client.run("there/paint", prompt="a house", n=2)).artifacts) == 2
        assert log() == [("emulator", "a house")] * 2, "one function, one server"
        stability = await client.run("stability/stable-image-core", prompt="a barn")
        assert len(stability.artifacts) == 1
        assert await client.address(await client.operation("acme/paint")) == "emulator"
        first, second = [await client.account(f"{name}/paint") for name in ("acme", "there")]
        assert first.base_url == second.base_url != (await client.account("stability/sd3")).base_url
    assert log()[-1] == "stopped"


async def test_a_model_on_the_provider_of_another_distribution_has_its_own_stand_in() -> None:
    async with Client(transport="emulator", providers={"emulator": {"image_scale": 0.05}}) as client:
        for _ in range(2):
            assert len((await client.run("stability/guest", prompt="a barn")).artifacts) == 1
            assert len((await client.run("stability/stable-image-core", prompt="a barn")).artifacts) == 1
        guest, own = [await client.account(f"stability/{name}") for name in ("guest", "stable-image-core")]
        assert guest.base_url != own.base_url
        assert log()[-1] == ("emulator", "a barn")


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("bare/paint", ConfigError, "there is no emulator of bare, only of acme, bedrock, .*stability.*as api_base"),
        ("failing/paint", BrokenPlugin, "the emulator of failing .* failed: OSError: no free port; nothing was sent"),
        ("distant/paint", BrokenPlugin, "the emulator of distant .* its base URL must be on this machine"),
        ("odd/paint", BrokenPlugin, "the emulator of odd .* failed: TypeError"),
    ],
)
async def test_a_provider_without_a_usable_stand_in(model: str, kind: type[Exception], message: str) -> None:
    async with Client(transport="emulator") as client:
        for _ in range(2):
            with pytest.raises(kind, match=message):
                await client.run(model, prompt="a barn")
        assert len((await client.run("acme/paint", prompt="a barn")).artifacts) == 1


async def test_nothing_leaves_the_machine_if_an_address_is_set_too() -> None:
    settings = {"acme": {"api_base": "https://api.acme.example", "api_key": "acme-key"}}
    async with Client(transport="emulator", providers=settings) as client:
        with pytest.raises(ConfigError, match="the address of acme is not its emulator's; leave api_base out"):
            await client.run("acme/paint", prompt="a barn")


async def test_a_stand_in_that_is_added_by_hand() -> None:
    import acme_stand_in  # pyright: ignore[reportMissingImports]

    registry = Registry(allow="none")
    registry.add(OPERATIONS, "acme/paint", acme_stand_in.paint)
    registry.add(EMULATORS, "acme", acme_stand_in.serve)
    async with Client(transport="emulator", registry=registry) as client:
        assert len((await client.run("acme/paint", prompt="a barn")).artifacts) == 1


def test_the_command_line_uses_it(tmp_path: Path) -> None:
    run = CliRunner().invoke
    result = run(main, ["generate", "acme/paint", "a barn", "--emulator", "-o", str(tmp_path / "barn.png"), "--json"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "barn.png").read_bytes().startswith(b"\x89PNG")
    without = run(main, ["generate", "bare/paint", "a barn", "--emulator"])
    assert without.exit_code == 2
    assert "there is no emulator of bare" in without.output


def test_try_calls_a_model_at_it(tmp_path: Path) -> None:
    out = tmp_path / "tried"
    for _ in range(2):
        result = CliRunner().invoke(main, ["try", "acme/paint", "stability/erase", "--out", str(out)])
        assert result.exit_code == 0, result.output
    assert (out / "acme-paint.png").read_bytes().startswith(b"\x89PNG")
    assert {each.name for each in out.iterdir()} == {
        *("acme-paint.png", "stability-erase.png", "sketch.png", "index.html"),
    }
    without = CliRunner().invoke(main, ["try", "bare/paint", "--out", str(out / "none")])
    assert (without.exit_code, "there is no emulator of bare" in without.output) == (2, True)


def test_a_batch_uses_it(tmp_path: Path) -> None:
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text(json.dumps({"id": "one", "model": "acme/paint", "prompt": "a barn"}) + "\n")
    run = CliRunner().invoke(main, ["batch", "run", str(manifest), "--out", str(tmp_path / "out"), "--emulator"])
    assert run.exit_code == 0, run.output


def test_the_pytest_fixture_serves_it(impasto_stand_in: Callable[[str], str]) -> None:
    url = impasto_stand_in("acme")
    assert url == impasto_stand_in("there")
    with pytest.raises(ConfigError, match="there is no emulator of bare"):
        impasto_stand_in("bare")
