"""Kills and stops the replicas of a gateway and their database, and looks whether anything was paid twice or lost.

``python -m tests.campaigns.replicas --kills 50 --database-kills 50 --stops 5`` runs callers that repeat their requests,
each with an Idempotency-Key of its own, at any of three replicas until they have an outcome. A replica is killed, or
stopped for longer than its lease; the database is killed, and started again at once or after some seconds. In the end
each key is asked for again. Exit code 1 if an invariant is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import attrs

from impasto import Account, RateLimit
from impasto.client_state import ClientState
from impasto.ext import LEASE_SECONDS
from impasto_plugins.gateway.serve import serve
from tests.campaigns.provider import Provider, provider
from tests.postgres import PostgresServer, own_server

REPLICAS, CALLERS = 3, 24
WINDOW = 4.0
"""Seconds in which the provider allows 150 requests."""
UNKNOWN = "charge_unknown"
KEY = "sk-campaign-" + "k" * 24
MODEL = "stability/stable-image-core"
CONFIG = """
model_list:
  - {{model_name: core, litellm_params: {{model: {model}, api_key: sk-{key}, api_base: {url}}}}}
general_settings: {{master_key: sk-1234, data_dir: {folder}, state: '{dsn}'}}
keys:
  - {{name: studio, sha256: {sha256}, images_per_day: 1000000}}
"""


@attrs.define
class Figures:
    """The counts of a campaign.

    ``unknown``: calls that may have been charged, ``adopted``: those of them of which an image came later.
    ``forgotten``: calls whose image was delivered while the database was away, and whose replica was killed then.
    """

    kills: int = 0
    database_kills: int = 0
    stops: int = 0
    calls: int = 0
    done: int = 0
    unknown: int = 0
    adopted: int = 0
    forgotten: int = 0
    charges: int = 0
    refused: int = 0
    broken: list[str] = attrs.field(factory=list[str])


def serve_with_limit(config: str) -> int:
    """Serve in this process, with the provider's limit, which holds for its own host alone."""
    new_account = ClientState.new_account

    def limited(*args: Any, **settings: Any) -> Account:
        return attrs.evolve(new_account(*args, **settings), rate_limit=RateLimit(150, WINDOW))

    with patch.object(ClientState, "new_account", limited):
        return serve(config, host="127.0.0.1", port=0, workers=1, no_auth=False)


