"""A model with lists, nested objects and sizes in pixels, called through the gateway in JSON and in forms."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from impasto.testing.recorder import Answer, Recorder, always, recording
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.arguments import CallArguments
from impasto_plugins.gateway.idempotency.fingerprint import _hash_content
from tests.distributions import install
from tests.field_kinds import GIF, MODULES, POINTS
from tests.plugins.gateway.conftest import Running, Start, config, entry

URI = "data:image/png;base64," + base64.b64encode(b"one").decode()


@pytest.fixture
async def provider() -> AsyncIterator[Recorder]:
    """The model's provider."""
    async with recording(always(Answer(headers={"content-type": "image/gif"}, body=GIF))) as recorder:
        yield recorder


@pytest.fixture
async def gateway(start: Start, provider: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    install(tmp_path / "site", "impasto-kinds", POINTS, MODULES)
    monkeypatch.syspath_prepend(tmp_path / "site")
    entries = entry("kinds", "kinds/all", provider.url)
    files = f"files:\n  folder: {tmp_path / 'files'}\n"
    return await start(config(provider.url, entries=entries, general="  plugins: [impasto-kinds]\n", more=files))


async def test_lists_and_objects_may_be_defaults_of_the_configuration(
    start: Start, provider: Recorder, gateway: Running
) -> None:
    defaults = "      colors: [red, blue]\n      style: {strength: 0.5}\n      size: 512x512\n"
    text = config(
        provider.url,
        entries=entry("kinds", "kinds/all", provider.url) + defaults,
        general="  plugins: [impasto-kinds]\n",
    )
    other = await start(text)
    answer = await other.generate(model="kinds", style={"strength": 1})
    assert answer.status == 200, answer.body
    expected = {"text": "p", "colors": ["red", "blue"], "style": {"strength": 1}, "width": 512, "height": 512}
    assert sent(provider) == expected


def sent(provider: Recorder) -> dict[str, Any]:
    [post] = provider.posts
    body: dict[str, Any] = json.loads(post.body)
    return body


def encoded(*files: bytes) -> list[str]:
    return [base64.b64encode(each).decode() for each in files]


async def edit(gateway: Running, *parts: tuple[str, object]) -> Any:
    form = aiohttp.FormData()
    for name, value in (("model", "kinds"), ("prompt", "a wolf"), *parts):
        if isinstance(value, bytes):
            form.add_field(name, value, filename="x.png")
        else:
            form.add_field(name, value)
    return await gateway.ask("POST", "/v1/images/edits", data=form)


async def test_json_has_lists_and_nested_objects(gateway: Running, provider: Recorder) -> None:
    answer = await gateway.generate(
        model="kinds",
        images=[URI, {"image_url": URI}],
        colors=["red", "blue"],
        tile=True,
        size="1024x512",
        style={"strength": 0.5, "reference": URI, "layers": [URI]},
    )
    assert answer.status == 200, answer.body
    assert sent(provider) == {
        "text": "p",
        "images": encoded(b"one", b"one"),
        "colors": ["red", "blue"],
        "tile": True,
        "width": 1024,
        "height": 512,
        "style": {"strength": 0.5, "reference": encoded(b"one")[0], "layers": encoded(b"one")},
    }
    assert base64.b64decode(json.loads(answer.body)["data"][0]["b64_json"]) == GIF
    assert gateway.gateway._app.memory.used_bytes == 0


@pytest.mark.parametrize("names", [("image[]", "image[]"), ("image", "image"), ("images[0]", "images[1]")])
async def test_a_form_repeats_names_for_lists(gateway: Running, provider: Recorder, names: tuple[str, str]) -> None:
    first, second = names
    answer = await edit(
        gateway, (first, b"one"), (second, b"two"), ("colors", "red"), ("colors", "blue"), ("tile", "false"),
        ("style[strength]", "0.5"), ("style[reference]", b"three"), ("style[layers][]", b"four"),
    )  # fmt: skip
    assert answer.status == 200, answer.body
    assert sent(provider) == {
        "text": "a wolf",
        "images": encoded(b"one", b"two"),
        "colors": ["red", "blue"],
        "tile": False,
        "style": {"strength": 0.5, "reference": encoded(b"three")[0], "layers": encoded(b"four")},
    }
    assert gateway.gateway._app.memory.used_bytes == 0


@pytest.mark.parametrize(
    "parts",
    [
        [("colors[]", "red")],
        [("colors", "red")],
        [("colors[0]", "red")],
    ],
)
async def test_a_list_of_one_in_a_form(gateway: Running, provider: Recorder, parts: list[tuple[str, str]]) -> None:
    answer = await edit(gateway, ("image", b"one"), *parts, ("style", '{"strength": 1}'))
    assert answer.status == 200, answer.body
    assert (sent(provider)["colors"], sent(provider)["style"]) == (["red"], {"strength": 1})


@pytest.mark.parametrize(
    ("parts", "param", "message"),
    [
        ([("prompt", "b")], "prompt", ("invalid_value", "prompt: was given twice")),
        ([("model", "b")], "model", ("invalid_value", "model was given twice")),
        ([("n", "1"), ("n", "2")], "n", ("invalid_value", "n: was given twice")),
        ([("tile", "true"), ("tile", "true")], "tile", ("invalid_value", "tile: was given twice")),
        ([("tile", "yes")], "tile", ("invalid_value", "tile: must be true or false, not 'yes'")),
        ([("style[strength]", "2")], "style.strength", ("invalid_value", "must be a number from 0 to 1")),
        ([("style[depth]", "2")], "style.depth", ("unknown_parameter", "style.depth: unknown parameter 'depth'")),
        ([("style[reference]", "/etc/hostname")], "style.reference", ("invalid_image", "must be a data: URI")),
        ([("style[layers][]", "/etc/hostname")], "style.layers", ("invalid_image", "must be a data: URI")),
        ([("image", b"2"), ("image", b"3"), ("image", b"4")], "image", ("invalid_image", "at most 3 images, not 4")),
        ([("size", "wide")], "size", ("invalid_value", "must be auto or WIDTHxHEIGHT")),
    ],
)  # fmt: skip
async def test_a_form_that_does_not_fit_is_refused_by_name(
    gateway: Running, provider: Recorder, parts: list[tuple[str, object]], param: str, message: tuple[str, str]
) -> None:
    answer = await edit(gateway, ("image", b"1"), *parts)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, message[0], param), answer.body
    assert message[1] in answer.error["message"]
    assert not provider.requests
    assert gateway.gateway._app.memory.used_bytes == 0


