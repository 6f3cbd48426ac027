"""A third party's plugin with jobs that a POST cancels, and several images at signed addresses; and defects of it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

MODEL = "acme/pastel"

SOUND = """
import re
from impasto import Cost, InvalidRequest, JobFailed, Operation, Pending, Problem, Provider, WidthHeight, WireRequest
from impasto.dialects import (
    STATUSES, Refusals, image_in_body, images_from_urls, json_object, split_files, unusable,
)
from impasto.fields import group, integer, text
from impasto_plugins.images.completeness import is_complete
import attrs

acme = Provider(
    name="acme", base_url="https://api.acme.example", key_variable="ACME_KEY", key_header="x-key", key_prefix="",
    hosts=("*.acme.example",), poll_interval=2.0,
)
JOB = re.compile("[0-9a-f]{64}")
refusals = Refusals(STATUSES, message="detail")


@attrs.frozen(kw_only=True)
class Pixels:
    width: int | None = integer(64, 2_048, description="Width in pixels.")
    height: int | None = integer(64, 2_048, description="Height in pixels.")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 1_000, required=True, role="prompt", description="Content of the image.")
    seed: int | None = integer(0, 2**31 - 1, description="Seed of the random noise.")
    image_size: Pixels | str | None = group(Pixels, choices=("square", "wide"), description="Size of the image.")
    count: int | None = integer(1, 4, default=1, description="Number of images.")


def poll(job):
    return WireRequest(target=f"/v1/predictions/{job}", method="GET")


class Dialect:
    def transform_request(self, operation, request, account):
        if request.job is not None:
            if JOB.fullmatch(request.job) is None:
                raise InvalidRequest([Problem("id", "must be 64 digits")])
            return poll(request.job)
        fields, _ = split_files(operation, request.params)
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation, response):
        if response.status in (200, 201, 202) and response.media_type in ("application/json", "image/png"):
            return None
        # CLASSIFY
        return refusals(response)

    def normalize_response(self, operation, request, response):
        if response.media_type == "image/png":
            return image_in_body(response, is_complete)
        match json_object(response):
            case {"state": "failed"}:
                raise JobFailed("failed", status=200, request_id=response.request_id)
            case {"state": "running", "id": str(job)} if JOB.fullmatch(job) is not None:
                stop = WireRequest(target=f"/v1/predictions/{job}/cancel", fields={}, encoding="json")
                return Pending(id=job, poll=poll(job), cancel=stop)
            case {"state": "done", "id": str(job), "output": [*images]}:
                urls = [image.get("url") for image in images]
                seeds = [image.get("seed") for image in images]
                # URLS
                return images_from_urls(urls, response, id=job, anonymous=True, seeds=seeds)
        raise unusable("has neither a job nor images", response)


class Price:
    def quote(self, params):
        images = 1  # IMAGES
        return Cost(usd=0.02 * images * (2 if params.image_size == "wide" else 1), as_of="2026-11-01")


