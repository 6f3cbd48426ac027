"""A third party's plugin with a form, files under repeated names and a native count, and defects of it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

MODEL = "acme/gouache"

SOUND = """
import attrs
from impasto import (
    ContentFiltered, Cost, File, FlatPrice, InvalidRequest, Operation, Problem, Provider, WireRequest,
)
from impasto import fields as f
from impasto.dialects import STATUSES, Refusals, images_from_base64, json_object, split_files, unusable
from impasto_plugins.images.completeness import is_complete

acme = Provider(
    name="acme", base_url="https://api.acme.example/api", key_variable="ACME_KEY", key_header="x-key", key_prefix=""
)
refusals = Refusals(
    {**STATUSES, 451: ContentFiltered}, message="errors[].message", code="errors[].code", retry_after="errors[].wait"
)


@attrs.frozen(kw_only=True)
class Params:
    text: str = f.text(1, 300, required=True, role="prompt")
    pictures: tuple[File, ...] | None = f.files(1, 5)
    mask: File | None = f.file(role="mask", mask_area="black")
    count: int | None = f.integer(1, 8, default=1)
    width: int | None = f.integer(256, 1_440, step=32, default=1_024)
    height: int | None = f.integer(256, 1_440, step=32, default=1_024)
    colors: tuple[str, ...] | None = f.texts(3, pattern="#[0-9a-f]{6}")
    tile: bool | None = f.boolean()


class Dialect:
    def transform_request(self, operation, request, account):
        if request.job is not None:
            raise InvalidRequest([Problem("id", "there are no jobs")])
        params = attrs.evolve(request.params, colors=None)
        fields, files = split_files(operation, params, {"pictures": "pictures[]", "mask": "mask_file"})
        if request.params.colors is not None:
            fields["colors"] = ",".join(request.params.colors)
        fields |= {} if request.user is None else {"end_user": request.user}
        # PACK
        return WireRequest(target=request.target, fields={**request.constants, **fields}, files=files)

    def classify_error(self, operation, response):
        is_success = response.status == 200 and response.media_type == "application/json"
        return None if is_success else refusals(response)

    def normalize_response(self, operation, request, response):
        body = json_object(response)
        entries = body.get("artifacts")
        if not isinstance(entries, list):
            raise unusable("has no images", response)
        # UNPACK
        texts = [entry.get("data") if isinstance(entry, dict) else None for entry in entries]
        result = images_from_base64(texts, response, is_complete)
        credits = body.get("credits")
        return attrs.evolve(result, cost=Cost(usd=credits / 100, as_of="2026-01-01") if credits else None)


gouache = Operation(
    id="acme/gouache", title="Gouache", params=Params, target="/v2/generate", provider=acme, dialect=Dialect(),
    native_n=("count", 8), constants={"engine": "g-1"}, price=FlatPrice(cost=Cost(usd=0.02, as_of="2026-01-01")),
)
"""

SUITE = """
import base64, json
import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Scenario
from tests.images import png

IMAGES = tuple(png(8, side) for side in (8, 16, 24))


