"""Jobs that are polled side by side: how late their polls are, and the tasks and timers that they have."""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import time
from collections import defaultdict

import attrs

from impasto import (
    Account,
    Artifact,
    Client,
    ImpastoError,
    Operation,
    Pending,
    Provider,
    Registry,
    Request,
    Result,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.client_state import BUILT_IN
from impasto.fields import text
from impasto.registry import MIDDLEWARE, OPERATIONS

from .measure import Ratio, compared

JOBS = 1_000
INTERVAL = 0.3
POLLS = 8
"""Polls until a job is done: it runs for 2.4 s."""

ROUNDS = 5


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True)


class Dialect:
    """A job, pending until its last poll."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        return WireRequest(target="/jobs", fields={"prompt": "a kite"}, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        return None

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        if response.status == 200:
            return Result(artifacts=(Artifact(data=b"x", media_type="image/png"),))
        job = response.headers["job"]
        return Pending(id=job, poll=WireRequest(target=f"/jobs/{job}", method="GET"))


class Nowhere:
    """A transport that answers at once and notes when each job is polled."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.most_tasks = self.most_timers = 0

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        job = wire.target.removeprefix("/jobs/") if wire.method == "GET" else str(len(self.times))
        if wire.method == "POST":
            wire.call.begin_attempt()
        else:
            self._count()
        times = self.times[job]
        times.append(time.perf_counter())
        return WireResponse(status=200 if len(times) > POLLS else 202, headers={"job": job})

    def _count(self) -> None:
        if len(self.times) == JOBS and not self.most_tasks:  # all run now
            self.most_tasks = len(asyncio.all_tasks())
            self.most_timers = sum(
                isinstance(each, asyncio.TimerHandle) and not each.cancelled() for each in _handles()
            )


def _handles() -> list[object]:
    return [each for each in gc.get_objects() if type(each) is asyncio.TimerHandle]


async def run(rounds: int) -> list[Ratio]:
    """The lateness of the polls of 1,000 jobs over the interval, and what a job has beside its call."""
    late: list[tuple[float, float]] = []
    worst: list[tuple[float, float]] = []
    tasks: list[tuple[float, float]] = []
    timers: list[tuple[float, float]] = []
    for _ in range(max(rounds, 2)):
        transport = Nowhere()
        await _poll_all(transport)
        gaps = [after - before for times in transport.times.values() for before, after in itertools.pairwise(times)]
        late.append((statistics.median(gaps), INTERVAL))
        worst.append((max(gaps), INTERVAL))
        tasks.append((transport.most_tasks, JOBS))
        timers.append((transport.most_timers, JOBS))
    name = f"{JOBS:,} jobs polled every {INTERVAL} s"
    return [
        compared(f"{name}: time between polls over the interval", late, unit="s", most=1.2),
        compared(f"{name}: the longest time between polls", worst, unit="s", most=1.2),
        compared(f"{name}: tasks for each", tasks, unit="tasks", most=1.01),
        compared(f"{name}: timers for each", timers, unit="timers", most=1.01),
    ]


async def _poll_all(transport: Nowhere) -> None:
    provider = Provider(name="acme", base_url="https://api.acme.example", poll_interval=INTERVAL)
    model = Operation(id="acme/x", title="X", params=Params, target="/jobs", provider=provider, dialect=Dialect())
    registry = Registry(discover=False)
    registry.add(OPERATIONS, "acme/x", model)
    for layer in BUILT_IN:
        registry.add(MIDDLEWARE, layer, Registry().load(MIDDLEWARE, layer, object))
    settings = {"acme": {"api_base": "http://127.0.0.1:9", "api_key": "k"}}
    async with Client(registry=registry, transport=transport, providers=settings, max_concurrency=JOBS) as client:
        await asyncio.gather(*(client.run("acme/x", prompt="a kite") for _ in range(JOBS)))
