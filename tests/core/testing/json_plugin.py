"""A third party's plugin with several images in one JSON answer, and its suite. Its defects are beside it."""

from __future__ import annotations

MODEL = "acme/ink"

SOUND = """
import base64, json
import attrs
from impasto import (
    Artifact, BadRequest, ChargeUnknown, ContentFiltered, Cost, FailedArtifact, File, FlatPrice, Operation,
    PaymentRequired, Provider, ProviderFault, RateLimited, Result, Unauthorized, UnusableResult, Usage, WireRequest,
)
from impasto.ext import media_type_of, retry_after
from impasto.fields import choice, file, integer, number, text
from impasto_plugins.images.completeness import is_complete
# IMPORT

acme = Provider(
    name="acme", base_url="https://api.acme.example", key_variable="ACME_KEY", key_header="x-key", key_prefix=""
)
REFUSALS = {400: BadRequest, 401: Unauthorized, 402: PaymentRequired, 429: RateLimited, 500: ProviderFault}


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 4_000, required=True, role="prompt")
    seed: int | None = integer(0, 2**31 - 1)
    strength: float | None = number(0, 1, default=0.5)
    quality: str | None = choice("draft", "fine", default="fine")
    image: File | None = file()
    mask: File | None = file(role="mask")
    n: int | None = integer(1, 4, default=2)


class Dialect:
    # STATE
    def transform_request(self, operation, request, account):
        # BEGIN
        values = attrs.asdict(request.params, recurse=False, filter=lambda _, value: value is not None)
        files = {name: value for name, value in values.items() if isinstance(value, File)}
        fields = {name: value for name, value in values.items() if name not in files}
        files = {{"image": "init_image"}.get(name, name): value for name, value in files.items()}
        fields = {**request.constants, **fields}
        headers = {} if request.user is None else {"x-user": request.user}
        # PACK
        return WireRequest(
            target=request.target, fields=fields, files=tuple(files.items()), encoding="json", headers=headers
        )

    def classify_error(self, operation, response):
        # CLASSIFY
        if response.status == 200 and response.media_type == "application/json":
            return None
        try:
            message = json.loads(response.body)["error"]["message"]
        except (ValueError, LookupError, TypeError, RecursionError):
            message = None
        kind = REFUSALS.get(response.status)
        if kind is None or not isinstance(message, str):
            return ChargeUnknown(f"HTTP {response.status}", status=response.status, raw=response.body)
        error = kind(message, status=response.status, request_id=response.request_id)
        if kind is RateLimited:
            error.retry_after = retry_after(response.headers)
        return error

    def normalize_response(self, operation, request, response):
        # UNPACK
        try:
            body = json.loads(response.body)
            if body.get("status") == "moderated":
                raise ContentFiltered("moderated", status=200, request_id=response.request_id)
            entries = [
                (e["finish"], e.get("seed"), base64.b64decode(e.get("b64", ""), validate=True)) for e in body["data"]]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self.unusable(response) from None
        artifacts, errors = [], []
        for index, (finish, seed, data) in enumerate(entries):
            media_type = media_type_of(data)
            if finish == "filtered":
                errors.append(FailedArtifact(index=index, error=ContentFiltered("filtered", status=200)))
            elif media_type is None or not is_complete(data, media_type):
                raise self.unusable(response)
            else:
                artifacts.append(Artifact(data=data, media_type=media_type, seed=seed, finish_reason=finish))
        if not artifacts:
            raise self.unusable(response)
        count = body.get("usage")
        usage = Usage(input_tokens=count["in"], output_tokens=count["out"]) if count else None
        return Result(
            artifacts=tuple(artifacts), errors=tuple(errors), request_id=response.request_id, usage=usage
        )

    def unusable(self, response):
        return UnusableResult("no image", raw=response.body, media_type=response.media_type)


ink = Operation(
    id="acme/ink", title="Ink", params=Params, target="/v1/images", provider=acme, dialect=Dialect(),
    native_n=("n", 4), constants={"model": "ink-1"}, price=FlatPrice(cost=Cost(usd=0.03, as_of="2026-01-01")),
)
"""

SUITE = """
import base64, json
import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Scenario
from tests.images import png

IMAGES = tuple(png(8, side) for side in (8, 16, 24))


def answer(status, body):
    return Answer(status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


def entry(image, seed):
    if image is None:
        return {"finish": "filtered"}
    return {"finish": f"ok-{seed}", "seed": seed, "b64": base64.b64encode(image).decode()}


def images(*several):
    usage = {"in": 11, "out": 22}
    data = [entry(image, 7 + n) for n, image in enumerate(several)]
    return answer(200, {"status": "done", "usage": usage, "data": data})


def refusal(status, error):
    return Refusal(answer=answer(status, {"error": {"message": "no"}}), error=error)


class TestInk(OperationSuite):
    model = "acme/ink"
    golden = None
    entrances = False
    minimal = {"prompt": "a lighthouse"}
    others = {"seed": 1_234_567, "strength": 0.25, "quality": "draft", "image": png(8, 9), "mask": png(8, 10)}
    native_n = ("n", 4)
    endpoint = "https://api.acme.example/v1/images"
    auth = {"header:x-key": KEY}
    user = "header:x-user"
    names = {"image": "init_image"}
    constants = {"model": "ink-1"}
    limits = {"prompt": (1, 4_000), "seed": (0, 2**31 - 1), "strength": (0, 1), "n": (1, 4)}
    choices = {"quality": ("draft", "fine")}
    defaults = {"strength": 0.5, "quality": "fine", "n": 2}
    success = images(IMAGES[0])
    usage = impasto.Usage(input_tokens=11, output_tokens=22)
    reports = {"seed": 7, "finish_reason": "ok-7", "usd": 0.03, "usage": usage}
    refusals = (
        refusal(400, impasto.BadRequest), refusal(401, impasto.Unauthorized), refusal(402, impasto.PaymentRequired),
        refusal(429, impasto.RateLimited), refusal(500, impasto.ProviderFault),
    )
    scenarios = {
        "three images": Scenario(
            answers=(images(*IMAGES),), images=IMAGES,
            reports={"seed": (7, 8, 9), "finish_reason": ("ok-7", "ok-8", "ok-9")},
        ),
        "one is filtered": Scenario(
            answers=(images(IMAGES[0], None, IMAGES[2]),), images=(IMAGES[0], IMAGES[2]),
            errors={1: impasto.ContentFiltered},
        ),
        "moderated": Scenario(
            answers=(answer(200, {"status": "moderated"}),), error=impasto.ContentFiltered, billed="no"
        ),
    }
"""
