"""n pictures are n calls: bounds, seeds, some failing, all failing, cancellation; over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

import impasto
import impasto_plugins
from impasto import BadRequest, InvalidRequest
from impasto.fanout import check_n_and_seed, fan_out, requests_with_seeds, result_of_cancelled
from impasto.fields import integer, text
from tests.images import png
from tests.recorder import Answer, ReceivedRequest, Recorder, in_json, picture

ERASE = impasto.Registry().operation("stability/erase")
REFUSAL = {"id": "e1", "name": "bad_request", "errors": ["prompt: no"]}


WRONG = [0, -1, 11, 10**9, 10**5000, True, False, 1.0, "2", None, [2]]


@pytest.mark.parametrize("n", WRONG, ids=lambda n: type(n).__name__)
async def test_n_out_of_bounds(client: impasto.Client, recorder: Recorder, n: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^stability/sd3: n: must be a whole number from 1 to 10, not "):
        await client.run("stability/sd3", n=n, prompt="x")
    assert recorder.requests == []


@pytest.mark.parametrize(
    ("params", "messages"),
    [
        ({"n": 11, "prompt": 5, "sede": 1}, ["n", "prompt", "sede"]),
        ({"n": 3, "prompt": 5, "seed": 4_294_967_294}, ["seed", "prompt"]),
        ({"n": 3, "prompt": "x", "seed": 4_294_967_295}, ["seed"]),
        ({"n": 3, "prompt": "x", "seed": "1"}, ["seed"]),
        ({"n": 11, "prompt": "x", "seed": -1}, ["n", "seed"]),
    ],
)
async def test_problems_of_n_come_with_all_others(
    client: impasto.Client, recorder: Recorder, params: dict[str, Any], messages: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.run("stability/sd3", **params)
    assert [problem.field for problem in caught.value.problems] == messages
    assert recorder.requests == []


@pytest.mark.parametrize("n", [1, 2, 10])
async def test_n_pictures_are_n_calls(client: impasto.Client, recorder: Recorder, n: int) -> None:
    result = await client.run("stability/sd3", n=n, prompt="x")
    assert len(result.artifacts) == len(recorder.posts) == n
    assert all(post.fields == {"prompt": "x"} for post in recorder.posts)
    assert (result.warnings, result.errors) == ((), ())
    assert result.cost is not None
    assert result.cost.usd == pytest.approx(n * 0.065)
    assert result.cost.credits == pytest.approx(n * 6.5)


async def test_one_picture_makes_no_task(client: impasto.Client) -> None:
    await client.warm("stability/sd3")
    results: list[Any] = []
    loop = asyncio.get_running_loop()

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        results.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    await client.run("stability/sd3", prompt="x")  # the connection is there
    loop.set_task_factory(factory)
    try:
        await client.run("stability/sd3", prompt="x")
    finally:
        loop.set_task_factory(None)
    ours = (*impasto.__path__, *impasto_plugins.__path__)
    assert [c for c in results if c.cr_code.co_filename.startswith(ours)] == []


async def test_a_seed_is_counted_up(client: impasto.Client, recorder: Recorder) -> None:
    await client.run("stability/sd3", n=3, prompt="x", seed=41)
    assert sorted(post.fields["seed"] for post in recorder.posts) == ["41", "42", "43"]


@pytest.mark.parametrize(("params", "sent"), [({}, None), ({"seed": 0}, "0"), ({"seed": None}, None)])
async def test_a_random_seed_stays_so(
    client: impasto.Client, recorder: Recorder, params: dict[str, Any], sent: str | None
) -> None:
    await client.run("stability/sd3", n=2, prompt="x", **params)
    assert [post.fields.get("seed") for post in recorder.posts] == [sent, sent]


@pytest.mark.parametrize(
    ("default", "value", "sent"),
    [
        (12, None, [None, 13, 14]),  # without a seed this provider makes the image of seed 12
        (12, 0, [0, 1, 2]),
        (None, 0, [0, 1, 2]),
        (None, None, [None] * 3),
        (0, None, [None] * 3),  # 0 is random
        (0, 0, [0] * 3),
        (-1, None, [None] * 3),
        (-1, -1, [-1] * 3),
    ],
)
def test_images_differ_if_the_provider_has_a_seed_of_its_own(
    default: int | None, value: int | None, sent: list[int | None]
) -> None:
    @attrs.frozen(kw_only=True)
    class Params:
        seed: int | None = integer(-1, 1000, default=default)

    request = impasto.Request(operation="acme/paint", params=Params(seed=value), target="/paint")
    requests, _ = requests_with_seeds(3, request, attrs.evolve(ERASE, params=Params, rules=()))
    assert [each.params for each in requests] == [Params(seed=seed) for seed in sent]
    assert request.params == Params(seed=value)


async def test_a_seed_that_would_pass_its_bound(client: impasto.Client, recorder: Recorder) -> None:
    most = 4_294_967_294
    with pytest.raises(InvalidRequest, match=r"^stability/sd3: seed: must be at most 4294967292 with n=3") as caught:
        await client.run("stability/sd3", n=3, prompt="x", seed=most - 1)
    assert [problem.field for problem in caught.value.problems] == ["seed"]
    assert recorder.requests == []
    await client.run("stability/sd3", n=3, prompt="x", seed=most - 2)
    assert max(post.fields["seed"] for post in recorder.posts) == str(most)


async def test_a_model_that_makes_the_same_of_the_same_image_warns(client: impasto.Client, recorder: Recorder) -> None:
    result = await client.run("stability/upscale-fast", n=2, image=png(64, 64))
    assert result.warnings == ("stability/upscale-fast does not take a seed: the 2 images may be alike",)
    assert [post.files["image"].data for post in recorder.posts] == [png(64, 64)] * 2


@pytest.mark.parametrize("field", [text(role="prompt"), integer(1, 9)])
def test_a_provider_that_draws_a_seed_itself_makes_other_images(field: Any) -> None:
    params = attrs.make_class("Params", {"caption" if field.metadata["impasto"].role else "seed": field})
    request = impasto.Request(operation="acme/paint", params=params(), target="/paint")
    assert requests_with_seeds(2, request, attrs.evolve(ERASE, params=params, rules=())) == ([request] * 2, ())


async def test_one_open_file_serves_all_calls(client: impasto.Client, recorder: Recorder, tmp_path: Any) -> None:
    path = tmp_path / "a.png"
    await asyncio.to_thread(path.write_bytes, png(64, 64))
    source = await asyncio.to_thread(path.open, "rb")
    with source:
        await client.run("stability/upscale-fast", n=4, image=source)
        assert not source.closed
    assert [post.files["image"].data for post in recorder.posts] == [png(64, 64)] * 4


async def test_some_failing_gives_what_came_and_what_was_lost(client: impasto.Client, recorder: Recorder) -> None:
    def answer(request: ReceivedRequest) -> Answer:
        return in_json(REFUSAL, status=400) if request.fields["seed"] in ("6", "8") else picture()

    recorder.answer = answer
    result = await client.run("stability/sd3", n=4, prompt="x", seed=5)
    assert len(result.artifacts) == 2
    assert [failure.index for failure in result.errors] == [1, 3]
    assert all(isinstance(failure.error, BadRequest) for failure in result.errors)
    assert result.cost is not None
    assert result.cost.usd == pytest.approx(0.13), "two were charged"


async def test_all_failing_raises_the_first_with_the_others(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda request: in_json(REFUSAL, status=400)
    with pytest.raises(BadRequest) as caught:
        await client.run("stability/sd3", n=3, prompt="x")
    assert len(caught.value.errors) == 2
    assert caught.value.errors[0].operation == "stability/sd3"


@pytest.mark.parametrize("charged_first", [True, False])
async def test_a_fan_out_with_one_unknown_charge_can_not_be_retried(
    client: impasto.Client, recorder: Recorder, charged_first: bool
) -> None:
    """The other image failed in a way that could be; whoever sends the whole again pays for the first twice."""
    busy = in_json({"id": "e", "name": "internal_error", "errors": ["busy"]}, status=500)
    page = Answer(status=502, headers={"content-type": "text/html"})

    def answer(request: ReceivedRequest) -> Answer:
        return page if (request.fields["seed"] == "5") is charged_first else busy

    recorder.answer = answer
    once = client.with_options(retry=impasto.Retry(refused=0))
    with pytest.raises(impasto.ImpastoError) as caught:
        await once.run("stability/sd3", n=2, prompt="x", seed=5)
    assert {type(caught.value), *map(type, caught.value.errors)} == {impasto.ChargeUnknown, impasto.ProviderFault}
    assert (caught.value.retryable, caught.value.billed) == (False, "unknown")


async def test_a_fan_out_that_is_free_and_may_be_retried_says_so(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda _: in_json({"id": "e", "name": "internal_error", "errors": ["busy"]}, status=500)
    with pytest.raises(impasto.ProviderFault) as caught:
        await client.with_options(retry=impasto.Retry(refused=0)).run("stability/sd3", n=2, prompt="x")
    assert (caught.value.retryable, caught.value.billed) == (True, "no")


async def test_cancelling_cancels_every_call_and_says_what_may_have_been_charged(client: impasto.Client) -> None:
    arrived: asyncio.Queue[None] = asyncio.Queue()
    left: asyncio.Queue[None] = asyncio.Queue()

    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"--\r\n")
        arrived.put_nowait(None)
        await reader.read()
        left.put_nowait(None)
        writer.close()

    server = await asyncio.start_server(never_answers, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    slow = client.with_options(api_base=f"http://127.0.0.1:{port}")
    task = asyncio.create_task(slow.run("stability/sd3", n=3, prompt="x"))
    async with asyncio.timeout(60):
        for _ in range(3):
            await arrived.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        for _ in range(3):
            await left.get()
    assert any("it may have been charged" in note for note in caught.value.__notes__)
    server.close()
    await server.wait_closed()


STABILITY_SD3 = impasto.Registry().operation("stability/sd3")
REQUEST = STABILITY_SD3.request("stability/sd3", {"prompt": "x"})
PICTURE = impasto.Artifact(data=b"x", media_type="image/png")


async def fanned(*outcomes: impasto.Result | impasto.ImpastoError) -> impasto.Result:
    """Fan out into calls of which each ends so."""
    left = list(outcomes)

    async def one(request: impasto.Request) -> impasto.Result:
        outcome = left.pop(0)
        if isinstance(outcome, impasto.ImpastoError):
            raise outcome
        return outcome

    return await fan_out(len(outcomes), REQUEST, STABILITY_SD3, one)


def result_of(number: int = 1, **fields: Any) -> impasto.Result:
    return impasto.Result(artifacts=(PICTURE,) * number, **fields)


async def test_an_image_that_is_lost_has_its_place_among_all_that_should_have_come() -> None:
    failure = impasto.FailedArtifact(index=1, error=impasto.NotSent("lost in an answer"))
    result = await fanned(
        result_of(2), impasto.NotSent("first"), result_of(1, errors=(failure,)), impasto.NotSent("last"), result_of()
    )
    assert len(result.artifacts) == 4
    assert [(each.index, each.error.message) for each in result.errors] == [
        (2, "first"),
        (4, "lost in an answer"),
        (5, "last"),
    ]


async def test_the_cost_of_several_calls_is_rounded_as_money_is_written() -> None:
    cost = impasto.Cost(usd=0.1, credits=0.7, as_of="2026-01-01")
    assert (await fanned(*[result_of(cost=cost)] * 3)).cost == impasto.Cost(usd=0.3, credits=2.1, as_of="2026-01-01")
    bare = impasto.Cost(usd=0.1, as_of="2026-01-01")
    assert (await fanned(*[result_of(cost=bare)] * 3)).cost == impasto.Cost(usd=0.3, as_of="2026-01-01")
    assert (await fanned(result_of(cost=cost), result_of())).cost is None, "the cost of one is not known"


async def test_a_warning_of_several_calls_is_given_once_and_the_first_calls_id_is_the_results() -> None:
    result = await fanned(
        impasto.NotSent("no"),
        result_of(warnings=("a", "b"), request_id="2"),
        result_of(warnings=("b",), request_id="3"),
    )
    assert (result.warnings, result.request_id) == (("a", "b"), "2")


async def test_a_failure_of_all_is_charged_if_any_may_have_been() -> None:
    with pytest.raises(impasto.NotSent) as caught:
        await fanned(impasto.NotSent("a"), impasto.UnusableResult("b"), impasto.ChargeUnknown("c"))
    assert (caught.value.billed, caught.value.retryable, len(caught.value.errors)) == ("yes", False, 2)
    assert caught.value.billed_each == ("no", "yes", "unknown")
    with pytest.raises(impasto.ChargeUnknown) as unknown:
        await fanned(impasto.ChargeUnknown("c"), impasto.UnusableResult("b"))
    assert unknown.value.billed == "unknown", "the first speaks for itself"


@pytest.mark.parametrize(
    ("n", "seed", "messages"),
    [
        (1, 4_294_967_294, []),
        (10, 4_294_967_285, []),
        (10, 4_294_967_286, ["seed"]),
        (2, 0, []),
        (2, -5, []),
        (0, 5, ["n"]),
    ],
)
def test_the_last_image_takes_the_last_seed_of_the_bound(n: int, seed: int, messages: list[str]) -> None:
    assert [problem.field for problem in check_n_and_seed(n, seed, STABILITY_SD3.fields["seed"])] == messages


async def test_a_cancelled_call_carries_the_images_that_had_come() -> None:
    come = asyncio.Semaphore(0)

    async def one(request: impasto.Request) -> impasto.Result:
        come.release()
        if request.params.seed == 5:  # type: ignore[attr-defined]  # the model's
            return result_of()
        if request.params.seed == 6:  # type: ignore[attr-defined]  # the same
            raise impasto.NotSent("lost")
        await asyncio.Event().wait()
        raise AssertionError

    request = STABILITY_SD3.request("stability/sd3", {"prompt": "x", "seed": 5})
    task = asyncio.create_task(fan_out(3, request, STABILITY_SD3, one))
    for _ in range(3):
        await come.acquire()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__notes__ == ["stability/sd3: 1 of 3 images had arrived; this error's `result` has them"]
    result = result_of_cancelled(caught.value)
    assert result is not None
    assert result.artifacts == (PICTURE,)
    assert [(each.index, each.error.message) for each in result.errors] == [
        (1, "lost"),
        (2, "the call was cancelled; nothing was sent"),
    ]


async def test_the_images_of_a_cancelled_call_have_their_places(client: impasto.Client) -> None:
    """The first of three requests is not answered, though it was sent; its image may have been charged."""
    answered: asyncio.Queue[None] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(length)
        if b'name="seed"\r\n\r\n7\r\n' in body:
            answered.put_nowait(None)
            await reader.read()
        else:
            data = png(64, 64)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n")
            writer.write(b"content-length: %d\r\n\r\n%s" % (len(data), data))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    slow = client.with_options(api_base=f"http://127.0.0.1:{port}")
    end: asyncio.Queue[None] = asyncio.Queue()
    calls: list[impasto.Call] = []

    def call(*arguments: Any, **settings: Any) -> impasto.Call:
        calls.append(impasto.Call(*arguments, **settings))
        calls[-1].on_end += (lambda _: end.put_nowait(None),)
        return calls[-1]

    task = asyncio.create_task(slow.invoke("stability/sd3", {"prompt": "x", "seed": 7}, n=3, call=call))
    async with asyncio.timeout(60):
        for _ in range(2):
            await end.get()
        await answered.get()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    result = result_of_cancelled(caught.value)
    assert result is not None
    assert len(result.artifacts) == 2
    [failure] = result.errors
    assert (failure.index, failure.error.billed) == (0, "unknown")
    server.close()
    await server.wait_closed()
