"""A paid image is delivered in whatever form of base64 it comes, on both routes, from memory and from disk."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import impasto
from impasto import Call, File, WireResponse
from impasto.dialects import decode_base64 as decode
from tests.bedrock import KEYS, REQUEST_ID
from tests.conftest import KEY
from tests.images import chunk, png
from tests.recorder import Answer, Recorder, in_json

# of a length that needs padding, and with both characters in which the alphabets differ
IMAGE = png(64, 64)[:33] + chunk(b"prIv", random.Random(1).randbytes(1_000)) + png(64, 64)[33:]
IMAGE += b"\0" * (1 - len(IMAGE) % 3)
B64 = base64.b64encode(IMAGE).decode()
FORMS: dict[str, Callable[[str], str]] = {
    "as usual": str,
    "data URI": "data:image/png;base64,{}".format,
    "data URI in capitals": "DATA:IMAGE/PNG;BASE64,{}".format,
    "data URI with a parameter": "data:image/png;charset=utf-8;base64,{}".format,
    "percent-encoded data URI": lambda text: "data:image/png;base64," + quote(text, safe=""),
    "lines of 76": lambda text: "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\r\n",
    "spaces around": " {}\n".format,
    "data URI in lines": lambda text: "data:image/png;base64,\n" + text[:500] + "\n" + text[500:],
    "URL-safe": lambda text: text.replace("+", "-").replace("/", "_"),
    "no padding": lambda text: text.rstrip("="),
    "URL-safe data URI without padding": lambda text: (
        "data:image/png;base64," + text.replace("+", "-").replace("/", "_").rstrip("=")
    ),
}
DAMAGED = {
    "a character that is none": B64[:100] + "!" + B64[101:],
    "padding in its middle": B64[:100] + "=" + B64[101:],
    "one character too many": B64.rstrip("=") + "AAA"[: (1 - len(B64.rstrip("="))) % 4],
    "text that is not ASCII": B64[:100] + "é" + B64[101:],
}


def test_the_forms_of_the_sample_differ() -> None:
    assert {"+", "/", "="} <= set(B64)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_has_the_same_bytes(form: str) -> None:
    assert decode(FORMS[form](B64)) == IMAGE


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_base64_is_an_error(kind: str) -> None:
    with pytest.raises(ValueError, match="(?i)base64|padding|ascii"):
        decode(DAMAGED[kind])


@pytest.mark.parametrize("form", FORMS)
async def test_bedrocks_image_is_delivered(recorder: Recorder, form: str) -> None:
    body = {"seeds": [7], "finish_reasons": [None], "images": [FORMS[form](B64)]}
    recorder.answer = lambda _: in_json(body)
    async with impasto.Client(**KEYS, bedrock_endpoint=recorder.url) as client:
        result = await client.run("bedrock/stability.stable-image-core-v1:1", prompt="p")
    assert [(artifact.data, artifact.seed) for artifact in result.artifacts] == [(IMAGE, 7)]


class Spooled(Call):
    """Takes every answer to a file, whatever its size."""

    has_spools = True
    folder: Path

    def spool(self, response: WireResponse) -> Any:
        path, holder = self.folder / "answer", list[bytes]()

        class Spool:
            def fits_in_memory(self, size: int) -> bool:
                return False

            async def write(self, data: bytes) -> None:
                holder.append(data)

            async def finish(self) -> File:
                await asyncio.to_thread(path.write_bytes, b"".join(holder))
                return await asyncio.to_thread(File.of, path)

        return Spool()


@pytest.mark.parametrize("form", FORMS)
async def test_bedrocks_image_is_delivered_from_disk(recorder: Recorder, form: str, tmp_path: Path) -> None:
    body = {"seeds": [7], "finish_reasons": [None], "images": [FORMS[form](B64)]}
    recorder.answer = lambda _: in_json(body)
    Spooled.folder = tmp_path
    async with impasto.Client(**KEYS, bedrock_endpoint=recorder.url) as client:
        result = await client.invoke("bedrock/stability.stable-image-core-v1:1", {"prompt": "p"}, call=Spooled)
    [artifact] = result.artifacts
    assert await asyncio.to_thread(artifact.content.read) == IMAGE


@pytest.mark.parametrize("form", FORMS)
async def test_stabilitys_json_is_delivered(recorder: Recorder, form: str) -> None:
    recorder.answer = lambda _: in_json({"image": FORMS[form](B64), "finish_reason": "SUCCESS", "seed": 7})
    async with impasto.Client(api_key=KEY, api_base=recorder.url) as client:
        result = await client.run("stability/stable-image-core", prompt="p")
    assert [(artifact.data, artifact.seed) for artifact in result.artifacts] == [(IMAGE, 7)]


async def test_the_error_of_invalid_base64_has_the_whole_answer(recorder: Recorder) -> None:
    body = json.dumps({"images": [DAMAGED["padding in its middle"]], "finish_reasons": [None]}).encode()
    headers = {"content-type": "application/json", "x-amzn-requestid": REQUEST_ID}
    recorder.answer = lambda _: Answer(headers=headers, body=body)
    async with impasto.Client(**KEYS, bedrock_endpoint=recorder.url) as client:
        with pytest.raises(impasto.UnusableResult, match="invalid base64") as caught:
            await client.run("bedrock/stability.stable-image-core-v1:1", prompt="p")
    assert caught.value.raw == body