@pytest.mark.parametrize("path", ["/etc/hostname", "https://example.com/x.png"])
async def test_json_text_in_a_nested_object_is_never_a_path(gateway: Running, provider: Recorder, path: str) -> None:
    for style in ({"reference": path}, {"layers": [path]}):
        answer = await gateway.generate(model="kinds", style=style)
        assert (answer.status, answer.error["code"]) == (400, "invalid_image"), answer.body
    assert not provider.requests


@pytest.mark.parametrize(
    "parts",
    [
        [("weights", "0.5"), ("weights", "1"), ("members", '[{"color": "#ff8800", "weight": 0.5}]')],
        [("weights[]", "0.5"), ("weights[]", "1"), ("members[]", '{"color": "#ff8800", "weight": 0.5}')],
        [("weights[0]", "0.5"), ("weights[1]", "1"), ("members[0][color]", "#ff8800"), ("members[0][weight]", "0.5")],
    ],
)
async def test_lists_of_numbers_and_objects_in_a_form(
    gateway: Running, provider: Recorder, parts: list[tuple[str, str]]
) -> None:
    answer = await edit(gateway, ("image", b"1"), *parts)
    assert answer.status == 200, answer.body
    body = sent(provider)
    assert (body["weights"], body["members"]) == ([0.5, 1], [{"color": "#ff8800", "weight": 0.5}])


SUBJECTS = [{"image": encoded(b"one")[0], "kind": "person"}, {"image": encoded(b"two")[0]}]


async def test_json_has_files_in_a_list_of_objects(gateway: Running, provider: Recorder) -> None:
    two = {"image_url": "data:;base64," + encoded(b"two")[0]}
    answer = await gateway.generate(model="kinds", subjects=[{"image": URI, "kind": "person"}, {"image": two}])
    assert answer.status == 200, answer.body
    assert sent(provider)["subjects"] == SUBJECTS
    for image in ("/etc/hostname", "https://example.com/x.png", {"path": "/etc/hostname"}, ["/etc/hostname"]):
        answer = await gateway.generate(model="kinds", subjects=[{"image": URI}, {"image": image}])
        assert (answer.status, answer.error["code"]) == (400, "invalid_image"), answer.body
        assert answer.error["param"] == "subjects.1.image"
    assert len(provider.posts) == 1


