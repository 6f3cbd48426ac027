"""Helpers for authors of providers: what an answer means, by the provider's own form and nothing else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable

import attrs
import pytest

from impasto import (
    BadRequest,
    ChargeUnknown,
    ContentFiltered,
    Cost,
    File,
    FileRef,
    ImpastoError,
    InvalidRequest,
    Operation,
    Provider,
    ProviderFault,
    RateLimited,
    ServerEvent,
    Unauthorized,
    UnusableResult,
    Usage,
    WireRequest,
    WireResponse,
    fields,
)
from impasto.dialects import (
    STATUSES,
    Refusals,
    TokenPrice,
    image_in_body,
    images_from_base64,
    images_from_urls,
    images_of_job,
    json_object,
    pending_from_url,
    poll_of_job,
    split_files,
    usage_in,
)
from impasto_plugins.images.completeness import is_complete
from impasto_plugins.stability.direct import direct
from tests.images import png

refusals = Refusals(
    {
        400: BadRequest,
        (400, "moderation_blocked"): ContentFiltered,
        401: Unauthorized,
        429: RateLimited,
        "overloaded": ProviderFault,
        "bad_key": Unauthorized,
    },
    message=("error.message", "detail[].msg"),
    advice={401: "check ACME_API_KEY", "bad_key": "make a new key"},
)


def response(status: int, body: object, media_type: str = "application/json", **headers: str) -> WireResponse:
    return WireResponse(status=status, headers={"content-type": media_type, **headers}, body=json.dumps(body).encode())


def refused(code: str | None, message: object = "no") -> dict[str, object]:
    return {"error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (response(400, refused("size")), BadRequest, "size (HTTP 400): no"),
        (response(400, refused("moderation_blocked")), ContentFiltered, "moderation_blocked (HTTP 400): no"),
        (response(400, refused(None)), BadRequest, "HTTP 400: no"),
        (response(400, refused("400")), BadRequest, "HTTP 400: no"),
        (response(503, refused("overloaded")), ProviderFault, "overloaded (HTTP 503): no"),
        (response(400, {"detail": [{"msg": "a"}, {"msg": "b"}]}), BadRequest, "HTTP 400: a; b"),
        (response(401, refused("key", "no key sk-12345")), Unauthorized, "key (HTTP 401): check ACME_API_KEY"),
        (response(400, refused("bad_key", "no key sk-1")), Unauthorized, "bad_key (HTTP 400): make a new key"),
    ],
)
def test_the_most_exact_entry_of_the_table_counts(answer: WireResponse, kind: type[ImpastoError], text: str) -> None:
    error = refusals(answer)
    assert (type(error), error.message, error.billed) == (kind, text, "no")


@pytest.mark.parametrize(
    "answer",
    [
        response(500, refused("size")),
        response(200, refused("size")),
        response(400, refused("size"), "text/html"),
        response(400, refused("size", 5)),
        response(400, {"message": "no"}),
        response(400, [refused("size")]),
        response(400, {"error": [{"message": "no"}]}),
        response(400, {"detail": {"msg": "no"}}),
        WireResponse(status=400, headers={"content-type": "application/json"}, body=b"[" * 100_000),
    ],
)
def test_an_answer_in_another_form_proves_nothing(answer: WireResponse) -> None:
    error = refusals(answer)
    assert (type(error), error.billed) == (ChargeUnknown, "unknown")


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (refused("moderation_blocked"), ContentFiltered, "moderation_blocked: no"),
        (refused("overloaded"), ProviderFault, "overloaded: no"),
        (refused("bad_key", "sk-1"), Unauthorized, "bad_key: make a new key"),
        (refused("new_code"), ProviderFault, "new_code: no"),
        (refused(None), ProviderFault, "the stream ended with an error: no"),
        ({"type": "error"}, ChargeUnknown, "the stream ended with an error; it may have been charged"),
    ],
)
def test_an_event_is_an_error_by_its_code_and_may_have_been_charged(
    body: object, kind: type[ImpastoError], text: str
) -> None:
    error = refusals.in_event(ServerEvent("error", json.dumps(body)))
    assert (type(error), error.message, error.billed) == (kind, text, "unknown")


def test_a_text_in_another_encoding_costs_no_image() -> None:
    body = b'{"prompt": "caf\xe9", "image": "aGk="}'
    assert json_object(WireResponse(status=200, headers={}, body=body))["image"] == "aGk="


@pytest.mark.parametrize("code", [429, "429"])
def test_the_code_of_an_event_may_be_a_status(code: object) -> None:
    places = Refusals(STATUSES, code=("error.status", "error.code"))
    body = {"error": {"code": code, "status": "RESOURCE_EXHAUSTED", "message": "slow down"}}
    error = places.in_event(ServerEvent("message", json.dumps(body)))
    assert (type(error), error.message, error.billed) == (RateLimited, "RESOURCE_EXHAUSTED: slow down", "unknown")
    assert type(Refusals(STATUSES).in_event(ServerEvent("message", json.dumps(body)))) is RateLimited


def test_a_provider_may_say_that_a_stream_with_an_error_is_free() -> None:
    error = refusals.in_event(ServerEvent("error", json.dumps(refused("moderation_blocked"))), billed="no")
    assert error.billed == "no"
    assert refusals.in_event(ServerEvent("error", "busy"), billed="no").billed == "unknown"


def test_refusals_of_another_media_type_are_read_if_it_is_named() -> None:
    answer = response(400, {"detail": "no"}, "application/problem+json")
    assert type(refusals(answer)) is ChargeUnknown
    problems = Refusals(STATUSES, message="detail", media_types=("application/problem+json",))
    assert (type(problems(answer)), problems(answer).message) == (BadRequest, "HTTP 400: no")


def test_retry_after_is_read() -> None:
    error = refusals(response(429, refused("slow"), **{"retry-after": "7"}))
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("details", "header", "seconds"),
    [
        ([{"reason": "quota"}, {"retryDelay": "58.9s"}], None, 58.9),
        ([{"retryDelay": "3"}], None, 3),
        ([{"retryDelay": 4}], None, 4),
        ([{"retryDelay": "3s"}], "7", 7),
        ([{"retryDelay": "soon"}, {"retryDelay": "2s"}], "later", 2),
        ([{"retryDelay": "99999s"}], None, 3600),
        (
            [{"retryDelay": True}, {"retryDelay": None}, {"retryDelay": "-1s"}, {"retryDelay": "9" * 500 + "s"}],
            None,
            None,
        ),
        ([], None, None),
        ("none", None, None),
    ],
)
def test_a_refusal_says_in_its_body_when_to_come_again(
    details: object, header: str | None, seconds: float | None
) -> None:
    table = Refusals(STATUSES, retry_after="error.details[].retryDelay")
    body = {"error": {"message": "slow", "details": details}}
    error = table(response(429, body, **({"retry-after": header} if header is not None else {})))
    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds


@attrs.frozen(kw_only=True)
class Params:
    prompt: str
    images: tuple[File, ...] = ()
    mask: File | None = None
    seed: int | None = None


def test_several_files_of_one_field_repeat_its_name_on_the_wire() -> None:
    operation = Operation(
        id="acme/paint",
        title="Paint",
        params=Params,
        target="/",
        provider=Provider(name="acme", base_url="https://acme.example"),
        dialect=direct,
    )
    one, two, mask = File.of(b"1"), File.of(b"2"), File.of(b"3")
    fields, files = split_files(operation, Params(prompt="a", images=(one, two), mask=mask), {"images": "image[]"})
    assert fields == {"prompt": "a"}
    assert files == [("image[]", one), ("image[]", two), ("mask", mask)]


def test_an_error_stands_for_an_image_that_was_filtered() -> None:
    text, refused = base64.b64encode(png(8, 8)).decode(), ContentFiltered("no", billed="no")
    result = images_from_base64([refused, text, "%%%"], response(200, {}), lambda *_: True)
    assert [each.data for each in result.artifacts] == [png(8, 8)]
    assert [(each.index, type(each.error)) for each in result.errors] == [(0, ContentFiltered), (2, UnusableResult)]
    with pytest.raises(ContentFiltered) as caught:
        images_from_base64(["%%%", refused], response(200, {}), lambda *_: True)
    assert caught.value is refused


def test_a_damaged_image_drops_no_other() -> None:
    whole = png(8, 8)
    texts = [base64.b64encode(data).decode() for data in (whole, whole[:-20], b"", whole)]
    result = images_from_base64(
        [*texts, None, "%%%"], response(200, {}), is_complete, seeds=[5, 6, 7, True], revised_prompts=["a", "b", "c", 7]
    )
    assert [artifact.data for artifact in result.artifacts] == [whole, whole]
    assert [(each.seed, each.revised_prompt) for each in result.artifacts] == [(5, "a"), (None, None)]
    assert [error.index for error in result.errors] == [1, 2, 4, 5]
    assert {error.error.billed for error in result.errors} == {"yes"}
    with pytest.raises(UnusableResult, match="has no complete image; it was charged"):
        images_from_base64([texts[1]], response(200, {}), is_complete)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000])
def test_a_paid_answer_that_is_not_an_object_keeps_its_bytes(body: bytes) -> None:
    with pytest.raises(UnusableResult) as caught:
        json_object(WireResponse(status=200, headers={}, body=body))
    assert caught.value.raw == body


def test_an_address_in_an_answer_becomes_a_get() -> None:
    pending = pending_from_url("https://acme.example/x", response(200, {}), id="7", anonymous=True, is_ready=True)
    assert pending.poll == WireRequest(url="https://acme.example/x", method="GET", anonymous=True)
    assert (pending.id, pending.is_ready) == ("7", True)
    for missing in (None, 5, ""):
        with pytest.raises(UnusableResult, match="has no address of the result") as caught:
            pending_from_url(missing, response(200, {}), id="7")
        assert caught.value.id == "7"


@attrs.frozen(kw_only=True)
class Nested:
    strength: float | None = fields.number(0, 1)
    references: tuple[File, ...] | None = fields.files(role=None)


@attrs.frozen(kw_only=True)
class WithNested:
    images: tuple[File, ...] | None = fields.files()
    words: tuple[str, ...] | None = fields.texts()
    nested: Nested | None = fields.group(Nested)


ACME = Provider(name="acme", base_url="https://acme.example", key_variable="ACME_API_KEY").account({"api_key": "k"})
IMAGE_URL = "https://acme.example/1.png"
FORM = re.compile(r"https://acme\.example/\S+")
REQUESTS: dict[str, Callable[..., WireRequest | None]] = {
    "poll_of_job": lambda **options: poll_of_job(IMAGE_URL, ACME, FORM, **options),
    "images_of_job": lambda **options: images_of_job(IMAGE_URL, ACME, FORM, **options).downloads[0].request,
    "pending_from_url": lambda **options: pending_from_url(IMAGE_URL, response(200, {}), **options).poll,
    "images_from_urls": lambda **options: (
        images_from_urls([IMAGE_URL], response(200, {}), **options).downloads[0].request
    ),
}


@pytest.mark.parametrize("helper", REQUESTS)
def test_an_address_is_asked_with_the_key_unless_the_plugin_says_otherwise(helper: str) -> None:
    request = REQUESTS[helper]
    assert request() == WireRequest(url=IMAGE_URL, method="GET", anonymous=False)
    assert request(anonymous=True) == WireRequest(url=IMAGE_URL, method="GET", anonymous=True)


def test_an_id_has_the_places_of_images_without_an_address() -> None:
    refused = ContentFiltered("no", billed="no")
    pending = images_from_urls([refused, IMAGE_URL, "data:image/png;base64,"], response(200, {}))
    assert pending.id == f"_ {IMAGE_URL} _"
    resumed = images_of_job(pending.id, ACME, FORM)
    assert [each.index for each in resumed.downloads] == [1]
    assert [(each.index, each.error.billed) for each in resumed.errors] == [(0, "unknown"), (2, "unknown")]
    assert images_from_urls(["data:image/png;base64,"], response(200, {})).id == "data:"
    for wrong in ("_", "_ _", ""):
        with pytest.raises(InvalidRequest):
            images_of_job(wrong, ACME, FORM)


def test_the_address_of_a_job_has_at_most_8192_characters() -> None:
    longest = IMAGE_URL.ljust(8_192, "x")
    assert poll_of_job(longest, ACME, FORM).url == longest
    with pytest.raises(InvalidRequest, match="must be the address of a job, as acme answered it"):
        poll_of_job(f"{longest}x", ACME, FORM)


def test_a_nested_object_becomes_json_with_its_files() -> None:
    provider = Provider(name="acme", base_url="https://acme.example")
    operation = Operation(id="acme/x", title="X", params=WithNested, target="/x", provider=provider, dialect=direct)
    first, second = File.of(b"1"), File.of(b"2")
    params = WithNested(images=(first,), words=("a", "b"), nested=Nested(references=(second,)))
    assert split_files(operation, params) == (
        {"words": ["a", "b"], "nested": {"references": [FileRef(second)]}},
        [("images", first)],
    )


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"GIF89a, cut short", "image/gif"),
        (b"<svg/>", "image/svg+xml"),
        (b"\x00\x00\x00\x20ftypavif", "image/avif"),
        (b'<?xml version="1.0"?><svg/>', "image/svg+xml"),
    ],
)
def test_a_declared_media_type_is_passed_on_as_it_is(data: bytes, media_type: str) -> None:
    answer = WireResponse(status=200, headers={"content-type": media_type}, body=data)
    [artifact] = image_in_body(answer, is_complete, (media_type, "image/jxl")).artifacts
    assert (artifact.data, artifact.media_type) == (data, media_type)
    [encoded] = images_from_base64([base64.b64encode(data).decode()], answer, is_complete, (media_type,)).artifacts
    assert (encoded.data, encoded.media_type) == (data, media_type)
    for not_declared in ((), ("image/jxl", "image/heic")):
        with pytest.raises(UnusableResult):
            image_in_body(answer, is_complete, not_declared)


def test_a_declared_media_type_makes_no_image_of_nothing_and_no_other_check_milder() -> None:
    for data in (b"", png(8, 8)[:-4]):
        answer = WireResponse(status=200, headers={"content-type": "image/png"}, body=data)
        with pytest.raises(UnusableResult):
            image_in_body(answer, is_complete, ("image/gif",))
        with pytest.raises(UnusableResult):
            images_from_base64([base64.b64encode(data).decode(), "%"], answer, is_complete, ("image/gif",))


def test_tokens_are_the_price_of_an_answer_and_an_estimate_comes_before() -> None:
    price = TokenPrice[Params](
        text_input=5, image_input=10, output=40, as_of="2026-01-01", estimate=lambda params: params.seed and 0.25
    )
    counts: dict[str, object] = {
        "input_tokens": 50,
        "output_tokens": 272,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    }
    usage = usage_in(counts)
    assert usage == Usage(input_tokens=50, output_tokens=272, input_text_tokens=10, input_image_tokens=40)
    assert price.of(usage) == Cost(usd=0.01133, as_of="2026-01-01")
    assert price.quote(Params(prompt="a", seed=1)) == Cost(usd=0.25, as_of="2026-01-01")
    assert price.quote(Params(prompt="a")) is None
    assert price.of(usage_in({**counts, "input_tokens_details": None})) is None
    wrong: list[object] = [None, [], {}, {**counts, "output_tokens": True}, {**counts, "input_tokens": -1}]
    assert [usage_in(each) for each in wrong] == [None] * len(wrong)
