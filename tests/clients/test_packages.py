"""Clients that npm has, as they are: the Vercel AI SDK and LangChain.js against a gateway."""

from __future__ import annotations

from pathlib import Path

from tests.node import find_node, run_node_tests

from .catalog import IMAGES, Settings
from .conftest import MASTER, Gateways


async def test_the_javascript_packages(gateways: Gateways, tmp_path: Path) -> None:
    node = find_node("ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "@langchain/openai")
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    image.write_bytes(IMAGES["{cat}"])
    mask.write_bytes(IMAGES["{mask}"])
    await run_node_tests(
        *(node, Path(__file__).with_name("packages.test.cjs")),
        GATEWAY=gateways(Settings(params=("strength: 0.7",))),
        KEY=MASTER,
        IMAGE=str(image),
        MASK=str(mask),
    )