pastel = Operation(
    id="acme/pastel", title="Pastel", params=Params, target="/v1/predictions", provider=acme, dialect=Dialect(),
    native_n=("count", 4), price=Price(),
    size=WidthHeight(width="image_size.width", height="image_size.height", minimum=64, maximum=2_048),
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


def refusal(status, error):
    return Refusal(answer=answer(status, detail="no"), error=error)


def delivered(image):
    return Answer(headers={"content-type": "image/png"}, body=image)


def done(*seeds):
    output = [{"url": f"{{signed_url}}/{{job}}/{n}.png?signature=1", "seed": seed} for n, seed in enumerate(seeds)]
    return answer(200, state="done", id="{job}", output=output)


ACCEPTED = answer(201, state="running", id="{job}")
RUNNING = answer(200, state="running", id="{job}")


class TestPastel(OperationSuite):
    model = "acme/pastel"
    golden = None
    entrances = False
    minimal = {"prompt": "a lighthouse"}
    others = {"seed": 1_234_567, "image_size": {"width": 640, "height": 480}}
    endpoint = "https://api.acme.example/v1/predictions"
    auth = {"header:x-key": KEY}
    hosts = ("*.acme.example",)
    native_n = ("count", 4)
    limits = {
        "prompt": (1, 1_000), "seed": (0, 2**31 - 1), "count": (1, 4), "image_size.width": (64, 2_048),
        "image_size.height": (64, 2_048),
    }
    choices = {"image_size": ("square", "wide")}
    estimates = (({}, 0.02), ({"image_size": "wide"}, 0.04))
    defaults = {"count": 1}
    job_accepted = ACCEPTED
    polls = (RUNNING, done(7))
    success = delivered(IMAGES[0])
    media_types = ("image/png",)
    reports = {"seed": 7}
    poll_interval = 2.0
    cancel = "POST /v1/predictions/{job}/cancel"
    requirements = Requirements(filters=False, partial_results=False)
    refusals = (
        refusal(400, impasto.BadRequest), refusal(401, impasto.Unauthorized), refusal(429, impasto.RateLimited),
    )
    scenarios = {
        "three images": Scenario(
            answers=(ACCEPTED, RUNNING, done(7, 8, 9)), images=IMAGES, reports={"seed": (7, 8, 9)},
            downloads={f"/{{job}}/{n}.png": delivered(image) for n, image in enumerate(IMAGES)},
        ),
        "one of three is gone": Scenario(
            answers=(ACCEPTED, done(7, 8, 9)), images=(IMAGES[0], IMAGES[2]), reports={"seed": (7, 9)},
            errors={1: impasto.ChargeUnknown},
            downloads={
                "/{job}/0.png": delivered(IMAGES[0]), "/{job}/1.png": Answer(status=404, body=b"gone"),
                "/{job}/2.png": delivered(IMAGES[2]),
            },
        ),
        "accepted later": Scenario(
            answers=(answer(202, state="running", id="{job}"), done(7)), images=IMAGES[:1],
            downloads={"/{job}/0.png": delivered(IMAGES[0])},
        ),
        "failed": Scenario(answers=(ACCEPTED, answer(200, state="failed", id="{job}")), error=impasto.JobFailed),
    }
"""

_CLASSIFY = "# CLASSIFY"

_URLS = "# URLS"

DEFECTS: Mapping[str, Defect] = {
    "the images' order": Defect(
        changes={_URLS: "urls.reverse()"},
        check="several_images",
        says="three images: its 3 images are in another order",
    ),
    "the images' seeds": Defect(
        changes={_URLS: "seeds.reverse()"},
        check="several_images",
        says="three images: seed is (9, 8, 7), not (7, 8, 9)",
    ),
    "the last image is dropped": Defect(
        changes={_URLS: "del urls[2:]"}, check="several_images", says="three images: 2 of its 3 images came"
    ),
    "an image that is gone drops the others": Defect(
        changes={
            _CLASSIFY: "if response.status == 404: self.gone = True",
            'if response.media_type == "image/png":': 'if getattr(self, "gone", False): raise JobFailed("gone")\n'
            '        if response.media_type == "image/png":',
        },
        check="several_images",
        says="one of three is gone: ",
    ),
    "an object without a job is free": Defect(
        changes={
            'raise unusable("has neither a job': 'raise JobFailed("none", billed="no")  # ("has neither a job',
        },
        check="no_other_answer_proves",
        says="HTTP 201 (application/json) ended in JobFailed",
    ),
    "the estimate ignores the size": Defect(
        changes={'(2 if params.image_size == "wide" else 1)': "1"},
        check="its_price_before_a_call",
        says="is 0.02 USD, documented is 0.04",
    ),
    "the estimate is that of all images": Defect(
        changes={"images = 1  # IMAGES": "images = params.count or 1"},
        check="its_price_before_a_call",
        says="the price is 0.02 USD, and 0.08 USD of a request for 4 images",
    ),
    "a size within other limits": Defect(
        changes={"minimum=64, maximum=2_048": "minimum=512, maximum=1_024"},
        check="a_size_of_openai",
        says="Operation.size takes 512 to 1024 pixels, image_size.width 64 to 2048",
    ),
    "no size in spite of its fields": Defect(
        changes={
            'WidthHeight(width="image_size.width", height="image_size.height", minimum=64, maximum=2_048)': "None"
        },
        check="a_size_of_openai",
        says="Operation.size is None, and image_size has a width and a height: WidthHeight(",
    ),
    "a page is taken for a job": Defect(
        changes={
            'response.media_type in ("application/json", "image/png")': "True",
            "if response.media_type ==": "if response.media_type == 'text/html':\n            raise JobFailed('none', "
            "status=200, billed='no')\n        if response.media_type ==",
        },
        check="no_other_answer_proves",
        says="HTTP 201 (text/html) ended in JobFailed",
    ),
}
