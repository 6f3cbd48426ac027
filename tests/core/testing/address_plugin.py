"""A third party's plugin whose answers have addresses of images and no jobs, and defects of it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

MODEL = "acme/chalk"

SOUND = """
import re
import attrs
from impasto import Operation, Provider, WireRequest
from impasto.dialects import (
    STATUSES, Refusals, image_in_body, images_from_urls, images_of_job, json_object, split_files, unusable,
)
from impasto.fields import integer, text
from impasto_plugins.images.completeness import is_complete

acme = Provider(
    name="acme", base_url="https://api.acme.example", key_variable="ACME_KEY", key_header="x-key", key_prefix="",
    hosts=("*.acme.example",),
)
IMAGE = re.compile(r"https?://[^/]+/files/[0-9a-f]{64}/[0-9]+\\.png\\?signature=[0-9]+")
refusals = Refusals(STATUSES, message="error")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 1_000, required=True, role="prompt", description="Content of the image.")
    seed: int | None = integer(0, 2**31 - 1, description="Seed of the random noise.")


class Dialect:
    def transform_request(self, operation, request, account):
        if request.job is not None:
            return images_of_job(request.job, account, IMAGE, anonymous=True)
        fields, _ = split_files(operation, request.params)
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation, response):
        if response.status == 200 and response.media_type in ("application/json", "image/png", "image/jpeg"):
            return None
        return refusals(response)

    def normalize_response(self, operation, request, response):
        if response.media_type != "application/json":
            return image_in_body(response, is_complete)
        images = json_object(response).get("data")
        if not isinstance(images, list):
            raise unusable("has no images", response)
        urls, seeds = [image.get("url") for image in images], [image.get("seed") for image in images]
        # URLS
        return images_from_urls(urls, response, anonymous=True, seeds=seeds, result_ttl=3_600.0)


chalk = Operation(
    id="acme/chalk", title="Chalk", params=Params, target="/v1/draw", provider=acme, dialect=Dialect(),
)
"""

SUITE = """
import json
import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Scenario
from tests.images import png

IMAGES = tuple(png(8, side) for side in (8, 16, 24))


def answer(status, **body):
    return Answer(status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


def images(*seeds):
    data = [
        {"url": f"{{signed_url}}/files/{{job}}/{n}.png?signature=1", "seed": seed} for n, seed in enumerate(seeds)
    ]
    return answer(200, data=data)


def refusal(status, error):
    return Refusal(answer=answer(status, error="no"), error=error)


class TestChalk(OperationSuite):
    model = "acme/chalk"
    golden = None
    entrances = False
    minimal = {"prompt": "a lighthouse"}
    others = {"seed": 1_234_567}
    endpoint = "https://api.acme.example/v1/draw"
    auth = {"header:x-key": KEY}
    hosts = ("*.acme.example",)
    limits = {"prompt": (1, 1_000), "seed": (0, 2**31 - 1)}
    success = images(7)
    downloads = {
        f"/files/{{job}}/{n}.png": Answer(headers={"content-type": "image/png"}, body=image)
        for n, image in enumerate(IMAGES)
    }
    result_ttl = 3_600.0
    media_types = ("image/png", "image/jpeg")
    reports = {"seed": 7}
    requirements = Requirements(filters=False, partial_results=False)
    refusals = (
        refusal(400, impasto.BadRequest), refusal(401, impasto.Unauthorized), refusal(429, impasto.RateLimited),
    )
    scenarios = {
        "three images": Scenario(answers=(images(7, 8, 9),), images=IMAGES, reports={"seed": (7, 8, 9)}),
        "one is gone": Scenario(
            answers=(images(7, 8),), images=IMAGES[:1], errors={1: impasto.ChargeUnknown},
            downloads={"/files/{job}/1.png": Answer(status=404, body=b"gone")},
        ),
    }
"""

_URLS = "# URLS"
_RESUME = "return images_of_job(request.job, account, IMAGE, anonymous=True)"

DEFECTS: Mapping[str, Defect] = {
    "the images' order": Defect(
        changes={_URLS: "urls.reverse()"},
        check="several_images",
        says="three images: its 3 images are in another order",
    ),
    "a signed address gets the key": Defect(
        changes={"response, anonymous=True": "response"},
        check="the_key_goes_to_the_providers_hosts",
        says="a signed address got the key",
    ),
    "a resumed call gives the key to a signed address": Defect(
        changes={_RESUME: _RESUME.replace(", anonymous=True", "")},
        check="resumed_at_its_address",
        says="client.resume gives the key to a signed address: GET /files/",
    ),
    "an invented id": Defect(
        changes={"import re": "import re, secrets", "response, anonymous=True": "response, id=secrets.token_hex(8)"},
        check="the_id_of_a_job",
        says="is not in the answer that accepted the job",
    ),
    "a damaged image is one": Defect(
        changes={"image_in_body(response, is_complete)": "image_in_body(response, lambda *_: True)"},
        check="a_paid_answer_without_a_result",
        says="half an image at /files/{job}/0.png ended in a Result",
    ),
    "a result time that is not documented": Defect(
        changes={"result_ttl=3_600.0": "result_ttl=60.0"},
        check="kept_for_the_documented_time",
        says="the result is documented for 3600 s",
    ),
    "the media type is always PNG": Defect(
        changes={
            "return image_in_body(response, is_complete)": "result = image_in_body(response, is_complete)\n"
            "            artifact = attrs.evolve(result.artifacts[0], media_type='image/png')\n"
            "            return attrs.evolve(result, artifacts=(artifact,))"
        },
        check="media_type_is_that_of_the_image",
        says="the media type of image/jpeg is",
    ),
}
