"""The texts of a plugin's exceptions, and mistakes in a plugin that are found before anything is sent."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, cast

import attrs
import pytest

import impasto
from impasto import BrokenPlugin, Registry, Result, UnusableResult, WireRequest, WireResponse, hookimpl
from impasto.registry import OPERATIONS
from tests.conftest import KEY
from tests.recorder import Answer, Recorder

CORE = Registry().operation("stability/stable-image-core")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M1 2 L3 4"/></svg>'


@attrs.frozen
class Reads:
    """A dialect that fails, or does something else, when it normalizes."""

    does: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(CORE.dialect, name)

    def classify_error(self, operation: object, response: WireResponse) -> None:
        return None

    def normalize_response(self, operation: object, request: object, response: WireResponse) -> Any:
        return self.does(response)


def raising(make: Any) -> Any:
    def does(response: WireResponse) -> object:
        raise make(response)

    return does


async def failure(recorder: Recorder, does: Any, answer: Answer | None = None) -> UnusableResult:
    registry = Registry()
    registry.add(OPERATIONS, "acme/fails", attrs.evolve(CORE, id="acme/fails", dialect=Reads(does)))
    recorder.answer = lambda request: answer
    async with impasto.Client(api_key=KEY, api_base=recorder.url, registry=registry) as client:
        with pytest.raises(UnusableResult) as caught:
            await client.run("acme/fails", prompt="a barn")
    return caught.value


async def test_the_text_is_shown_with_the_plugins_name(recorder: Recorder) -> None:
    error = await failure(recorder, raising(lambda response: KeyError("images")))
    assert "the plugin tests.core.test_plugin_texts.Reads raised KeyError: 'images'; please report this" in str(error)
    assert error.billed == "yes"
    assert error.raw.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "make",
    [
        lambda response: ValueError(response.body),
        lambda response: ValueError(response.body.decode("latin-1")),
        lambda response: ValueError(response.body.decode("utf-8", "replace")),
        lambda response: ValueError(b64encode(response.body).decode()),
        lambda response: ValueError({"image": b64encode(response.body * 1000).decode(), "seed": 5}),
        lambda response: ValueError("data:image/png;base64," + b64encode(response.body).decode()),
        lambda response: ValueError(response.body.hex()),
        lambda response: ValueError(f"bad key {KEY} in {b64encode(KEY.encode()).decode()}"),
    ],
    ids=["repr", "latin-1", "utf-8", "base64", "json", "data-url", "hex", "key"],
)
async def test_it_holds_no_image_and_no_key(recorder: Recorder, make: Any) -> None:
    error = await failure(recorder, raising(make))
    text = str(error)
    assert "ValueError: " in text
    assert len(text) < 900
    for part in (KEY, "IHDR", b64encode(error.raw).decode()[4:24], b64encode(KEY.encode()).decode()[:16]):
        assert part not in text
    assert error.raw


async def test_it_holds_no_answer_that_is_text(recorder: Recorder) -> None:
    svg = Answer(headers={"content-type": "image/svg+xml"}, body=SVG)
    error = await failure(recorder, raising(lambda response: ValueError(f"odd: {response.body.decode()}")), svg)
    assert "ValueError: odd: [the answer]; please report" in str(error)


async def test_a_result_without_artifacts_is_unusable(recorder: Recorder) -> None:
    error = await failure(recorder, lambda response: Result(artifacts=()))
    assert (error.billed, "the answer contains no artifact" in str(error)) == ("yes", True)


class _Operation(impasto.Operation):
    """Its hooks are to be called, and carry no mark."""

    def normalize_response(self, request: object, response: WireResponse, account: object) -> Result:
        return Result(artifacts=())


class _Transport:
    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        raise AssertionError("sent")

    def classify_error(self, request: object, response: object) -> None:
        return None


class _Middleware:
    def middleware(self, operation: object) -> None:
        return None


class _Provider(impasto.Provider):
    async def authorize(self, account: object, refused: bool) -> dict[str, str]:
        return {}


def copy(source: object, kind: type[Any], **changes: object) -> Any:
    fields = attrs.fields(cast("type[Any]", type(source)))
    return kind(**{each.alias: getattr(source, each.name) for each in fields if each.init} | changes)


@pytest.mark.parametrize(
    ("name", "settings", "operation"),
    [
        ("_Operation.normalize_response", {}, copy(CORE, _Operation)),
        ("_Transport.classify_error", {"transport": _Transport()}, CORE),
        ("_Middleware.middleware", {"middleware": [_Middleware()]}, CORE),
        ("_Provider.authorize", {}, copy(CORE, impasto.Operation, provider=copy(CORE.provider, _Provider))),
    ],
)
async def test_a_hook_without_its_mark_is_found_before_anything_is_sent(
    recorder: Recorder, name: str, settings: Any, operation: impasto.Operation
) -> None:
    registry = Registry()
    registry.add(OPERATIONS, "stability/unmarked", operation)
    async with impasto.Client(api_key=KEY, api_base=recorder.url, registry=registry, **settings) as client:
        with pytest.raises(BrokenPlugin, match=f"{name} is named like a hook, but it is not marked with @impasto"):
            await client.run("stability/unmarked", prompt="a barn")
    assert recorder.requests == []


@pytest.mark.parametrize("hook", ["transform_request", "classify_error", "normalize_response"])
async def test_a_required_hook_that_nobody_has_is_found_before_anything_is_sent(recorder: Recorder, hook: str) -> None:
    registry = Registry()
    without = type("Without", (impasto.Operation,), {hook: None})
    registry.add(OPERATIONS, "stability/without", copy(CORE, without))
    async with impasto.Client(api_key=KEY, api_base=recorder.url, registry=registry) as client:
        with pytest.raises(BrokenPlugin, match=f"no plugin has the hook {hook}; mark one with @impasto.hookimpl"):
            await client.run("stability/without", prompt="a barn")
    assert recorder.requests == []
