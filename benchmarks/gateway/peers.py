"""The gateway beside LiteLLM's proxy, both in front of one provider: ``python -m benchmarks.gateway.peers LITELLM``.

``LITELLM`` is its command, of an environment of its own (``pip install 'litellm[proxy]'``).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.__main__ import shown
from benchmarks.measure import Ratio, compared, in_pairs

from . import LARGE, MB, SMALL, rate
from .load import KEY, generation
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


async def run(command: str, rounds: int) -> list[Ratio]:
    """Answers a second, memory and start."""
    ratios, starts, peaks = [], [], []
    with provider(SMALL, LARGE) as urls, gateway(urls) as ours:
        for size, least in ((SMALL, 25.0), (LARGE, 10.0)):
            with litellm(command, urls[size], size) as theirs:
                ask = generation(str(size))
                pairs = await in_pairs(rate(ours, ask), rate(theirs, ask, seconds=SECONDS), rounds)
                name = f"{size / 1000:,.0f} KB picture, over LiteLLM's proxy"
                ratios.append(compared(name, pairs, unit="answers/s", least=least))
                starts.append((ours.seconds, theirs.seconds))
                peaks.append((ours.peak() / MB, theirs.peak() / MB))
    ratios.append(compared("time until it listens, over LiteLLM's proxy", starts, unit="s"))
    ratios.append(compared("peak memory, over LiteLLM's proxy", peaks, unit="MB"))
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.peers", description=__doc__)
    parser.add_argument("litellm")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ratios = asyncio.run(run(asked.litellm, asked.rounds))
    for ratio in ratios:
        print(shown(ratio))
    return int(not all(ratio.held for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main())
