"""Whole batches through the command, a large one and a small: ``python -m benchmarks.whole_batch [--rows N]``.

What each process held at most, and what a row took; 100,000 rows take some minutes and 2 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

from .batch import a_manifest
from .floors import loop
from .server import running

FEW = 1_000
MOST_MB = 20.0
_LOOKS_SECONDS = 0.25


@attrs.frozen
class Whole:
    """What a run took: megabytes at most, seconds, seconds of CPU."""

    rows: int
    mb: float
    seconds: float
    cpu: float


def whole(place: Path, url: str, rows: int) -> Whole:
    """Runs so many rows."""
    path = a_manifest(place / f"{rows}.jsonl", rows)
    words = ["batch", "run", str(path), "--out", str(place / f"out-{rows}"), "--api-base", url, "--no-report"]
    began, mb, cpu = time.monotonic(), 0.0, 0.0
    with subprocess.Popen(
        [sys.executable, "-m", "impasto_plugins.cli", *words], env={**os.environ, "STABILITY_API_KEY": loop.KEY}
    ) as process:
        while process.poll() is None:
            mb, cpu = max(mb, _held(process.pid)), max(cpu, _cpu(process.pid))
            time.sleep(_LOOKS_SECONDS)
    assert process.returncode == 0
    return Whole(rows, mb, time.monotonic() - began, cpu)


def _held(pid: int) -> float:
    """The most that a process ever held, in MB; 0 where it is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found is not None else 0.0


def _cpu(pid: int) -> float:
    """Its user's and system's seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_batch", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="impasto-batch-") as folder, running() as url:
        few, many = (whole(Path(folder), url, rows) for rows in (FEW, asked.rows))
    for each in (few, many):
        print(
            f"{each.rows:,} rows: {each.mb:.1f} MB at most, {each.seconds:.0f} s,"
            f" {each.cpu / each.rows * 1000:.2f} ms of CPU a row"
        )
    print(f"{many.mb - few.mb:.1f} MB more, where {MOST_MB:.0f} are allowed")
    return int(many.mb - few.mb > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
