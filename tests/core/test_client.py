"""The client: its settings, its siblings, names, jobs that are resumed, and what it refuses before any socket."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import impasto
from impasto import (
    ChargeUnknown,
    ClientClosedError,
    ConfigError,
    InvalidRequest,
    LoopMismatchError,
    NotFound,
    UnknownOperation,
)
from impasto.options import SHARED, Options, Settings
from impasto_plugins.middleware.gate import gate_of
from tests.conftest import KEY
from tests.images import png
from tests.plugins.stability.cases import JOBS
from tests.recorder import JOB, Recorder, in_json, recording

HUGE = 10**5000
CREATIVE: dict[str, Any] = {"image": png(64, 64), "prompt": "x"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api_key": ""}, "the API key is empty"),
        ({"api_key": "sk\n"}, "the API key contains a space, a line break"),
        ({"api_key": "s k"}, "the API key contains a space"),
        ({"api_key": "ké"}, "not ASCII"),
        ({"api_key": 5}, "the API key must be text, not a whole number"),
        ({"api_base": "ftp://example.com"}, "api_base must begin with https://"),
        ({"api_base": "https://"}, "api_base must begin with https:// and name a host"),
        ({"api_base": "https://u:p@example.com"}, "api_base must not contain a user or password"),
        ({"api_base": "https://example.com/v2beta"}, "api_base must end after the host"),
        ({"api_base": "http://example.com"}, "api_base is plain http"),
        ({"api_base": 5}, "api_base must be text, not a whole number"),
        *(
            ({name: value}, f"{name} must be a number of seconds above 0")
            for name in ("timeout", "connect_timeout", "poll_interval")
            for value in (0, -1, "5", True, float("nan"), float("inf"), HUGE, -HUGE)
        ),
        ({"timeout": None}, "timeout must be a number of seconds above 0"),
        ({"spend_limit_usd": 0}, "spend_limit_usd must be a number of USD above 0"),
        ({"max_concurrency": 0}, "max_concurrency must be a whole number of at least 1, not 0"),
        ({"max_concurrency": 1.0}, "max_concurrency must be a whole number of at least 1, not 1.0"),
        ({"max_concurrency": True}, "max_concurrency must be a whole number of at least 1, not true"),
        ({"max_concurrency": -HUGE}, "max_concurrency must be a whole number of at least 1, not a far larger number"),
        ({"retry": 3}, "retry must be an impasto.Retry, not 3"),
        ({"rate_limit": (150, 10)}, "rate_limit must be an impasto.RateLimit, not a list"),
        ({"middleware": "retry"}, "middleware must be a list of names or plugins, not text"),
        ({"middleware": 5}, "middleware must be a list of names or plugins, not a whole number"),
        ({"providers": {"acme": "key"}}, "providers must be a mapping of names to settings"),
        ({"providers": ["acme"]}, "providers must be a mapping of names to settings"),
        ({"ssl": False}, "ssl can't be switched off"),
        ({"ssl": 5}, "ssl must be the path of a CA file or an SSLContext, not a whole number"),
        ({"transport": 5}, "transport must be a name or an object with send, not a whole number"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_refused_when_it_is_given(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        impasto.Client(**settings)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


def test_an_unknown_setting_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="api_kye"):
        impasto.Client(api_kye="x")  # type: ignore[call-arg]  # what the test is about


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: impasto.Retry(attempts=0), "Retry.attempts must be a whole number of at least 1, not 0"),
        (lambda: impasto.Retry(max_charges=0), "Retry.max_charges must be a whole number of at least 1, not 0"),
        (lambda: impasto.Retry(refused=-HUGE), "Retry.refused must be a whole number of at least 0, not a far larger"),
        (lambda: impasto.Retry(base=float("nan")), "Retry.base must be a number of at least 0, not nan"),
        (lambda: impasto.Retry(on_ambiguous=1), "Retry.on_ambiguous must be true or false, not 1"),  # type: ignore[arg-type]  # what the test is about
        (lambda: impasto.RateLimit(0, 10), "RateLimit.requests must be a whole number of at least 1, not 0"),
        (lambda: impasto.RateLimit(1, 0), "RateLimit.seconds must be a number above 0, not 0"),
    ],
)
def test_wrong_policies(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)


def test_the_poll_interval_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_POLL_INTERVAL", "12.5")
    assert Options().poll_interval == 12.5
    assert Options(poll_interval=20).poll_interval == 20
    monkeypatch.setenv("IMPASTO_POLL_INTERVAL", "soon")
    with pytest.raises(ConfigError, match="IMPASTO_POLL_INTERVAL must be a number of seconds, not 'soon'"):
        Options()


def test_no_repr_holds_a_secret() -> None:
    options = Options(
        api_key=KEY,
        aws_secret_access_key="wJalrXUtnFEMI",
        aws_session_token="FwoGZXIvYXdz",
        aws_access_key_id="AKIAIOSFODNN7",
        providers={"acme": {"api_key": "acme-secret"}},
        proxy="http://user:password@127.0.0.1:3128",
    )
    for secret in (KEY, "wJalr", "FwoG", "AKIA", "acme-secret", "password"):
        assert secret not in repr(options)
        assert secret not in repr(impasto.Client(api_key=KEY))


def test_settings_and_options_name_the_same_things() -> None:
    assert set(Settings.__annotations__) == set(inspect.signature(Options).parameters)
    assert set(Settings.__annotations__) >= SHARED


async def test_a_missing_key_names_its_variable_before_any_socket(recorder: Recorder) -> None:
    async with impasto.Client(api_base=recorder.url) as client:
        with pytest.raises(ConfigError, match="no key for stability: set STABILITY_API_KEY or give api_key"):
            await client.run("stability/sd3", prompt="x")
    assert recorder.requests == []


async def test_key_and_address_come_from_the_environment(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABILITY_API_KEY", KEY)
    monkeypatch.setenv("STABILITY_API_BASE", recorder.url)
    async with impasto.Client() as client:
        await client.run("stability/sd3", prompt="x")
    assert recorder.requests[0].header("authorization") == f"Bearer {KEY}"


async def test_providers_holds_the_settings_of_each(recorder: Recorder) -> None:
    async with impasto.Client(providers={"stability": {"api_key": KEY, "api_base": recorder.url}}) as client:
        await client.run("stability/sd3", prompt="x")
    async with impasto.Client(api_key=KEY, providers={"stability": {"api_bse": recorder.url}}) as client:
        with pytest.raises(ConfigError, match="unknown setting 'api_bse' of stability; allowed: api_key, api_base"):
            await client.run("stability/sd3", prompt="x")
    assert len(recorder.requests) == 1


async def test_settings_for_a_provider_that_is_not_there_are_refused(recorder: Recorder) -> None:
    settings = {"stabilty": {"api_base": recorder.url}}
    async with impasto.Client(api_key=KEY, api_base=recorder.url, providers=settings) as client:
        with pytest.raises(ConfigError, match=r"^providers: 'stabilty' is not installed; did you mean stability"):
            await client.run("stability/sd3", prompt="x")
    assert recorder.requests == []


async def test_polling_faster_than_the_vendor_allows_is_refused_against_its_own_host() -> None:
    async with impasto.Client(api_key=KEY, poll_interval=9.9) as client:
        with pytest.raises(ConfigError, match="poll_interval must be at least 10 s against stability's own host"):
            await client.run("stability/upscale-creative", **CREATIVE)


@pytest.mark.parametrize("model", ["stability/sd3.5-lrge", "sd3", "stability/", "", "stability/sd3 ", "STABILITY/SD3"])
async def test_names_are_matched_whole_and_the_closest_are_named(client: impasto.Client, model: str) -> None:
    with pytest.raises(UnknownOperation) as caught:
        await client.run(model, prompt="x")
    near = "closest: " if model else "none of the "
    assert str(caught.value).startswith(f"unknown model {model!r}; {near}")
    if model == "stability/sd3.5-lrge":
        assert "closest: stability/sd3.5-large" in str(caught.value)
    if model == "sd3":
        assert "stability/sd3" in str(caught.value)


@pytest.mark.parametrize("model", [None, 5, b"stability/sd3", ["stability/sd3"], {"a": 1}])
async def test_a_model_that_is_no_text(client: impasto.Client, model: Any) -> None:
    for call in (
        lambda: client.run(model, prompt="x"),
        lambda: client.resume(model, JOB),
        lambda: client.warm(model),
    ):
        with pytest.raises(UnknownOperation, match="the model must be text"):
            await call()
    with pytest.raises(UnknownOperation, match="the model must be text"):
        client.describe(model)


async def test_a_name_that_would_flood_the_message_is_cut(client: impasto.Client) -> None:
    with pytest.raises(UnknownOperation) as caught:
        await client.run("x" * 10_000, prompt="x")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("timeout", [0, -1, "5", True, float("nan"), HUGE], ids=lambda value: type(value).__name__)
async def test_a_wrong_timeout_of_one_call(client: impasto.Client, recorder: Recorder, timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout must be a number of seconds above 0"):
        await client.run("stability/sd3", timeout=timeout, prompt="x")
    assert recorder.requests == []


async def test_a_wrong_retry_of_one_call(client: impasto.Client) -> None:
    with pytest.raises(ConfigError, match=r"retry must be an impasto\.Retry, not int"):
        await client.run("stability/sd3", retry=3, prompt="x")  # type: ignore[arg-type]  # what the test is about


async def test_base_model_without_an_arn(client: impasto.Client) -> None:
    with pytest.raises(ConfigError, match="base_model is allowed with a bedrock/arn:... model only"):
        await client.run("stability/sd3", base_model="stability/sd3", prompt="x")


async def test_siblings_share_connections_and_have_their_own_keys_and_times(
    client: impasto.Client, recorder: Recorder
) -> None:
    await client.run("stability/sd3", prompt="x")
    other = client.with_options(api_key="sk-another-key", timeout=5)
    await other.run("stability/sd3", prompt="x")
    await client.run("stability/sd3", prompt="x")
    assert [request.header("authorization") for request in recorder.requests] == [
        f"Bearer {KEY}",
        "Bearer sk-another-key",
        f"Bearer {KEY}",
    ]
    assert other._shared is client._shared
    await other.aclose()
    with pytest.raises(ClientClosedError):
        await client.run("stability/sd3", prompt="x")


@pytest.mark.parametrize("settings", [{"proxy": "http://127.0.0.1:1"}, {"ssl": "ca.pem"}, {"max_concurrency": 1}])
async def test_siblings_can_not_change_what_they_share(client: impasto.Client, settings: Any) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is shared by both clients and can't change"):
        client.with_options(**settings)


async def test_siblings_settings_are_checked_too(client: impasto.Client) -> None:
    with pytest.raises(ConfigError, match="timeout must be"):
        client.with_options(timeout=0)
    with pytest.raises(TypeError, match="api_kye"):
        client.with_options(api_kye="x")  # type: ignore[call-arg]  # what the test is about


async def test_after_close(client: impasto.Client) -> None:
    await client.aclose()
    await client.aclose()
    for call in (
        lambda: client.run("stability/sd3", prompt="x"),
        lambda: client.resume("stability/upscale-creative", JOB),
        lambda: client.warm("stability/sd3"),
        client.__aenter__,
    ):
        with pytest.raises(ClientClosedError, match="the client is closed; make a new one"):
            await call()


async def test_another_loop(client: impasto.Client) -> None:
    await client.run("stability/sd3", prompt="x")

    def elsewhere() -> None:
        with pytest.raises(LoopMismatchError):
            asyncio.run(client.run("stability/sd3", prompt="x"))

    await asyncio.to_thread(elsewhere)


async def test_warm_opens_what_the_first_call_needs(client: impasto.Client, recorder: Recorder) -> None:
    await client.warm("stability/sd3", "stability/erase")
    assert recorder.requests == []
    assert len(client._shared.routes) == 2


def test_models_are_listed_without_a_loop() -> None:
    models = impasto.Client().models()
    assert "stability/sd3.5-large" in models
    assert models == sorted(set(models))


# Jobs that were accepted earlier


@pytest.mark.parametrize("pending", [0, 2])
async def test_a_job_is_resumed_by_its_id(client: impasto.Client, recorder: Recorder, pending: int) -> None:
    recorder.pending = pending
    result = await client.resume("stability/upscale-creative", JOB)
    assert len(result.artifacts) == 1
    assert [(request.method, request.path) for request in recorder.requests] == [("GET", f"/v2beta/results/{JOB}")] * (
        pending + 1
    )
    assert result.cost is None, "it was charged when it started"


@pytest.mark.parametrize("job", ["", "a" * 63, "a" * 65, "../" + "a" * 61, "a" * 63 + "é", "a" * 63 + "/"])
async def test_an_id_that_can_not_be_one(client: impasto.Client, recorder: Recorder, job: Any) -> None:
    with pytest.raises(InvalidRequest, match="id: must be a job's id: 64 letters and digits") as caught:
        await client.resume("stability/upscale-creative", job)
    assert caught.value.operation == "stability/upscale-creative"
    assert recorder.requests == []


@pytest.mark.parametrize("job", [5, None, b"a" * 64, ["a"]])
async def test_an_id_that_is_no_text(client: impasto.Client, recorder: Recorder, job: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=f"^stability/upscale-creative: id: must be text, not {type(job).__name__}"
    ):
        await client.resume("stability/upscale-creative", job)
    assert recorder.requests == []


@pytest.mark.parametrize("model", ["stability/sd3.5-large", "stability/upscale-fast", "stability/erase"])
async def test_a_model_that_answers_at_once_has_no_jobs(client: impasto.Client, recorder: Recorder, model: str) -> None:
    with pytest.raises(InvalidRequest, match="answers at once: it has no jobs to resume"):
        await client.resume(model, JOB)
    assert recorder.requests == []


async def test_a_job_that_is_not_known(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda _: in_json({"id": "e", "name": "generation_not_found", "errors": ["none"]}, status=404)
    with pytest.raises(
        NotFound, match="the id is unknown, the result has expired, or another key started it"
    ) as caught:
        await client.resume("stability/upscale-creative", JOB)
    assert (caught.value.billed, len(recorder.requests)) == ("unknown", 1)


async def test_a_resumed_job_that_takes_too_long_can_be_resumed_again(
    client: impasto.Client, recorder: Recorder
) -> None:
    recorder.pending = 10**6
    with pytest.raises(ChargeUnknown, match="client.resume fetches its result") as caught:
        await client.resume("stability/upscale-creative", JOB, timeout=0.1)
    assert caught.value.id == JOB


async def test_a_job_that_times_out_is_fetched_later(client: impasto.Client, recorder: Recorder) -> None:
    recorder.jobs, recorder.pending = JOBS, 10**6
    with pytest.raises(ChargeUnknown) as caught:
        await client.run("stability/upscale-creative", timeout=0.2, **CREATIVE)
    recorder.pending = 0
    assert caught.value.id is not None
    result = await client.resume("stability/upscale-creative", caught.value.id)
    assert len(result.artifacts) == 1
    assert len(recorder.posts) == 1, "paid for once"


async def test_one_client_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABILITY_API_KEY", KEY)
    async with recording() as recorder, impasto.Client(api_base=recorder.url, ssl=ssl.create_default_context()) as it:
        assert (await it.run("stability/sd3", prompt="x")).artifacts[0].seed == 7


async def test_files_of_every_form_reach_the_wire_without_blocking_the_loop(
    client: impasto.Client, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    await asyncio.to_thread(path.write_bytes, png(64, 64))
    source = await asyncio.to_thread(path.open, "rb")
    with source:
        of_object = await asyncio.to_thread(impasto.File.of, source)
    of_path = await asyncio.to_thread(impasto.File.of, path)
    for image in (path, str(path), of_path, of_object, of_object, ("a.png", path), png(64, 64)):
        await client.run("stability/upscale-fast", image=image)
    assert [post.files["image"].data for post in recorder.posts] == [png(64, 64)] * 7
    of_object.close()


def test_a_client_is_closed_in_its_own_loop() -> None:
    client = impasto.Client(api_key=KEY)
    asyncio.run(client.__aenter__())
    with pytest.raises(LoopMismatchError, match="the client belongs to another event loop; make one in this loop"):
        asyncio.run(client.aclose())


async def test_a_call_takes_its_place_in_the_rate_of_its_key(client: impasto.Client) -> None:
    holder = client.with_options(api_key="sk-one-a-minute", rate_limit=impasto.RateLimit(1, 60))
    account = await holder.account("stability/sd3")
    assert gate_of(account).estimate_wait(account) == 0
    await holder.run("stability/sd3", prompt="x")
    assert gate_of(account).estimate_wait(account) > 50


async def test_a_slot_is_free_again_after_each_call_however_it_ends(recorder: Recorder) -> None:
    refused = in_json({"id": "e", "name": "content_moderation", "errors": ["no"]}, status=403)
    async with impasto.Client(max_concurrency=1, api_key=KEY, api_base=recorder.url) as one:
        for answer in (None, refused, None, refused, None):
            recorder.answer = lambda _, answer=answer: answer  # bound now
            async with asyncio.timeout(20):
                with contextlib.suppress(impasto.ContentFiltered):
                    await one.run("stability/stable-image-core", prompt="a kite")
    assert len(recorder.posts) == 5
