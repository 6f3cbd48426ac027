"""Errors that a plugin makes of its provider's answer without a look at it: they stay what they are, and usable."""

from __future__ import annotations

import pickle
import traceback
import tracemalloc
from typing import Any

import attrs
import pytest

from impasto import (
    BadRequest,
    ChargeUnknown,
    ConfigError,
    ContentFiltered,
    ImpastoError,
    InvalidRequest,
    NotSent,
    Operation,
    Problem,
    RateLimited,
    Retry,
    UnusableResult,
    WireResponse,
)
from tests.reliability.hostile import KEY, MODEL, Dialect, attacked, operation
from tests.reliability.servers import http, in_json


@attrs.frozen
class Raising(Dialect):
    """Classifies each answer as this error, or raises it when it normalizes."""

    error: ImpastoError
    normalizes: bool

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        return None if self.normalizes else self.error

    def normalize_response(self, operation: Operation, request: object, response: WireResponse) -> Any:
        raise self.error


async def raised(error: ImpastoError, *, normalizes: bool = False) -> Any:
    model = operation(Raising(error, normalizes))
    async with attacked(in_json({}), model=model, retry=Retry(attempts=1)) as (client, server):
        with pytest.raises(type(error)) as caught:
            await client.run(MODEL, prompt="a kite")
        assert caught.value is error
        assert len(server.paid) == 1
    return caught.value


class Unprintable:
    def __repr__(self) -> str:
        return "Unprintable()"

    def __str__(self) -> str:
        raise RuntimeError("a fault of the plugin")


@pytest.mark.parametrize("normalizes", [False, True], ids=["classified", "normalized"])
@pytest.mark.parametrize("value", [{"code": 7}, None, b"bytes", 7, ["a"], Unprintable()], ids=repr)
async def test_texts_of_other_types_become_text(value: Any, normalizes: bool) -> None:
    error = BadRequest(value, status=400, name=value, messages=value, request_id=value)
    error = await raised(error, normalizes=normalizes)
    assert {type(each) for each in (error.message, error.args[0], *error.messages)} == {str}
    assert error.name is None or isinstance(error.name, str)
    assert error.request_id is None or isinstance(error.request_id, str)
    assert error.billed == "no"


@pytest.mark.parametrize("normalizes", [False, True], ids=["classified", "normalized"])
@pytest.mark.parametrize("billed", ["free", "No", True, ["no"], f"no {KEY}"], ids=repr)
async def test_a_bill_that_is_none_is_unknown_and_never_retried(billed: Any, normalizes: bool) -> None:
    for error in (ContentFiltered("not this", billed=billed), RateLimited("slow down", billed=billed)):
        error = await raised(error, normalizes=normalizes)
        assert (error.billed, error.retryable) == ("unknown", False)


@pytest.mark.parametrize("normalizes", [False, True], ids=["classified", "normalized"])
@pytest.mark.parametrize(
    "error", [NotSent("away"), InvalidRequest([Problem("prompt", "is odd")]), ConfigError("no")], ids=repr
)
async def test_an_answer_proves_that_the_request_was_sent(error: ImpastoError, normalizes: bool) -> None:
    """A plugin that says otherwise would have the request made, and paid for, again and again."""
    model = operation(Raising(error, normalizes))
    async with attacked(in_json({"id": 7}), model=model, retry=Retry(attempts=5)) as (client, server):
        with pytest.raises((ChargeUnknown, UnusableResult)) as caught:
            await client.run(MODEL, prompt="a kite")
        assert len(server.paid) == 1
    assert (caught.value.billed, caught.value.retryable) == ("yes" if normalizes else "unknown", False)
    assert type(error).__name__ in caught.value.message


async def test_a_message_is_one_bounded_line() -> None:
    forged = 'no\r\n2026-11-29 INFO paid twice\x1b[31m\u202e {"level": "critical"}'
    error = await raised(BadRequest(forged + "x" * 10**6, name=forged, messages=(forged,) * 10**5, request_id=forged))
    for text in (str(error), error.name, error.request_id, *error.messages):
        assert text.isprintable()
    assert len(str(error)) < 21_000
    assert len(error.messages) <= 24


async def test_an_unusable_result_of_a_plugin_keeps_its_bytes() -> None:
    error = await raised(UnusableResult({"why": "a mapping"}, raw=b"abc"), normalizes=True)  # type: ignore[arg-type]
    assert (error.raw, error.billed) == (b"abc", "yes")
    assert "a mapping" in str(error)


async def test_an_error_that_holds_the_whole_answer_is_not_written_out() -> None:
    """The repr of a UnicodeDecodeError is its answer four times over."""

    class Decoding(Dialect):
        def normalize_response(self, operation: Operation, request: object, response: WireResponse) -> Any:
            return response.body.decode("ascii")

    body = b"\xff" * 2**24
    async with attacked(http(200, body, content_type="image/png"), model=operation(Decoding())) as (client, _):
        await client.warm(MODEL)
        tracemalloc.start()
        try:
            with pytest.raises(UnusableResult, match="raised UnicodeDecodeError: 'ascii' codec") as caught:
                await client.run(MODEL, prompt="a kite")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert caught.value.raw == body
    assert peak < 5 * len(body)


class Quota(RateLimited):
    """A plugin's own error, with an argument of its own."""

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(f"{message}: {limit}", status=429)
        self.limit = limit


class Fixed(NotSent):
    """One that says always the same."""

    def __init__(self) -> None:
        super().__init__("the network is off")


def test_a_plugins_error_has_the_arguments_of_its_choice() -> None:
    for error, text in ((Quota("slow", 5), "slow: 5"), (Quota("slow", limit=5), "slow: 5"), (Fixed(), "is off")):
        assert str(error).endswith(text)
        assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    assert NotSent(message="lost").message == "lost"
    of_any_arguments: Any = NotSent
    with pytest.raises(TypeError):
        of_any_arguments("lost", 5)


class Leaking(Dialect):
    """Raises an error that shows the key."""

    def __init__(self, hook: str) -> None:
        self._hook = hook

    def transform_request(self, *args: Any, **settings: Any) -> Any:
        self._leak("transform_request")
        return super().transform_request(*args, **settings)

    def classify_error(self, *args: Any, **settings: Any) -> Any:
        self._leak("classify_error")

    def _leak(self, hook: str) -> None:
        if hook == self._hook:
            raise ValueError(f"invalid header: {KEY}")


@pytest.mark.parametrize("hook", ["transform_request", "classify_error"])
async def test_no_traceback_shows_the_key(hook: str) -> None:
    async with attacked(in_json({}), model=operation(Leaking(hook))) as (client, _):
        with pytest.raises(ImpastoError) as caught:
            await client.run(MODEL, prompt="a kite")
    assert KEY not in "".join(traceback.format_exception(caught.value))
