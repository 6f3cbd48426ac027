"""What callers are told: OpenAI's shape, and whether their SDK may try again, with the charges to prove it."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import yarl

from impasto_plugins.emulator import Emulator

from .conftest import MASTER, MODELS, Running, Start, config, entry

PROVIDER = {"target": "/v2beta/"}


async def test_moderation(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=403, name="content_moderation")
    with pytest.raises(openai.BadRequestError) as caught:
        await gateway.sdk.images.generate(model="sd3", prompt="p")
    assert (caught.value.type, caught.value.code) == ("image_generation_user_error", "moderation_blocked")
    assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "status", "status": 401}, 502, "provider_account"),
        ({"kind": "status", "status": 402}, 502, "provider_account"),
        ({"kind": "status", "status": 422}, 422, "provider_refused"),
        ({"kind": "status", "status": 413}, 413, "request_too_large"),
        ({"kind": "status", "status": 502, "body": "html"}, 502, "charge_unknown"),
        ({"kind": "status", "status": 200, "body": "empty"}, 502, "unusable_result"),
        ({"kind": "reset"}, 504, "charge_unknown"),
        ({"kind": "truncate"}, 502, "charge_unknown"),
    ],
    ids=lambda value: str(value) if not isinstance(value, dict) else f"{value['kind']}-{value.get('status')}",
)
async def test_a_failing_provider(
    gateway: Running, impasto_emulator: Emulator, fault: dict[str, Any], status: int, code: str
) -> None:
    impasto_emulator.fault(**fault)
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"], answer.headers["x-should-retry"]) == (status, code, "false")
    assert "<" not in (answer.error["message"] or "")
    assert len(impasto_emulator.requests) == 1


async def test_the_sdks_own_retries_never_charge_twice(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("truncate")
    with pytest.raises(openai.InternalServerError):
        await gateway.sdk.with_options(max_retries=2).images.generate(model="sd3", prompt="p")
    assert len(impasto_emulator.charges) == len(impasto_emulator.requests) == 1


async def test_a_request_that_was_not_sent_may_be_tried_again(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config("http://127.0.0.1:9", general="  timeout: 1\n"))
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"]) == (503, "provider_unreachable")
    assert answer.headers["x-should-retry"] == "true"


async def test_too_many_requests_say_when_to_come_back(start: Start, impasto_emulator: Emulator) -> None:
    own = entry("sd3", "stability/sd3.5-large", impasto_emulator.url, key="sk-that-is-to-be-paused")
    gateway = await start(config(impasto_emulator.url, entries=own, general="  timeout: 5\n"))
    impasto_emulator.fault("status", status=429, headers={"retry-after": "30"})
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("30", "true")


async def test_of_several_pictures_some_come(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=502, body="html", times=1)
    answer = await gateway.generate(n=3)
    assert answer.status == 200
    assert len(answer.json["data"]) == 2
    (failure,) = answer.json["errors"]
    assert (failure["code"], failure["billed"]) == ("charge_unknown", "unknown")
    assert len(impasto_emulator.requests) == 3


async def test_the_cost_counts_an_image_that_was_charged_and_can_not_be_used(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("status", status=200, body="empty", times=1)
    answer = await gateway.generate(n=3)
    (failure,) = answer.json["errors"]
    assert (answer.status, len(answer.json["data"]), failure["billed"]) == (200, 2, "yes")
    assert answer.headers["x-impasto-cost-usd"] == "0.195"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {MASTER}"},
        {"Authorization": "Bearer ' OR 1=1--"},
        {"Authorization": "Bearer %00"},
        {"Authorization": "Bearer é"},
        {"Authorization": f"Bearer {MASTER}x"},
        {"Authorization": f"Bearer {MASTER[:-1]}"},
        {"Authorization": f"Bearer {MASTER} "},
    ],
)
async def test_a_wrong_key(standing: Running, impasto_emulator: Emulator, headers: dict[str, str]) -> None:
    standing.session.headers.pop("authorization")
    answer = await standing.ask("POST", "/v1/images/generations", json={"model": "sd3", "prompt": "p"}, headers=headers)
    if headers.get("Authorization") == f"Bearer {MASTER} ":  # a space at the end of a header is no part of it
        assert answer.status == 200
        return
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert not impasto_emulator.requests


async def test_two_keys_are_none(standing: Running) -> None:
    answer = await standing.ask("GET", "/v1/models", headers=[("Authorization", f"Bearer {MASTER}")] * 2)
    assert answer.error["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 7}, "model", "invalid_value"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": 7}, "prompt", "invalid_value"),
        ({"prompt": "  "}, "prompt", "invalid_value"),
        ({"prompt": "a\0b"}, "prompt", "invalid_value"),
        ({"prompt": "x" * 10_001}, "prompt", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": "2"}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_value"),
        ({"seed": 1.0}, "seed", "invalid_value"),
        ({"seed": "1"}, "seed", "invalid_value"),
        ({"size": "1024x1024", "aspect_ratio": "1:1"}, "aspect_ratio", "invalid_value"),
        ({"response_format": "file"}, "response_format", "invalid_value"),
        ({"quality": "ultra"}, "quality", "invalid_value"),
        ({"style": "natural"}, "style", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream": 1}, "stream", "invalid_value"),
        ({"partial_images": 4}, "partial_images", "invalid_value"),
        ({"api_base": "http://127.0.0.1:1"}, "api_base", "unknown_parameter"),
        ({"base_url": "http://127.0.0.1:1"}, "base_url", "unknown_parameter"),
        ({"extra_headers": {}}, "extra_headers", "unknown_parameter"),
        ({"timeout": 1e9}, "timeout", "unknown_parameter"),
        ({"allowed_routes": []}, "allowed_routes", "unknown_parameter"),
        ({"extra_body": {"proxy": "x"}}, "proxy", "unknown_parameter"),
        ({"extra_body": {"model": "core"}}, "model", "invalid_value"),
        ({"extra_body": 5}, "extra_body", "invalid_value"),
        ({"user": {"a": 1}}, "user", "invalid_value"),
        ({"user": "a\r\nb: c"}, "user", "invalid_value"),
        ({"image": "/etc/passwd", "strength": 0.5}, "image", "invalid_image"),
        ({"image": "http://169.254.169.254/", "strength": 0.5}, "image", "invalid_image"),
        ({"image": {"image_url": "file:///etc/passwd"}, "strength": 0.5}, "image", "invalid_image"),
        ({"images": [{"file_id": "x"}], "strength": 0.5}, "image", "invalid_image"),
        ({"extra_body": {"image": "/etc/passwd", "strength": 0.5}}, "image", "invalid_image"),
        ({"mask": "data:image/png;base64,AAAA"}, "mask", "invalid_image"),
    ],
    ids=str,
)
async def test_a_request_that_does_not_fit(
    standing: Running, impasto_emulator: Emulator, body: dict[str, object], param: str, code: str
) -> None:
    answer = await standing.generate(**body)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code), answer.error
    assert answer.error["type"] == "invalid_request_error"
    assert "/etc/passwd" not in (answer.error["message"] or "")
    assert not impasto_emulator.requests


async def test_drop_params_depends_on_the_called_model_alone(start: Start, impasto_emulator: Emulator) -> None:
    more = "litellm_settings:\n  drop_params: true\n"
    gateway = await start(config(impasto_emulator.url, more=more))
    alone = await start(
        config(impasto_emulator.url, entries=entry("core", MODELS["core"], impasto_emulator.url), more=more)
    )
    for running in (gateway, alone):  # "grow_mask" is a field of another model, "steps" of none
        answer = await running.generate(model="core", style="natural", grow_mask=5, steps=20, role="x")
        assert answer.status == 200, answer.body
        assert [each.split()[0] for each in answer.json["warnings"]] == ["style", "grow_mask", "steps", "role"]


@pytest.mark.parametrize(
    "name", ["api_base", "base_url", "api_key", "headers", "extra_headers", "proxy", "timeout", "aws_access_key_id"]
)
@pytest.mark.parametrize("inside", [False, True], ids=["beside", "in extra_body"])
async def test_a_parameter_that_redirects_a_call_is_refused_by_name_also_with_drop_params(
    start: Start, impasto_emulator: Emulator, name: str, inside: bool
) -> None:
    text = config(impasto_emulator.url, models=["sd3"], more="litellm_settings:\n  drop_params: true\n")
    gateway = await start(text)
    answer = await gateway.generate(**({"extra_body": {name: "x"}} if inside else {name: "x"}))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unknown_parameter", name)
    assert not impasto_emulator.requests


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model":"sd3","prompt":"p"}x',
        b'\xef\xbb\xbf{"model":"sd3","prompt":"p"}',
        '{"model":"sd3"}'.encode("utf-16"),
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b'{"model":"sd3","prompt":"p","cfg_scale":NaN}',
        b'{"model":"sd3","prompt":"p","cfg_scale":Infinity}',
        b'{"model":"sd3","prompt":"p","cfg_scale":1e400}',
        b'{"model":"sd3","prompt":"p","seed":' + b"9" * 5000 + b"}",
        b'{"a":' * 100_000,
        b'{"model":"sd3","prompt":"\xff"}',
        b'{"model":"sd3","model":"core","prompt":"p"}',
    ],
    ids=range(16),
)
async def test_a_body_that_is_no_json(standing: Running, impasto_emulator: Emulator, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await standing.ask("POST", "/v1/images/generations", data=body, headers=headers)
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")
    assert not impasto_emulator.requests


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/images/generations", 405, "method_not_allowed"),
        ("DELETE", "/images/edits", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/V1/images/generations", 404, "unknown_url"),
        ("POST", "//v1//images/generations", 404, "unknown_url"),
        ("GET", "/health/x", 404, "unknown_url"),
        ("GET", "/v1/models/none", 404, "model_not_found"),
        ("GET", "/images/files/..%2f..%2fetc%2fpasswd", 404, "not_found"),
        ("GET", "/images/files/%5c..%5cx", 404, "not_found"),
    ],
)
async def test_a_path_that_is_none(standing: Running, method: str, path: str, status: int, code: str) -> None:
    answer = await standing.ask(method, str(yarl.URL(standing.url + path, encoded=True)))
    assert (answer.status, answer.error["code"]) == (status, code)
    if status == 405:
        assert answer.headers["allow"] in ("GET, HEAD", "POST")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
async def test_a_content_type_that_is_not_taken(standing: Running, kind: str) -> None:
    options = {"headers": {"content-type": kind}} if kind else {"skip_auto_headers": ["content-type"]}
    answer = await standing.ask("POST", "/v1/images/generations", data=b"{}", **options)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_content_type")


async def test_a_compressed_body(standing: Running) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = await standing.ask("POST", "/v1/images/generations", data=b"\x1f\x8bgarbage", headers=headers)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")


async def test_another_sites_page_is_sent_away(standing: Running) -> None:
    answer = await standing.ask("GET", "/v1/models", headers={"host": "evil.example"})
    assert (answer.status, answer.error["code"]) == (421, "host_not_allowed")
    assert (await standing.ask("GET", "/v1/models", headers={"host": "0.0.0.0:4000"})).status == 200


@pytest.mark.parametrize("announced", [True, False])
async def test_an_upload_beyond_the_limit(standing: Running, impasto_emulator: Emulator, announced: bool) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + bytes(11 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(form), 1 << 20):
            yield form[at : at + (1 << 20)]

    headers = {"content-type": "multipart/form-data; boundary=x"}
    body = io.BytesIO(form) if announced else pieces()
    answer = await standing.ask("POST", "/v1/images/edits", data=body, headers=headers)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert not impasto_emulator.requests


async def test_more_than_fits_in_memory_is_sent_away_unspent(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, general=f"  max_bytes_in_flight: {1 << 24}\n"))
    impasto_emulator.fault("delay", seconds=0.3)
    answers = await asyncio.gather(*(gateway.generate(n=4) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [200, 503, 503]
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.error["code"] == "overloaded"
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("1", "true")
    assert len(impasto_emulator.charges) == 4
    assert (await gateway.generate()).status == 200
