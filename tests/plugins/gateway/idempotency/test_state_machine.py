"""What is written down of calls against a model of it: any order of calls, ends, crashes and days, in several workers.

Each key of a caller's is one call, whoever asks; what it came to is told to all; and what the caller has spent is, to
the billionth of a dollar, what may have been charged.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import attrs
import pytest
from aiohttp import web
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from impasto import Artifact, ChargeUnknown, Cost, FailedArtifact, ImpastoError, NotSent, ProviderFault, Result
from impasto.ext import StoredCall
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.budgets import BudgetGuard
from impasto_plugins.gateway.calls.execution import CallOutcome, PreparedCall
from impasto_plugins.gateway.config.model import KeyConfig
from impasto_plugins.gateway.errors import APIError, to_api_error
from impasto_plugins.gateway.http.memory_budget import MemoryBudget, MemoryReservation
from impasto_plugins.gateway.idempotency import coordinator as repeats_module
from impasto_plugins.gateway.idempotency.coordinator import IdempotencyCoordinator
from impasto_plugins.gateway.idempotency.fingerprint import Fingerprint
from impasto_plugins.gateway.idempotency.session import CallLabel, IdempotencySession
from impasto_plugins.gateway.idempotency.store import KEY_SECONDS
from impasto_plugins.gateway.storage.contents import FolderContents
from impasto_plugins.gateway.storage.late_writes import LateWrites
from impasto_plugins.gateway.storage.places import OUTCOMES
from impasto_plugins.state.sqlite import SQLiteState
from tests.plugins.gateway.records import calls_of

WORKERS = 3
KEYS = "ab"
USD, NANO = 0.065, 65_000_000
PICTURES, USD_PER_MONTH = 12, 0.65
"""What the caller may have made in a day, and spend in a month: ten pictures."""

NOON = 1_790_856_000.0
DAY = 86_400.0
OWNER = b"o" * 32
CALLER = Caller(
    name="o",
    digest=OWNER,
    limits=KeyConfig(name="o", sha256=OWNER.hex(), images_per_day=PICTURES, usd_per_month=USD_PER_MONTH),
)
T = TypeVar("T")


@attrs.define(eq=False)
class Call:
    """A request, which has a worker, a key and its pictures. ``going``: where its call is made by it."""

    worker: Worker
    key: str
    n: int
    go: asyncio.Future[Result] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future())
    task: asyncio.Task[tuple[CallOutcome, StoredCall | None]] = attrs.field(init=False)
    is_made: bool = False

    async def answer(self) -> tuple[CallOutcome, StoredCall | None]:
        request = SimpleNamespace(transport=SimpleNamespace(is_closing=lambda: False), protocol=None)
        key = self.key.encode() * 32
        content = key[:31] + b"%d" % self.n
        identity = Fingerprint(
            request=cast("web.BaseRequest", request), owner=OWNER, content=content, key=key, count=None
        )
        async with IdempotencySession(self.worker.repeats, identity, MemoryReservation(MemoryBudget(1 << 30))) as part:
            return await part.get_outcome(self.make, CallLabel("m", "b64_json"))

    async def make(self, row: StoredCall | None) -> CallOutcome:
        checked = SimpleNamespace(n=self.n, cost=Cost(usd=USD, as_of=""))
        try:
            result = await BudgetGuard(self.worker.state.budgets, LateWrites(), CALLER).charge(
                cast("PreparedCall", checked), self.attempt
            )
        except ImpastoError as error:
            raise to_api_error(error) from None
        return CallOutcome(artifacts=result.artifacts, warnings=(), lost=(), cost=None, created=0)

    async def attempt(self) -> Result:
        self.is_made = True
        return await self.go


@attrs.define(eq=False)
class Worker:
    state: SQLiteState
    repeats: IdempotencyCoordinator

    @classmethod
    async def start(cls, folder: Path, clock: list[float]) -> Worker:
        state = SQLiteState(str(folder), clock=lambda: clock[0])
        await state.open()
        worker = cls(
            state, IdempotencyCoordinator(state, folder, FolderContents(folder / OUTCOMES), lambda row, flight: None)
        )
        await worker.repeats.open()
        return worker

    async def crash(self) -> None:
        """As the system ends a process: its lock is gone, and nothing is written any more."""
        flights = calls_of(self.repeats)
        fcntl.flock(flights._fd, fcntl.LOCK_UN)
        os.close(flights._fd)
        flights._fd = -1
        await self.state.aclose()


@attrs.define
class Expectation:
    """What must be known of one key. ``outcome``: the pictures, or the code of a failure that may have been charged."""

    n: int
    running: Call | None = None
    waiting: list[Call] = attrs.field(factory=list[Call])
    outcome: bytes | str | None = None


class Store(RuleBasedStateMachine):
    """The workers, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="impasto-model-"))
        self.runner = asyncio.Runner()
        self.clock = [NOON]
        self.workers: list[Worker] = []
        self.expectations: dict[str, Expectation] = {}
        self.pictures: dict[int, int] = {}
        self.nano = 0
        self.images = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.workers = [self.run(Worker.start(self.folder, self.clock)) for _ in range(WORKERS)]

    def teardown(self) -> None:
        async def end() -> None:
            for expected_call in self.expectations.values():
                for call in (expected_call.running, *expected_call.waiting):
                    if call is not None:
                        call.task.cancel()
                        await asyncio.wait([call.task])
            for worker in self.workers:
                await worker.repeats.aclose()
                await worker.state.aclose()

        self.run(end())
        self.runner.close()
        shutil.rmtree(self.folder)

    @property
    def today(self) -> int:
        return int(self.clock[0] // DAY)

    @rule(at=st.integers(0, WORKERS - 1), key=st.sampled_from(KEYS), n=st.integers(1, 3))
    def ask(self, at: int, key: str, n: int) -> None:
        """A request, of a key that may be known already."""
        self.run(self._ask(self.workers[at], key, n))

    async def _ask(self, worker: Worker, key: str, n: int) -> None:
        expected_call = self.expectations.get(key)
        call = Call(worker, key, n)
        call.task = asyncio.create_task(call.answer())
        if expected_call is None:
            await self._begins(key, [call])
        elif expected_call.n != n:
            assert await code_of(call.task) == "idempotency_key_reused"
        elif expected_call.running is not None:
            expected_call.waiting.append(call)
        else:
            assert await summarize(call.task) == expected_call.outcome

    async def _begins(self, key: str, calls: list[Call]) -> None:
        """Of these, which ask for the same, one is made, or all are refused for what the caller has left."""
        n = calls[0].n
        while self._fits(n):
            if (match := next((call for call in calls if call.is_made), None)) is not None:
                self.expectations[key] = Expectation(n, match, [call for call in calls if call is not match])
                self.pictures[self.today] = self.pictures.get(self.today, 0) + n
                self.nano += n * NANO
                return
            assert not any(call.task.done() for call in calls)
            await asyncio.sleep(0.001)
        self.expectations.pop(key, None)
        for call in calls:
            assert await code_of(call.task) == "insufficient_quota"

    def _fits(self, n: int) -> bool:
        return self.pictures.get(self.today, 0) + n <= PICTURES and self.nano + n * NANO <= USD_PER_MONTH * 10**9

    @precondition(lambda self: any(expected_call.running is not None for expected_call in self.expectations.values()))
    @rule(key=st.sampled_from(KEYS), how=st.sampled_from(["came", "some", "free", "not sent", "unknown"]))
    def end(self, key: str, how: str) -> None:
        """The provider answers."""
        expected_call = self.expectations.get(key)
        if expected_call is not None and expected_call.running is not None:
            self.run(self._end(key, expected_call, expected_call.running, how))

    async def _end(self, key: str, expected_call: Expectation, call: Call, how: str) -> None:
        free, expected_call.running, waiting = 0, None, expected_call.waiting
        expected_call.waiting = []
        self.images += 1
        data = b"%d" % self.images
        match how:
            case "came":
                call.go.set_result(Result(artifacts=(Artifact(data=data, media_type="image/png"),) * expected_call.n))
            case "some" if expected_call.n > 1:
                free = expected_call.n - 1
                errors = tuple(FailedArtifact(index=i, error=ProviderFault("no", status=500)) for i in range(free))
                call.go.set_result(Result(artifacts=(Artifact(data=data, media_type="image/png"),), errors=errors))
            case "unknown":
                call.go.set_exception(ChargeUnknown("it left"))
            case "free":
                free = expected_call.n
                call.go.set_exception(ProviderFault("no", status=500))
            case _:
                free = expected_call.n
                call.go.set_exception(NotSent("no"))
        self.pictures[self.today] -= free
        self.nano -= free * NANO
        if call.go.exception() is None or how == "unknown":
            expected_call.outcome = "charge_unknown" if how == "unknown" else data
            for each in (call, *waiting):
                assert await summarize(each.task) == expected_call.outcome
            return
        assert await code_of(call.task) in ("provider_fault", "provider_unreachable")
        del self.expectations[key]
        if waiting:  # it is made again for one of them
            await self._begins(key, waiting)

    @rule(key=st.sampled_from(KEYS), who=st.sampled_from(["the one whose call it is", "one that waits"]))
    def give_up(self, key: str, who: str) -> None:
        """A request is cancelled, as where the time to drain is over."""
        expected_call = self.expectations.get(key)
        if expected_call is not None and expected_call.running is not None:
            self.run(self._give_up(expected_call, expected_call.running, is_made=who != "one that waits"))

    async def _give_up(self, expected_call: Expectation, running: Call, *, is_made: bool) -> None:
        if not is_made and not expected_call.waiting:
            return
        call = running if is_made else expected_call.waiting.pop()
        call.task.cancel()
        await asyncio.wait([call.task])
        if is_made:
            waiting, expected_call.running, expected_call.waiting, expected_call.outcome = (
                expected_call.waiting,
                None,
                [],
                "charge_unknown",
            )
            for each in waiting:
                assert await summarize(each.task) == "charge_unknown"

    @rule(at=st.integers(0, WORKERS - 1))
    def crash(self, at: int) -> None:
        """A worker ends, and another begins in its place."""
        self.run(self._crash(at))

    async def _crash(self, at: int) -> None:
        dead = self.workers[at]
        failures: list[Expectation] = []
        for expected_call in self.expectations.values():
            calls = [
                call
                for call in (expected_call.running, *expected_call.waiting)
                if call is not None and call.worker is dead
            ]
            for call in calls:
                call.task.cancel()
                await asyncio.wait([call.task])
            expected_call.waiting = [call for call in expected_call.waiting if call not in calls]
            if expected_call.running in calls:
                expected_call.running, expected_call.outcome = None, "charge_unknown"
                failures.append(expected_call)
        await dead.crash()
        for expected_call in failures:
            for call in expected_call.waiting:
                assert await summarize(call.task) == "charge_unknown"
            expected_call.waiting = []
        self.workers[at] = await Worker.start(self.folder, self.clock)

    @precondition(lambda self: all(expected_call.running is None for expected_call in self.expectations.values()))
    @rule()
    def a_day_passes(self) -> None:
        """Which is how long a key holds."""
        self.clock[0] += KEY_SECONDS
        self.expectations.clear()

    @invariant()
    def what_is_spent_is_exact(self) -> None:
        if self.workers:
            used = self.run(
                self.workers[0].state.database.write(lambda db: db.execute("SELECT * FROM budgets").fetchall())
            )
            spent = {(what, period): amount for _, what, _, period, amount in used if what != "requests" and amount}
            pictures = {("images", day): amount for day, amount in self.pictures.items() if amount}
            assert {key: amount for key, amount in spent.items() if key[0] == "images"} == pictures
            assert [amount for key, amount in spent.items() if key[0] == "nano_usd"] == (
                [self.nano] if self.nano else []
            )


async def summarize(answer: Awaitable[tuple[CallOutcome, StoredCall | None]]) -> bytes | str:
    """What a request was answered with: the first picture's bytes, or a failure's code."""
    try:
        async with asyncio.timeout(60):
            done, _ = await answer
    except APIError as failure:
        return failure.code or ""
    return done.artifacts[0].data


async def code_of(answer: Awaitable[tuple[CallOutcome, StoredCall | None]]) -> str:
    code = await summarize(answer)
    assert isinstance(code, str)
    return code


def test_calls_are_made_once_and_paid_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCH_SECONDS", "LINGER_SECONDS", "_RECHECK_SECONDS"):
        monkeypatch.setattr(repeats_module, name, 0.002)
    run_state_machine_as_test(Store, settings=settings(max_examples=20, stateful_step_count=15, deadline=None))
