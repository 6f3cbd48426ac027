"""The gateway beside LiteLLM's proxy, both in front of one provider."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.environments import environment, version
from benchmarks.measure import Ratio, compared, in_pairs
from benchmarks.server import LARGE, SMALL

from .load import KEY, generation, rate
from .servers import Process, free_port, gateway, provider, started

SECONDS = 15
"""For how long the slower of the two is asked."""


@contextmanager
def litellm(command: str, url: str, size: int) -> Iterator[Process]:
    """LiteLLM's proxy with one model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(
            f"model_list:\n  - model_name: '{size}'\n"
            f"    litellm_params: {{model: stability/stable-image-core, api_key: k, api_base: {url}}}\n"
            f"general_settings: {{master_key: {KEY}}}\n"
        )
        port = free_port()
        words = ["--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"}
        with started([command, *words], f"http://127.0.0.1:{port}", offline) as process:
            _answer_once(process.url, size)
            yield process


def _answer_once(url: str, size: int) -> None:
    """Its first answer takes long: it is not measured. Raises OSError where it is an error."""
    ask = generation(str(size))
    headers = {"authorization": f"Bearer {KEY}", "content-type": ask.content_type}
    with urlopen(Request(url + ask.path, ask.body, headers), timeout=60) as answer:
        answer.read()


async def run(rounds: int) -> list[Ratio]:
    """Answers a second, memory and start."""
    bin = environment("litellm", "litellm[proxy]")
    command, who = str(bin / "litellm"), f"LiteLLM {version(bin, 'litellm')}"
    ratios, starts, peaks = [], [], []
    with provider(SMALL, LARGE) as urls, gateway(urls) as ours:
        for size, least in ((SMALL, 25.0), (LARGE, 10.0)):
            with litellm(command, urls[size], size) as theirs:
                ask = generation(str(size))
                pairs = await in_pairs(rate(ours.url, ask), rate(theirs.url, ask, seconds=SECONDS), rounds)
                name = f"{size / 1000:,.0f} KB picture, over {who}"
                ratios.append(compared(name, pairs, unit="answers/s", least=least))
                starts.append((ours.seconds, theirs.seconds))
                peaks.append((ours.peak(), theirs.peak()))
    ratios.append(compared(f"time until it listens, over {who}", starts, unit="s"))
    ratios.append(compared(f"peak memory, over {who}", peaks, unit="MB"))
    return ratios