async def test_a_form_has_files_in_a_list_of_objects(gateway: Running, provider: Recorder) -> None:
    answer = await edit(
        gateway, ("image", b"1"), ("subjects[1][image]", b"two"), ("subjects[0][image]", b"one"),
        ("subjects[0][kind]", "person"),
    )  # fmt: skip
    assert answer.status == 200, answer.body
    assert sent(provider)["subjects"] == SUBJECTS
    answer = await edit(gateway, ("image", b"1"), ("subjects[0][image]", b"dark"))
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "subjects.0.image", "invalid_image")
    assert gateway.gateway._app.memory.used_bytes == 0


async def test_a_form_has_a_text_in_place_of_an_object(gateway: Running, provider: Recorder) -> None:
    for parts in ([("canvas", "wide")], [("canvas[width]", "512")], [("canvas", '{"width": 512}')]):
        answer = await edit(gateway, ("image", b"1"), *parts)
        assert answer.status == 200, answer.body
    assert [json.loads(post.body)["canvas"] for post in provider.posts] == ["wide", {"width": 512}, {"width": 512}]


async def test_calls_with_other_files_in_a_list_of_objects_are_other_calls(
    gateway: Running, provider: Recorder
) -> None:
    for image, status in ((b"one", 200), (b"one", 200), (b"two", 422)):
        form = aiohttp.FormData({"model": "kinds", "prompt": "p"})
        form.add_field("image", b"1", filename="x.png")
        form.add_field("subjects[0][image]", image, filename="x.png")
        answer = await gateway.ask("POST", "/v1/images/edits", data=form, headers={"idempotency-key": "k"})
        assert answer.status == status, answer.body
    assert len(provider.posts) == 1


async def test_a_problem_in_a_list_of_objects_is_named(gateway: Running, provider: Recorder) -> None:
    answer = await gateway.generate(model="kinds", members=[{"color": "#ff8800"}, {"color": "red"}])
    assert (answer.status, answer.error["param"]) == (400, "members.1.color")
    assert not provider.requests


async def test_equal_lists_and_objects_are_one_call_for_a_key(gateway: Running, provider: Recorder) -> None:
    body = {"model": "kinds", "prompt": "p", "images": [URI, URI], "style": {"strength": 1, "reference": URI}}
    again = {**body, "style": {"reference": URI, "strength": 1}}
    for each, status in ((body, 200), (again, 200), ({**body, "images": [URI]}, 422)):
        headers = {"idempotency-key": "k"}
        answer = await gateway.ask("POST", "/v1/images/generations", json=each, headers=headers)
        assert answer.status == status, answer.body
    assert len(provider.posts) == 1


async def test_models_lists_each_field_with_its_limits(gateway: Running) -> None:
    answer = await gateway.ask("GET", "/v1/models/kinds")
    takes = {each["name"]: (each["type"], each["takes"]) for each in json.loads(answer.body)["parameters"]}
    assert takes["images"] == ("files", "a list of 1 to 3 files")
    assert takes["style.layers"] == ("files", "a list of 1 to 2 files")


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a lighthouse", "seed": 7, "n": 2},
        {"prompt": "a", "size": "1024x1024", "extra": {"a": [1, "x"]}},
        {"prompt": "a", "image": [URI, URI], "strength": 0.5},
    ],
)
def test_the_fingerprint_of_a_request_is_that_of_earlier_versions(body: dict[str, object]) -> None:
    """Stored results are found by it: SHA-256 of the caller and the body's values as JSON with sorted keys."""
    caller = Caller(name="a", digest=hashlib.sha256(b"key").digest())
    call_args = CallArguments.from_json({"model": "m", **body})
    values = json.dumps(["generation", "m", None, body], sort_keys=True, separators=(",", ":"))
    expected = hashlib.sha256(caller.digest + values.encode()).digest()
    assert _hash_content(caller, "generation", call_args) == expected


@pytest.mark.parametrize(
    ("body", "media_type", "disposition"),
    [(GIF, "image/gif", None), (b"<svg><script>alert(1)</script></svg>", "image/svg+xml", "attachment")],
    ids=["gif", "svg"],
)
async def test_an_artifact_of_a_declared_type_is_stored_and_served_as_it_is(
    gateway: Running, provider: Recorder, body: bytes, media_type: str, disposition: str | None
) -> None:
    provider.answer = always(Answer(headers={"content-type": media_type}, body=body))
    answer = await gateway.generate(model="kinds", response_format="url")
    assert answer.status == 200, answer.body
    response = await gateway.ask("GET", json.loads(answer.body)["data"][0]["url"])
    assert (response.status, response.body, response.headers["content-type"]) == (200, body, media_type)
    assert response.headers.get("content-disposition") == disposition
