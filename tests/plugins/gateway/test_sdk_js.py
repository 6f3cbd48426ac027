"""OpenAI's JavaScript SDK against the gateway, where Node.js and the package are found."""

from __future__ import annotations

from pathlib import Path

from impasto_plugins.emulator import Emulator
from tests.images import drawn
from tests.node import find_node, run_node_tests

from .conftest import MASTER, MODELS, Start


async def test_the_javascript_sdk(start: Start, impasto_emulator: Emulator, tmp_path: Path) -> None:
    gateway = await start(models=MODELS)
    node = find_node("openai")
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    picture.write_bytes(drawn("PNG", size=(128, 128)))
    mask.write_bytes(drawn("PNG", "LA", size=(128, 128)))
    await run_node_tests(
        *(node, Path(__file__).with_name("sdk.test.cjs")),
        GATEWAY=gateway.url,
        KEY=MASTER,
        EMULATOR=impasto_emulator.url,
        PICTURE=str(picture),
        MASK=str(mask),
    )
