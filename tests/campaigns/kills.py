"""Kills a batch, again and again, and looks whether anything was paid twice or lost.

``python -m tests.campaigns.kills --kills 200`` kills at random moments and at random system calls, for operations
that answer at once and for those that are polled, until each batch is through; ``--every-call`` kills once before,
once after and, where it writes, once amid each call by which a small batch changes the disk. Exit code 1 where an
invariant is broken. With ``--bucket`` pictures go up to an S3.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import attrs

from impasto_plugins.batch.ledger.log import ReadPosition, rows
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from tests.campaigns.provider import Provider, provider
from tests.campaigns.victim import Death, How, killed, start
from tests.images import png
from tests.s3 import BUCKET, FakeS3, pretending_aside

CONCURRENCY = 8
CORE, CREATIVE = "stability/stable-image-core", "stability/upscale-creative"


_NONE = Death()
_WAYS: tuple[How, ...] = ("before", "after", "torn")


@attrs.define
class Figures:
    """What a campaign saw."""

    batches: int = 0
    pictures: int = 0
    kills: int = 0
    at_calls: int = 0
    charges: int = 0
    intents: int = 0
    done: int = 0
    ambiguous: int = 0
    paid_and_lost: int = 0
    """Ambiguous pictures that were charged: their answers had not come when the process died."""
    broken: list[str] = attrs.field(factory=list[str])


@attrs.frozen
class Job:
    """One batch: its manifest and its folder, or its bucket. The seed of each picture is its own."""

    place: Path
    seeds: dict[str, int]
    s3: FakeS3 | None = None

    @classmethod
    def make(cls, place: Path, pictures: int, first_seed: int, s3: FakeS3 | None = None) -> Job:
        """Writes a manifest: of three pictures, one is polled for."""
        place.mkdir()
        (place / "small.png").write_bytes(png(64, 64))
        lines, seeds = [], {}
        for number in range(pictures):
            id, seed = f"picture-{number:04d}", first_seed + number
            seeds[id] = seed
            row: dict[str, object] = {"id": id, "model": CORE, "prompt": f"a lighthouse, {number}", "seed": seed}
            if number % 3 == 2:
                row |= {"model": CREATIVE, "image": "small.png"}
            lines.append(json.dumps(row) + "\n")
        (place / "manifest.jsonl").write_text("".join(lines))
        return cls(place, seeds, s3)

    @property
    def out(self) -> Path:
        """Its ledger's folder."""
        return self.place / "out"

    def stored_images(self) -> dict[str, bytes]:
        """The pictures that came, by their names."""
        if self.s3 is None:
            there = {path.name: path.read_bytes() for path in self.out.iterdir() if path.is_file()}
        else:
            there = self.s3.objects(f"{self.place.name}/")
        return {name: data for name, data in there.items() if name.endswith(".png")}

    def start(self, at: Provider, death: Death = _NONE) -> ForkServerProcess:
        """Starts the run, which dies so."""
        words = ["batch", "run", str(self.place / "manifest.jsonl"), "--concurrency", str(CONCURRENCY)]
        if self.s3 is None:
            return start(death, [*words, "--out", str(self.out)], at.environment, self.place / "log")
        words += ["--out", f"s3://{BUCKET}/{self.place.name}", "--staging", str(self.out)]
        return start(death, words, {**at.environment, **self.s3.environment}, self.place / "log")


def broken(job: Job, charges: Counter[int], figures: Figures) -> Iterator[str]:
    """What is wrong with a batch that is through."""
    intents: Counter[str] = Counter()
    last: dict[str, str] = {}
    closed: list[int] = []
    for _, row in rows(WorkspacePaths(job.out).ledger, ReadPosition()):
        kind, id = str(row["row"]), str(row.get("id"))
        if kind == "run":
            closed.append(0)
            continue
        intents[id] += kind == "intent"
        closed[-1] += kind == "ambiguous"
        last[id] = kind
    figures.intents += intents.total()
    figures.done += sum(kind == "done" for kind in last.values())
    figures.ambiguous += sum(kind == "ambiguous" for kind in last.values())
    if max(closed) > CONCURRENCY:
        yield f"{max(closed)} ambiguous pictures of one kill, with a concurrency of {CONCURRENCY}"
    if last.keys() != job.seeds.keys():
        yield f"{len(job.seeds.keys() - last.keys())} pictures without an outcome"
    for id, seed in job.seeds.items():
        times, state = charges[seed], last.get(id)
        figures.charges += times
        figures.paid_and_lost += times > 0 and state == "ambiguous"
        if times > 1:
            yield f"{id} was charged {times} times"
        if times > intents[id]:
            yield f"{id} was charged without an intent"
        if state not in ("done", "ambiguous"):
            yield f"{id} is {state}"
        if state == "done" and not times:
            yield f"{id} is done and was never charged"
    yield from _wrong_files(job, {id for id, kind in last.items() if kind == "done"})


