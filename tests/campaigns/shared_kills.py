"""Kills the hosts of shared batches, again and again, and looks whether anything was paid twice or lost.

``python -m tests.campaigns.shared_kills --kills 500 --rows 10000`` kills three hosts at random moments; half of them
come back with their folder, half without it. With ``--postgres`` they share a rate limit and a budget in a database,
which may count more than was charged and never less. ``--every-request`` kills a host before and after each request
that it sends to S3, and lets another one finish. Exit code 1 if an invariant is broken. The bucket is moto's.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import attrs

from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.state.postgres import PostgresState
from tests.campaigns.hosts import NO_DEATH, Death, Times, start_host
from tests.campaigns.provider import Provider, provider
from tests.images import png
from tests.moto_s3 import Bucket, moto, new_bucket
from tests.postgres import own_server

CONCURRENCY = 4
SHORT = Times()
LIMITS = ("--rate", "100/1s", "--budget", "10000")
"""What hosts with a state share. Neither ends a batch."""

CORE, CREATIVE = "stability/stable-image-core", "stability/upscale-creative"


@attrs.define
class Figures:
    """The counts of a campaign."""

    batches: int = 0
    images: int = 0
    kills: int = 0
    charges: int = 0
    done: int = 0
    ambiguous: int = 0
    paid_and_lost: int = 0
    """Ambiguous images that were charged: their answers had not come, or were on a disk that is gone."""
    charged_usd: float = 0.0
    counted_usd: float = 0.0
    """What hosts with a state counted against their budget: also requests that were never sent."""
    requests: int = 0
    broken: list[str] = attrs.field(factory=list[str])


@attrs.define
class SharedJob:
    """One batch: its manifest, its bucket, and the folders of its hosts. The seed of each image is its own."""

    place: Path
    seeds: dict[str, int]
    bucket: Bucket
    at: Provider
    state: str = ""
    """The address of the database that its hosts share, empty for none."""
    folders: int = 0

    @classmethod
    def make(cls, place: Path, rows: int, bucket: Bucket, at: Provider, *, state: str = "") -> SharedJob:
        """Write a manifest: of three images, one is polled for."""
        place.mkdir()
        (place / "small.png").write_bytes(png(64, 64))
        seeds = {f"image-{number:05d}": number + 1 for number in range(rows)}
        with (place / "manifest.jsonl").open("w") as file:
            for id, seed in seeds.items():
                row: dict[str, object] = {"id": id, "model": CORE, "prompt": f"a lighthouse, {seed}", "seed": seed}
                row |= {"model": CREATIVE, "image": "small.png"} if seed % 3 == 0 else {}
                file.write(json.dumps(row) + "\n")
        return cls(place, seeds, bucket, at, state)

    def start(self, folder: str, times: Times, death: Death = NO_DEATH) -> ForkServerProcess:
        """Start a host with this folder."""
        words = ["batch", "run", str(self.place / "manifest.jsonl"), "--out", self.bucket.out, "--join"]
        words += ["--concurrency", str(CONCURRENCY), "--staging", str(self.place / folder)]
        words += ["--state", self.state, *LIMITS] if self.state else []
        environment = {**self.bucket.environment, **self.at.environment, "XDG_STATE_HOME": str(self.place / "state")}
        return start_host(words, environment, self.place / "log", times, death)

    def new_folder(self) -> str:
        """Return the name of a folder that no host had."""
        self.folders += 1
        return f"folder-{self.folders}"


async def counted_usd(state: str) -> float:
    """Return what the hosts have counted against their budget."""
    store = PostgresState(state)
    try:
        (row,) = await store._pool.fetch("SELECT coalesce(sum(amount), 0) / 1e9 AS usd FROM {s}.budgets")
        return float(row["usd"])
    finally:
        await store.aclose()


def broken(job: SharedJob, kills: int, figures: Figures) -> Iterator[str]:
    """Yield what is wrong with a batch that is over."""
    objects, charges = job.bucket.objects(), job.at.charges()
    done = {line["custom_id"]: line for line in map(json.loads, objects["results.jsonl"].splitlines())}
    errors = {line["custom_id"]: line["error"] for line in map(json.loads, objects["errors.jsonl"].splitlines())}
    ambiguous = {id for id, error in errors.items() if error["code"] == "charge_unknown"}
    intents: Counter[str] = Counter()
    for name, body in objects.items():
        if name.startswith(".impasto/intents/"):
            intents.update(row["id"] for row in json.loads(body)["rows"])
    figures.done += len(done)
    figures.ambiguous += len(ambiguous)
    for id, seed in job.seeds.items():
        times = charges[seed]
        figures.charges += times
        figures.paid_and_lost += times > 0 and id in ambiguous
        if times > 1:
            yield f"{id} was charged {times} times"
        if times > intents[id]:
            yield f"{id} was charged without an intent"
        if (id in done) + (id in ambiguous) != 1:
            yield f"{id} is {'done and ambiguous' if id in done else errors.get(id, 'nowhere')}"
        if id in done and not times:
            yield f"{id} is done and was never charged"
    if len(ambiguous) > CONCURRENCY * kills:
        yield f"{len(ambiguous)} ambiguous images of {kills} kills, with {CONCURRENCY} in flight"
    charged, counted = job.at.usd(), asyncio.run(counted_usd(job.state)) if job.state else 0.0
    figures.charged_usd += charged
    figures.counted_usd += counted
    if job.state and counted < charged - 1e-6:
        yield f"{counted:.2f} USD were counted, and {charged:.2f} were charged"
    for id, line in done.items():
        (image,) = line["response"]["body"]["data"]
        if hashlib.sha256(objects.get(image["path"], b"")).hexdigest() != image["sha256"]:
            yield f"the image of {id} is not that of its row"


def check(job: SharedJob, kills: int, figures: Figures) -> None:
    """Count a batch that is over, and what is wrong with it."""
    figures.batches += 1
    figures.images += len(job.seeds)
    figures.broken += [f"{job.place.name}: {each}" for each in broken(job, kills, figures)]


def own_intents(folder: Path) -> int:
    """Return the number of intents that a folder's hosts have written."""
    try:
        lines = WorkspacePaths(folder).ledger.read_bytes().splitlines()
    except OSError:
        return 0
    return sum(b'{"row":"intent"' in line and b'"from":' not in line[:60] for line in lines)


