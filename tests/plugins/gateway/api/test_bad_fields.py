"""What callers write into fields: refused by name and before anything is sent, or passed on byte for byte."""

from __future__ import annotations

from base64 import b64encode

import pytest

from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.gateway.conftest import Running

REFUSED: dict[str, list[object]] = {
    "model": [None, 7, "", [], {}, True],
    "prompt": [None, 7, [], {}, True, "", " \t\n", "a\0b", "x" * 10_001, "😀" * 10_001, "e\u0301" * 5_000 + "e"],
    "n": [0, -1, 1.5, "2", True, 11, 10**9, 10**4000, [], 1.0],
    "aspect_ratio": ["1:0", "16/9", "16:9 ", "", 1, "1:1\n", ["1:1"]],
    "size": ["1024", "x", "1024x", "-1x1", "0x0", "1024X1024", "1024x1024 ", 1024, [], "9" * 400 + "x1"],
    "seed": [-1, 4294967295, 4294967296, 1.0, "1", True, 10**4000, 1e9],
    "cfg_scale": [-0.1, 0.9, 10.1, "5", True, [], 1e308],
    "negative_prompt": [7, "x" * 10_001, {}],
    "style_preset": ["none", "ANIME", 7, []],
    "output_format": ["gif", "PNG", "", 7],
    "response_format": ["file", "URL", "", 7],
    "quality": ["ultra", 7],
    "style": ["natural", 7],
    "background": ["transparent", 7],
    "moderation": ["low", 7],
    "output_compression": [50, -1, 101, "100", True],
    "input_fidelity": ["high"],
    "stream": ["yes", 1, 0, "true", [], {}],
    "partial_images": [-1, 4, 1.0, "1", True],
    "user": [{"a": 1}, 7, "a\r\nb: c", "a\nb", "a\0b", "é" * 10_000, "x" * 10_240],
    "extra_body": [5, "x", [], True],
    "image": ["/etc/passwd", "http://169.254.169.254/", 7, {"image_url": "file:///etc/passwd"}, {"file_id": "x"}, [[]]],
    "mask": ["data:image/png;base64,AAAA", 7],
}
UNKNOWN = (
    *("api_base", "base_url", "endpoint_url", "extra_headers", "headers", "extra_query", "proxy", "timeout", "api_key"),
    *("allowed_routes", "role", "max_budget", "metadata", "user_role", "litellm_params", "provider_params", "ssl"),
    *("__class__", "constructor", "model ", "Prompt", "aws_region_name", "base_model", "drop_params", "sk-canary"),
)
PASSED = {
    "as long as may be": "x" * 10_000,
    "as long in emoji": "😀" * 10_000,
    "combined": "e\u0301" * 5_000,
    "one letter": "x",
    "control": "a\x1b[2Jb\x7fc\td",
    "lines": "a\r\nb\nc",
    "turned round": "a\u202eb\u2066c",
    "joined": "👨\u200d👩\u200d👧",
    "weighted": "(word:999)",
    "a template": "{{7*7}} {id.__class__} %(x)s ${HOME} {0}",
    "a format": "%n%s%d",
    "SQL": "'; DROP TABLE keys; --",
    "markup": "<script>alert(1)</script>&amp;",
    "a boundary": '--bound\r\nContent-Disposition: form-data; name="seed"\r\n\r\n5',
    "a path": "../../etc/passwd",
    "spaces at the ends": "  a  ",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in REFUSED.items() for value in values],
    ids=lambda value: repr(value)[:24],
)
async def test_a_value_that_does_not_fit(
    standing: Running, impasto_emulator: Emulator, name: str, value: object
) -> None:
    answer = await standing.generate(**{name: value})
    assert (answer.status, answer.error["param"]) == (400, name), answer.error
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["code"] in ("invalid_value", "missing_required_parameter", "unknown_parameter", "invalid_image")
    message = answer.error["message"] or ""
    assert len(message) < 1000
    assert message.isprintable()
    assert "/etc/passwd" not in message
    assert not impasto_emulator.requests


@pytest.mark.parametrize("stream", [True, False, "yes", 1])
async def test_a_variation_has_no_stream(standing: Running, impasto_emulator: Emulator, stream: object) -> None:
    image = "data:image/png;base64," + b64encode(png(96, 96)).decode()
    body = {"model": "sd3", "image": image, "stream": stream}
    answer = await standing.ask("POST", "/v1/images/variations", json=body)
    if stream is False:
        assert answer.status == 200
        return
    assert (answer.status, answer.error["param"]) == (400, "stream")
    assert not impasto_emulator.requests


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "in extra_body"])
@pytest.mark.parametrize("name", UNKNOWN)
async def test_a_name_that_is_none(standing: Running, impasto_emulator: Emulator, name: str, inside: bool) -> None:
    params = {name: "http://127.0.0.1:1/sk-canary-value"}
    answer = await standing.generate(**({"extra_body": params} if inside else params))
    assert (answer.status, answer.error["code"]) == (400, "unknown_parameter"), answer.error
    assert answer.error["param"] == name
    assert "sk-canary-value" not in (answer.error["message"] or "")
    assert not impasto_emulator.requests


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x1b[2J", "a\u202eb", "\ud800", ""])
async def test_a_name_that_can_not_be_shown(standing: Running, impasto_emulator: Emulator, name: str) -> None:
    answer = await standing.generate(**{name: 1})
    assert (answer.status, answer.error["code"]) == (400, "unknown_parameter"), answer.error
    assert all(text is not None and text.isprintable() for text in (answer.error["message"], answer.error["param"]))
    assert not impasto_emulator.requests


@pytest.mark.parametrize("name", PASSED)
async def test_a_prompt_goes_out_as_it_came(standing: Running, impasto_emulator: Emulator, name: str) -> None:
    answer = await standing.generate(prompt=PASSED[name])
    assert answer.status == 200, answer.body[:300]
    assert impasto_emulator.requests[0].fields["prompt"] == PASSED[name]


@pytest.mark.parametrize("name", ["n", "seed", "size", "user", "negative_prompt", "response_format", "stream", "style"])
async def test_null_is_not_given(standing: Running, impasto_emulator: Emulator, name: str) -> None:
    assert (await standing.generate(**{name: None})).status == 200
    assert set(impasto_emulator.requests[0].fields) == {"prompt", "model"}


NUMBERS = {"0.0": 200, "0e-400": 200, "1e-3": 200} | dict.fromkeys(
    ("1e-400", "-1e-400", "1e400", "NaN", "-Infinity", "00.5", ".5", "0x1", "5.", "+1"), 400
)


@pytest.mark.parametrize(("value", "status"), NUMBERS.items())
async def test_numbers_that_no_float_holds(
    standing: Running, impasto_emulator: Emulator, value: str, status: int
) -> None:
    picture = b64encode(png(96, 96)).decode()
    body = f'{{"model":"sd3","prompt":"p","strength":{value},"image":"data:image/png;base64,{picture}"}}'
    headers = {"content-type": "application/json"}
    answer = await standing.ask("POST", "/v1/images/edits", data=body, headers=headers)
    assert answer.status == status, answer.body[:300]
    assert len(impasto_emulator.requests) == (status == 200)
    if "e-400" in value and status == 400:
        assert answer.error["param"] == "strength"
        assert "too small" in (answer.error["message"] or "")
