"""Operations in processes of their own, all of which begin at the same moment."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from impasto.state_records import Reservation, StoredCall, Use
from impasto.states import StateStore

KEY = b"k" * 32


def run_at_once(state_type: type[StateStore], address: str, jobs: Sequence[tuple[str, int]]) -> list[list[Any]]:
    """Run jobs, each in a process: its name, and how often. Return what each printed."""
    place = [state_type.__module__, state_type.__qualname__, address]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in jobs
    ]
    try:
        for process, job in zip(processes, jobs, strict=True):
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps([*place, *job]), file=process.stdin, flush=True)
        for process in processes:  # each has opened the store
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n", "a process can't import the store's class, or open the store"
        for process in processes:
            assert process.stdin is not None
            print("go", file=process.stdin, flush=True)
        return [json.loads(process.communicate()[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def main() -> None:
    """Run one job: the entry point of a process."""
    module, name, address, job, count = json.loads(sys.stdin.readline())
    state_type = import_module(module)
    for part in name.split("."):
        state_type = getattr(state_type, part)
    results = asyncio.run(_run(state_type(address), job, count))  # type: ignore[operator]  # it is a class
    print(json.dumps(results), flush=True)  # noqa: T201 - to the process that waits


async def _run(state: StateStore, job: str, count: int) -> list[Any]:
    await state.open()
    try:
        print("open", flush=True)  # noqa: T201 - to the process that waits
        await asyncio.to_thread(sys.stdin.readline)
        if job == "reserve":
            use = Use(what="images", period="day", amount=1, limit=count)
            answers = await asyncio.gather(*(state.budgets.reserve(KEY, [use]) for _ in range(3 * count)))
            return [isinstance(answer, Reservation) for answer in answers]
        if job == "claim":
            claimed = await asyncio.gather(*(state.calls.claim(KEY, 1, as_job=False) for _ in range(count)))
            return [call.id for call in claimed if call is not None]
        now, winners = await state.now(), list[str]()
        for number in range(count):
            identity, id = b"%032d" % number, f"{os.getpid()}-{number}"
            call = StoredCall(id=id, owner=b"o", identity=identity, created=now, expires=now + 3600)
            winners.append((await state.calls.insert_or_join(call, join=True)).id)
        return winners
    finally:
        await state.aclose()
