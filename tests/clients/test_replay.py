"""Each client's own requests, sent byte for byte: what its user gets, with the default configuration and with more."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Iterable

import attrs
import pytest
from PIL import Image

from impasto_plugins.emulator import Emulator

from .catalog import REQUESTS, Request
from .conftest import Answer, Send


def _ids(requests: Iterable[Request]) -> list[object]:
    names = {id(each): name for name, every in REQUESTS.items() for each in every}
    return [pytest.param(each, id=f"{names[id(each)]}-{each.call.replace(' ', '_')}") for each in requests]


EVERY = [each for every in REQUESTS.values() for each in every]
IMAGES = [each for each in EVERY if each.method == "POST"]
LISTINGS = [each for each in EVERY if each.method == "GET"]
PREFLIGHTS = [each for each in EVERY if each.method == "OPTIONS"]
_FIRST = (next(each for each in every if each.method == "POST") for every in REQUESTS.values())
FIRST_IMAGES = list(_FIRST)


def images_of(answer: Answer, reads: str) -> list[Image.Image]:
    """The images as a client takes them out of an answer; everything that clients parse strictly is looked at."""
    body = answer.json
    assert isinstance(body["created"], int)
    usage = body["usage"]
    assert usage is None or {type(usage[name]) for name in ("input_tokens", "output_tokens", "total_tokens")} == {int}
    images: list[Image.Image] = []
    for each in body["data"]:
        if reads == "url":
            assert each.get("b64_json") is None
            with urllib.request.urlopen(each["url"]) as response:
                media_type, data = response.headers.get_content_type(), response.read()
            assert each["url"].rpartition(".")[2] == body["output_format"]  # clients name their copy by it
            assert media_type == f"image/{body['output_format']}"
        else:
            assert each.get("url") is None
            data = base64.b64decode(each["b64_json"], validate=True)
        image = Image.open(io.BytesIO(data))
        image.load()
        assert image.format == body["output_format"].upper()
        images.append(image)
    return images


def _n(request: Request) -> int:
    return int(json.loads(request.body).get("n", 1)) if request.type == "application/json" else 1


@pytest.mark.parametrize("request_", _ids(IMAGES))
def test_a_client_gets_its_image(request_: Request, send: Send, impasto_emulator: Emulator) -> None:
    answer = send(request_, request_.settings)
    assert answer.status == 200, answer.body
    assert len(images_of(answer, request_.reads)) == _n(request_)
    assert len(impasto_emulator.charges) == _n(request_)
    origin = request_.header("origin")
    assert answer.headers.get("access-control-allow-origin") == origin


@pytest.mark.parametrize("request_", _ids(each for each in IMAGES if each.refused or each.lacks))
def test_the_default_configuration(request_: Request, send: Send, impasto_emulator: Emulator) -> None:
    answer = send(request_, request_.default)
    if request_.lacks:
        assert answer.status == 200
        assert answer.json["data"][0].get(request_.lacks) is None
    else:
        assert answer.status == 400
        assert answer.error["param"] == request_.refused
        assert not impasto_emulator.charges


@pytest.mark.parametrize("request_", _ids(LISTINGS))
def test_a_client_finds_the_models(request_: Request, send: Send) -> None:
    answer = send(request_, request_.settings)
    assert answer.status == 200, answer.body
    models = answer.json["data"] if answer.json.get("object") == "list" else [answer.json]
    assert "sd3" in {each["id"] for each in models}
    for each in models:
        assert each["object"] == "model"
        assert isinstance(each["created"], int)
        assert isinstance(each["owned_by"], str)
    assert answer.headers.get("access-control-allow-origin") == request_.header("origin")


@pytest.mark.parametrize("request_", _ids(FIRST_IMAGES))
def test_a_client_can_show_why_its_key_is_refused(request_: Request, send: Send, impasto_emulator: Emulator) -> None:
    answer = send(request_, request_.settings, key="sk-wrong")
    assert answer.status == 401
    assert answer.error["code"] == "invalid_api_key"
    assert answer.headers.get("access-control-allow-origin") == request_.header("origin")
    assert not impasto_emulator.requests


@pytest.mark.parametrize("request_", _ids(FIRST_IMAGES))
def test_a_client_can_show_which_field_is_wrong(request_: Request, send: Send, impasto_emulator: Emulator) -> None:
    empty = attrs.evolve(request_, body=request_.body.replace("a boat", ""))
    assert empty.body != request_.body
    answer = send(empty, request_.settings)
    assert answer.status == 400
    assert answer.error["param"] == "prompt"
    assert not impasto_emulator.charges


@pytest.mark.parametrize("request_", _ids(PREFLIGHTS))
def test_a_page_may_ask(request_: Request, send: Send) -> None:
    answer = send(request_, request_.settings)
    assert 200 <= answer.status < 300, answer.body
    assert answer.headers["access-control-allow-origin"] == request_.header("origin")
    assert "origin" in answer.headers["vary"].lower()
    methods = {each.strip() for each in answer.headers["access-control-allow-methods"].split(",")}
    assert request_.header("access-control-request-method") in methods
    allowed = {each.strip().lower() for each in answer.headers["access-control-allow-headers"].split(",")}
    wanted = request_.header("access-control-request-headers")
    assert wanted is not None
    assert set(wanted.split(",")) <= allowed


@pytest.mark.parametrize("request_", _ids(PREFLIGHTS))
def test_a_page_may_not_ask_by_default(request_: Request, send: Send) -> None:
    answer = send(request_, request_.default)
    assert "access-control-allow-origin" not in answer.headers
