"""How long the emulator takes for a call, over a server that checks nothing and sends a picture it has ready."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

from impasto import Client

from .call import GIVEN, MODEL, each
from .gateway.servers import free_port, started
from .measure import Ratio, compared, in_pairs
from .server import running

CALLS = 96
AT_ONCE = 32
SCALE = "0.03125"
"""What the sides of its pictures are multiplied with, as tests have it."""

ROUNDS = 5


async def run(rounds: int) -> list[Ratio]:
    """By the clock, 32 calls at once: one process each."""
    port = free_port()
    settings = ["--answer-seconds", "0", "--rate-seconds", "0.001", "--scale", SCALE]  # no limit of 150 in 10 s
    command = [sys.executable, "-m", "impasto_plugins.cli", "emulator", "--port", str(port), *settings]
    with started(command, f"http://127.0.0.1:{port}") as emulator, running() as stand_in:
        async with Client(api_key="k", api_base=emulator.url) as ours, Client(api_key="k", api_base=stand_in) as floor:
            measured = [each(_called(client), CALLS, AT_ONCE, perf_counter) for client in (ours, floor)]
            pairs = await in_pairs(measured[0], measured[1], rounds)
    return [compared("emulator, a small picture", pairs, unit="µs")]


def _called(client: Client) -> Callable[[], Awaitable[object]]:
    return lambda: client.run(MODEL, **GIVEN)