def _wrong_files(job: Job, done: set[str]) -> Iterator[str]:
    results = [json.loads(line) for line in (job.out / "results.jsonl").read_text().splitlines()]
    if {result["custom_id"] for result in results} != done:
        yield "results.jsonl does not list what is done"
    names, there = set(), job.stored_images()
    for result in results:
        (picture,) = result["response"]["body"]["data"]
        names.add(picture["path"])
        if hashlib.sha256(there.get(picture["path"], b"")).hexdigest() != picture["sha256"]:
            yield f"{picture['path']} is not what the ledger says"
    if unnamed := there.keys() - names:
        yield f"{len(unnamed)} pictures that no row names"
    if left := list(WorkspacePaths(job.out).staging.iterdir()):
        yield f"{len(left)} files left in the staging folder"


def at_random(
    figures: Figures,
    kills: int,
    place: Path,
    chance: random.Random,
    *,
    pictures: int = 40,
    s3: FakeS3 | None = None,
) -> None:
    """Kills at random moments, and at random calls."""
    with provider("--answer-seconds", "0.1") as at:
        while figures.kills < kills and not figures.broken:
            job = Job.make(place / f"random-{figures.batches}", pictures, 1 + figures.batches * 10_000, s3)
            while True:
                at_call = chance.random() < 0.5
                death = Death(chance.randint(1, pictures * 8), chance.choice(_WAYS)) if at_call else _NONE
                began = time.monotonic()
                died = killed(job.start(at, death), 60.0 if at_call else chance.uniform(0.2, 1.2))
                if not died:
                    break
                figures.kills += 1
                figures.at_calls += at_call
                if time.monotonic() - began > 50:
                    figures.broken.append("a run hung")
            _look(job, at, figures)


def at_every_call(
    figures: Figures, place: Path, *, pictures: int = 4, every: int = 1, s3: FakeS3 | None = None
) -> None:
    """Kills at each call of a small batch, in each way, and lets the next run finish it."""
    with provider() as at:
        job = Job.make(place / "counted", pictures, 1, s3)
        calls = place / "calls"
        assert not killed(job.start(at, Death(calls=calls)), 60.0)
        _look(job, at, figures)
        for call in range(1, int(calls.read_text()) + 1, every):
            for how in _WAYS:
                job = Job.make(place / f"{call}-{how}", pictures, 1 + figures.batches * 10_000, s3)
                died = killed(job.start(at, Death(call, how)), 60.0)
                figures.kills += died
                figures.at_calls += died
                if died:
                    killed(job.start(at), 60.0)
                _look(job, at, figures)


def _look(job: Job, at: Provider, figures: Figures) -> None:
    figures.batches += 1
    figures.pictures += len(job.seeds)
    figures.broken += [f"{job.place.name}: {what}" for what in broken(job, at.charges(), figures)]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; 0 draws one")
    parser.add_argument("--every-call", action="store_true")
    parser.add_argument("--bucket", action="store_true")
    options = parser.parse_args(words)
    seed = options.seed or random.SystemRandom().randint(1, 10**9)
    figures = Figures()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="impasto-kills-")))
        s3 = stack.enter_context(pretending_aside()) if options.bucket else None
        if options.every_call:
            at_every_call(figures, folder, s3=s3)
        else:
            at_random(figures, options.kills, folder, random.Random(seed), s3=s3)
    print(f"seed {seed}: {attrs.asdict(figures)}")
    return int(bool(figures.broken))


if __name__ == "__main__":
    sys.exit(main())