def answer(status, body):
    return Answer(status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


def images(*several):
    data = [{"data": base64.b64encode(image).decode()} for image in several]
    return answer(200, {"artifacts": data, "credits": 2 * len(several)})


def refusal(status, error, wait=None):
    errors = [{"code": "no", "message": "no"}, {"wait": wait}]
    return Refusal(answer=answer(status, {"errors": errors}), error=error, retry_after=wait)


class TestGouache(OperationSuite):
    model = "acme/gouache"
    golden = None
    entrances = False
    minimal = {"text": "a lighthouse"}
    others = {
        "pictures": [png(8, 9), png(8, 10)], "mask": png(8, 11), "width": 512, "height": 768,
        "colors": ["#ff0000", "#00ff00"], "tile": True,
    }
    endpoint = "https://api.acme.example/api/v2/generate"
    auth = {"header:x-key": KEY}
    user = "end_user"
    names = {"pictures": "pictures[]", "mask": "mask_file"}
    translated = {"colors": {"colors": "#ff0000,#00ff00"}}
    constants = {"engine": "g-1"}
    native_n = ("count", 8)
    limits = {
        "text": (1, 300), "count": (1, 8), "pictures": (1, 5), "width": (256, 1_440, 32),
        "height": (256, 1_440, 32), "colors": (1, 3),
    }
    encoding = "form"
    roles = {"text": "prompt", "pictures": "image", "mask": "mask"}
    mask_area = "black"
    defaults = {"count": 1, "width": 1_024, "height": 1_024}
    success = images(IMAGES[0])
    reports = {"usd": 0.02}
    requirements = Requirements(partial_results=False)
    refusals = (
        refusal(400, impasto.BadRequest), refusal(401, impasto.Unauthorized), refusal(429, impasto.RateLimited, 3.5),
        refusal(451, impasto.ContentFiltered),
    )
    scenarios = {"three images": Scenario(answers=(images(*IMAGES),), images=IMAGES, reports={"usd": 0.06})}
"""

FIRST_LINE = "golden = None"
"""The line of the suite that a defect may change."""

_PACK = "# PACK"

DEFECTS: Mapping[str, Defect] = {
    "a form's n is left to the provider's default": Defect(
        changes={_PACK: 'fields.pop("count", None)'}, check="n_images_are_requested", says="n=9 sent count="
    ),
    "a wait in the body is unread": Defect(
        changes={', retry_after="errors[].wait"': ""},
        check="refusals_are_what_its_author_says",
        says="retry_after is None, not the 3.5 of its body",
    ),
    "a form's files are in another order": Defect(
        changes={"files=files)": "files=files[::-1])"},
        check="every_parameter_arrives",
        says="pictures=a list is not in the request at 'pictures[]'",
    ),
    "a form is sent as JSON": Defect(
        changes={"files=files)": "files=files, encoding='json')"},
        check="documented_address",
        says="the request is sent as json, documented is form",
    ),
    "a step": Defect(
        changes={"width: int | None = f.integer(256, 1_440, step=32": "width: int | None = f.integer(256, 1_440"},
        check="documented_ones",
        says="width: the class has the step 1, limits has 32",
    ),
    "a mask's area": Defect(
        changes={'mask_area="black"': 'mask_area="white"'},
        check="openais_arguments",
        says="mask: the provider edits the black area, mask_area is white",
    ),
    "a mask without an image": Defect(
        changes={"f.files(1, 5)": "f.files(1, 5, role=None)"},
        check="openais_arguments",
        says="mask has the role 'mask', and no field has the role 'image'",
    ),
    "a prompt that no argument fills": Defect(
        changes={'required=True, role="prompt"': "required=True"},
        check="openais_arguments",
        says="text: no argument of OpenAI's fills it: text(role='prompt')",
    ),
    "width and height of a size are swapped": Defect(
        changes={'native_n=("count", 8)': 'size=SWAPPED, native_n=("count", 8)'}
        | {
            "class Dialect:": "SWAPPED = WidthHeight(width='height', height='width', maximum=1_440, multiple=32)\n\n\n"
            "class Dialect:",
            "Provider, WireRequest": "Provider, WidthHeight, WireRequest",
        },
        check="size_of_openai",
        says="width and height are swapped",
    ),
    "a size that is moved for nothing": Defect(
        changes={'native_n=("count", 8)': 'size=SMALL, native_n=("count", 8)'}
        | {"class Dialect:": "SMALL = WidthHeight(minimum=256, maximum=512, multiple=32)\n\n\nclass Dialect:"}
        | {"Provider, WireRequest": "Provider, WidthHeight, WireRequest"},
        check="size_of_openai",
        says="size=512x768 is not sent as",
    ),
    "only the first files of a list": Defect(
        changes={"files=files)": "files=[*files[:2], *(each for each in files[2:] if each[0] != 'pictures[]')])"},
        check="values_within_a_fields_bounds",
        says="is not in the request at 'pictures[]'",
    ),
    "no size of OpenAI's is taken": Defect(
        changes={'native_n=("count", 8)': 'size=None, native_n=("count", 8)'}
        | {"tile: bool | None": "shape: str | None = f.choice('1:1', '16:9')\n    tile: bool | None"},
        check="size_of_openai",
        says="shape is a size, and Operation.size is None",
    ),
    "a field that has no size": Defect(
        changes={'native_n=("count", 8)': 'size=AspectRatios("shape"), native_n=("count", 8)'}
        | {"tile: bool | None": "shape: str | None = f.choice('small', 'large')\n    tile: bool | None"}
        | {"Provider, WireRequest": "Provider, AspectRatios, WireRequest"},
        check="size_of_openai",
        says="Operation.size names shape, which has no size",
    ),
    "a rule that is missing": Defect(
        changes={FIRST_LINE: 'golden = None\n    along_with = {"mask": {"pictures": [png(8, 9)]}}'},
        check="need_others_are_refused",
        says="mask was accepted without what along_with says that it needs",
    ),
    "the cost of one image of several": Defect(
        changes={"usd=credits / 100": "usd=credits / 100 / len(result.artifacts)"},
        check="several_images",
        says="three images: usd is 0.02, not 0.06",
    ),
}