def at_random(
    figures: Figures, job: SharedJob, kills: int, chance: random.Random, *, hosts: int = 3, times: Times = SHORT
) -> None:
    """Kill hosts at random moments, until there were so many kills or the batch is over; then let it finish."""
    folders = [job.new_folder() for _ in range(hosts)]
    running = [job.start(folder, times) for folder in folders]
    before = [0] * hosts
    died = 0
    while died < kills and all(each.is_alive() for each in running):
        number = chance.randrange(hosts)
        victim, folder = running[number], job.place / folders[number]
        at_work = chance.random() < 0.8  # the others die at any moment, most of them as they start
        while at_work and victim.is_alive() and own_intents(folder) <= before[number]:
            victim.join(0.05)
        victim.join(chance.uniform(0.0, 0.3))
        if victim.is_alive():
            victim.kill()
            victim.join()
            died += 1
            if chance.random() < 0.5:
                folders[number] = job.new_folder()
            before[number] = own_intents(job.place / folders[number])
            running[number] = job.start(folders[number], times)
    for process in running:
        process.join()
        if process.exitcode not in (0, 1):
            figures.broken.append(f"a host ended with {process.exitcode}")
        process.close()
    figures.kills += died
    check(job, died, figures)


def at_every_request(figures: Figures, place: Path, url: str, at: Provider, *, rows: int = 4, every: int = 1) -> None:
    """Kill a host before and after each of its requests to S3; another one, without its folder, finishes."""
    times = Times(lease=1.5)
    counted = place / "requests"
    at.reset()
    job = SharedJob.make(place / "counted", rows, new_bucket(url, "counted"), at)
    process = job.start("a", times, Death(count=counted))
    process.join()
    figures.requests = int(counted.read_text())
    check(job, 0, figures)
    for request in range(1, figures.requests + 1, every):
        for is_after in (False, True):
            at.reset()
            name = f"request-{request}-{'after' if is_after else 'before'}"
            job = SharedJob.make(place / name, rows, new_bucket(url, name), at)
            process = job.start("a", times, Death(request, is_after))
            process.join(60)
            died = process.exitcode is not None and process.exitcode < 0
            figures.kills += died
            for _ in range(2):  # what the first finds refused, the second requests
                process = job.start("b", times)
                process.join(60)
            check(job, int(died), figures)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.shared_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; 0 draws one")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--every-request", action="store_true")
    kind.add_argument("--postgres", action="store_true", help="hosts share a database, a server of its own")
    options = parser.parse_args(words)
    seed = options.seed or random.SystemRandom().randint(1, 10**9)
    figures, began = Figures(), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="impasto-kills-") as folder,
        moto() as url,
        provider("--answer-seconds", "0.1") as at,
        own_server() if options.postgres else nullcontext() as database,
    ):
        if options.every_request:
            at_every_request(figures, Path(folder), url, at)
        chance = random.Random(seed)
        while not options.every_request and figures.kills < options.kills and not figures.broken:
            at.reset()
            name = f"batch-{figures.batches}"
            state = database.dsn(schema=f"kills_{figures.batches}") if database is not None else ""
            job = SharedJob.make(Path(folder) / name, options.rows, new_bucket(url, name), at, state=state)
            at_random(figures, job, options.kills - figures.kills, chance)
    print(f"seed {seed}: {attrs.asdict(figures)}, {time.monotonic() - began:.0f} s")
    return int(bool(figures.broken))


if __name__ == "__main__":
    sys.exit(main())
