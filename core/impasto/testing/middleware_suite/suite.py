"""The suite that every middleware must pass: subclass it in a test module, and name the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from impasto import ImpastoError, Result
from impasto.testing.probe import (
    BODY,
    GOOD,
    MODEL,
    REFUSED,
    Answering,
)
from impasto.testing.recorder import Answer
from impasto.testing.subject import KEY
from impasto.testing.watch import (
    MOST_HELD,
    LoopWatch,
    blocking_calls,
    check,
    check_short_blocks,
    held_bytes,
    logged_lines,
    run,
)

from .passage import NOWHERE, PROMPT, PassageChecks

_OTHER_KEY = "sk-other-8c03b7d2e9f1a645"


class MiddlewareSuite(PassageChecks):
    """Checks one middleware around a model whose transport has no network.

    class TestPrinter(MiddlewareSuite):
        middleware = "printer"
    """

    @check
    def test_each_call_is_sent_once(self) -> None:
        """Check that one call is one request, and two equal calls are two unless answers are stored."""
        transport = Answering(GOOD)
        came = run(self.call(transport))
        count = len(transport.requests)
        assert count == 1, f"one call made {count} requests and ended in {came!r}"
        transport = Answering(GOOD)
        run(self.calls(transport, [{"prompt": "another"}, {"prompt": "another"}]))
        least = 1 if self.holds_answers else 2
        assert least <= len(transport.requests) <= 2, f"two calls made {len(transport.requests)} requests"

    @check
    def test_calls_at_once_do_not_mix(self) -> None:
        """Check ten calls at once, whose answers differ."""
        prompts = [f"prompt number {number}" for number in range(10)]
        results = run(self.calls(Answering(None), [{"prompt": prompt} for prompt in prompts], at_once=True))
        for prompt, result in zip(prompts, results, strict=True):
            assert isinstance(result, Result), f"one of ten calls at once ended in {result!r}"
            assert prompt.encode() in result.artifacts[0].data, "a call got the answer to another one"

    @check
    def test_a_call_can_be_cancelled(self) -> None:
        """Check that a cancelled call ends at once in CancelledError, and leaves no task."""

        async def cancel() -> None:
            tasks, transport = asyncio.all_tasks(), Answering(GOOD, is_silent=True)
            async with self.client(transport) as client:
                task = asyncio.ensure_future(client.invoke(MODEL, PROMPT))
                arrival = asyncio.ensure_future(transport.came.wait())
                await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
                arrival.cancel()
                assert not task.done(), (
                    f"nothing was requested: the call ended in {task.exception() or task.result()!r}"
                )
                task.cancel()
                done, _ = await asyncio.wait({task}, timeout=self.seconds / 4)
                assert done, "a cancelled call goes on"
                assert task.cancelled(), "a cancelled call ended in an error or a result, not in CancelledError"
                transport.is_silent = False
                try:
                    await asyncio.wait_for(client.invoke(MODEL, {"prompt": "the next"}), self.seconds / 4)
                except TimeoutError:
                    raise AssertionError("after a cancelled call the next waits for ever: release in finally") from None
            left = asyncio.all_tasks() - tasks
            assert not left, f"a cancelled call left tasks: {left}"

        run(cancel())

    @check
    def test_an_answer_is_not_held(self) -> None:
        """Check that the memory of requests and answers is free after their calls, and that no task is left."""

        async def growth() -> int:
            tasks, transport = asyncio.all_tasks(), Answering(GOOD)
            async with self.client(transport) as client:

                async def call(size: int) -> None:
                    transport.answer = Answer(headers=GOOD.headers, body=BODY[:8] + bytes(size))
                    await client.invoke(MODEL, {**PROMPT, "image": bytes(size)})
                    transport.answer = None
                    transport.requests.clear()

                more = await held_bytes(call)
            left = asyncio.all_tasks() - tasks
            assert not left, f"it left tasks: {left}"
            return more

        size = run(growth())
        assert self.holds_answers or size < MOST_HELD, (
            f"the middleware holds {size:,} bytes of three requests and answers after their calls: memory grows with "
            "each call; declare holds_answers = True if it stores answers"
        )

    @check
    def test_equal_prompts_of_others_have_their_own_answers(self) -> None:
        """Check calls that differ in their key, or in their file alone: each has the answer to its own request."""

        async def calls() -> list[tuple[bytes, bytes]]:
            found: list[tuple[bytes, bytes]] = []
            async with self.client(Answering(None)) as client:
                own = {"probe": {"api_base": NOWHERE, "api_key": _OTHER_KEY}}
                other = client.with_options(providers={**self.provider_settings, **own})
                for each, key in ((client, KEY), (other, _OTHER_KEY)):
                    came = await each.invoke(MODEL, PROMPT)
                    found.append((key.encode(), came.artifacts[0].data))
                for image in (b"one image", b"another image"):
                    came = await client.invoke(MODEL, {**PROMPT, "image": image})
                    found.append((image, came.artifacts[0].data))
            return found

        for mark, data in run(calls()):
            what = "file" if mark.endswith(b"image") else "account"
            assert mark in data, f"a call has the answer to an equal one with another {what}: tell them apart"

    @check
    def test_the_loop_is_not_blocked(self) -> None:
        """Check that nothing on the loop's thread reads a file, sleeps or takes more than 30 ms."""

        async def calls(watches: Sequence[LoopWatch]) -> None:
            for answer in (REFUSED, GOOD):
                async with self.client(Answering(answer)) as client:
                    await client.warm(MODEL)
                    await client.account(MODEL)
                    with blocking_calls() as found, suppress(ImpastoError):
                        await client.invoke(MODEL, PROMPT)
                    assert not found, found[0]
                    for number, watch in enumerate(watches if answer is GOOD else ()):
                        with watch.over_this_loop():
                            await client.invoke(MODEL, {"prompt": f"a lighthouse {number}"})

        check_short_blocks(calls)

    @check
    def test_no_log_holds_the_key(self) -> None:
        """Check log lines for the key."""
        with logged_lines() as lines:
            outcomes = [repr(run(self.call(Answering(answer)))) for answer in (GOOD, REFUSED)]
        assert not any(KEY in line for line in (*lines, *outcomes)), "the key is in a log line or an error"