class Replica:
    """One process with the configuration of all."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.start()

    def start(self) -> None:
        """Start it, at a port of its own."""
        command = [sys.executable, "-m", "tests.campaigns.replicas", "--serve", str(self.config)]
        with self.config.with_suffix(".log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@attrs.define(eq=False)
class Campaign:
    """Callers, and what happens to the servers meanwhile."""

    replicas: list[Replica]
    server: PostgresServer
    session: aiohttp.ClientSession
    chance: random.Random
    figures: Figures
    outcomes: dict[int, str] = attrs.field(factory=dict[int, str])
    """Of each seed: the digest of its image, or an error's code."""
    is_over: bool = False
    seed: int = 0

    async def call(self) -> None:
        """Make calls, each until it has an outcome."""
        while not self.is_over:
            self.seed += 1
            seed = self.seed
            self.outcomes[seed] = await self.ask(seed)

    async def ask(self, seed: int) -> str:
        """Repeat a request until it has an outcome."""
        body = {"model": "core", "prompt": "a lighthouse", "seed": seed}
        headers = {"authorization": f"Bearer {KEY}", "idempotency-key": str(seed), "x-stainless-timeout": "60"}
        while True:
            url = f"{self.chance.choice(self.replicas).url}/v1/images/generations"
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self.session.post(url, json=body, headers=headers) as response:
                    answer = await response.json()
                    if response.status == 200:
                        return hashlib.sha256(answer["data"][0]["b64_json"].encode()).hexdigest()
                    code = str(answer["error"]["code"])
                    if code == UNKNOWN:
                        return UNKNOWN
                    if response.status != 503:
                        self.figures.broken.append(f"seed {seed} was refused: {answer['error']}")
            self.figures.refused += 1
            await asyncio.sleep(0.2)

    async def disturb(self, kills: int, database_kills: int, stops: int) -> None:
        """Kill and stop servers at random moments."""
        figures, chance = self.figures, self.chance
        left = ["kill"] * kills + ["database"] * database_kills + ["stop"] * stops
        chance.shuffle(left)
        for event in left:
            await asyncio.sleep(chance.uniform(0.5, 5))
            replica = chance.choice(self.replicas)
            match event:
                case "kill":
                    await asyncio.to_thread(replica.kill)
                    await asyncio.to_thread(replica.start)
                    figures.kills += 1
                case "stop":
                    replica.process.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(LEASE_SECONDS + chance.uniform(1, 8))
                    replica.process.send_signal(signal.SIGCONT)
                    figures.stops += 1
                case _:
                    await asyncio.to_thread(self.server.kill)
                    await asyncio.sleep(chance.choice([0, 0, chance.uniform(0, 5)]))
                    await asyncio.to_thread(self.server.start)
                    figures.database_kills += 1

    async def check(self, at: Provider, disturbances: int) -> None:
        """Compare what callers know with what was charged."""
        figures, charges = self.figures, at.charges()
        figures.calls, figures.charges = len(self.outcomes), charges.total()
        figures.broken += [f"seed {seed} was charged {n} times" for seed, n in charges.items() if n > 1]
        unknown = {seed for seed, outcome in self.outcomes.items() if outcome == UNKNOWN}
        figures.done, figures.unknown = len(self.outcomes) - len(unknown), len(unknown)
        if figures.unknown > CALLERS * disturbances:
            figures.broken.append("more calls are unknown than ran when something was killed")
        await asyncio.sleep(LEASE_SECONDS)  # until the last lease of a replica that was killed has ended
        for seed, outcome in self.outcomes.items():
            again = await self.ask(seed)
            figures.adopted += seed in unknown and again != UNKNOWN
            figures.forgotten += seed not in unknown and again == UNKNOWN
            if seed not in unknown and again not in (outcome, UNKNOWN):
                figures.broken.append(f"seed {seed} had an image, and then {again}")
        if figures.forgotten > CALLERS * figures.kills:
            figures.broken.append("more calls are forgotten than ran when a replica was killed")
        if at.charges() != charges:
            figures.broken.append("a repeated request was charged")
        if 429 in (statuses := at.statuses()):
            figures.broken.append(f"the provider refused {statuses.count(429)} requests: a window was passed")


async def run(place: Path, at: Provider, options: argparse.Namespace, figures: Figures, chance: random.Random) -> None:
    """Run the campaign in a folder."""
    (place / "data").mkdir()
    with own_server() as server:
        (place / "config.yaml").write_text(
            CONFIG.format(
                model=MODEL,
                key="campaign" * 4,
                url=at.url,
                folder=place / "data",
                dsn=server.dsn(),
                sha256=hashlib.sha256(KEY.encode()).hexdigest(),
            )
        )
        replicas = [Replica(place / "config.yaml") for _ in range(REPLICAS)]
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
                campaign = Campaign(replicas, server, session, chance, figures)
                callers = [asyncio.create_task(campaign.call()) for _ in range(CALLERS)]
                await campaign.disturb(options.kills, options.database_kills, options.stops)
                campaign.is_over = True
                await asyncio.gather(*callers)
                await campaign.check(at, options.kills + options.database_kills + options.stops)
        finally:
            for replica in replicas:
                replica.kill()


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.replicas", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of a replica")
    parser.add_argument("--database-kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=2, help="of a replica, for longer than its lease")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; 0 draws one")
    parser.add_argument("--serve", metavar="CONFIG", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.serve is not None:
        return serve_with_limit(options.serve)
    seed = options.seed or random.SystemRandom().randint(1, 10**9)
    figures, began = Figures(), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="impasto-replicas-") as folder,
        provider("--answer-seconds", "0.3", "--rate-seconds", str(WINDOW)) as at,
    ):
        os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")
        asyncio.run(run(Path(folder), at, options, figures, random.Random(seed)))
    print(f"seed {seed}: {attrs.asdict(figures)}, {time.monotonic() - began:.0f} s")
    return int(bool(figures.broken))


if __name__ == "__main__":
    sys.exit(main())
