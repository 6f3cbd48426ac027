"""A third party's plugin with several images in one JSON answer, and defects that each make one check of it fail."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

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
    return {"finish": "ok", "seed": seed, "b64": base64.b64encode(image).decode()}


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
    reports = {"seed": 7, "finish_reason": "ok", "usd": 0.03, "usage": usage}
    refusals = (
        refusal(400, impasto.BadRequest), refusal(401, impasto.Unauthorized), refusal(402, impasto.PaymentRequired),
        refusal(429, impasto.RateLimited), refusal(500, impasto.ProviderFault),
    )
    scenarios = {
        "three images": Scenario(answers=(images(*IMAGES),), images=IMAGES, reports={"seed": (7, 8, 9)}),
        "one is filtered": Scenario(
            answers=(images(IMAGES[0], None, IMAGES[2]),), images=(IMAGES[0], IMAGES[2]),
            errors={1: impasto.ContentFiltered},
        ),
        "moderated": Scenario(
            answers=(answer(200, {"status": "moderated"}),), error=impasto.ContentFiltered
        ),
    }
"""

FIRST_LINE = "golden = None"
"""The line of the suite that a defect may change."""

_BEGIN, _PACK, _CLASSIFY, _UNPACK = "# BEGIN", "# PACK", "# CLASSIFY", "# UNPACK"
_STATE = "# STATE"
_PRICE = "usd=0.03, as_of"
_IMPORT = "# IMPORT"

DEFECTS: Mapping[str, Defect] = {
    "a proxy's 503 is a refusal": Defect(
        changes={"REFUSALS = {": "REFUSALS = {503: ProviderFault, ", "message = None\n": "message = 'busy'\n"},
        check="no_other_answer_proves",
        says="HTTP 503 (text/html) ended in ProviderFault",
    ),
    "a refusal is another": Defect(
        changes={"402: PaymentRequired": "402: BadRequest"}, check="refusals_are_what_its_author", says="402"
    ),
    "moderation in a 200 is unread": Defect(
        changes={'body.get("status") == "moderated"': "False"},
        check="filtered_image_is_reported",
        says="moderated: it ended in UnusableResult",
    ),
    "a refusal counts as charged": Defect(
        changes={"if kind is RateLimited:": "error.billed = 'yes'\n        if kind is RateLimited:"},
        check="refusals_are_what_its_author",
        says="billed is 'yes', not 'no'",
    ),
    "only the first image": Defect(
        changes={'in body["data"]]': 'in body["data"][:1]]'},
        check="several_images",
        says="three images: 1 of its 3 images came",
    ),
    "the images' order": Defect(
        changes={"tuple(artifacts)": "tuple(reversed(artifacts))"},
        check="several_images",
        says="three images: its 3 images are in another order",
    ),
    "filtered images are dropped": Defect(
        changes={"errors=tuple(errors)": "errors=()"},
        check="filtered_image_is_reported",
        says="one is filtered: its errors are none, not 1: ContentFiltered",
    ),
    "the index of a filtered image": Defect(
        changes={"index=index": "index=len(artifacts) - 1"},
        check="filtered_image_is_reported",
        says="its errors are 0: ContentFiltered",
    ),
    "the key's header": Defect(
        changes={'key_header="x-key"': 'key_header="authorization"'},
        check="the_key_is_where",
        says="header:x-key is nothing is there, not KEY",
    ),
    "the key's form": Defect(
        changes={'key_prefix=""': 'key_prefix="Bearer "'}, check="the_key_is_where", says="header:x-key is Bearer KEY"
    ),
    "the key is in the body too": Defect(
        changes={_PACK: 'fields["key"] = account.headers["x-key"]'},
        check="the_key_is_where",
        says="the key stands in another place of the request too",
    ),
    "a bound": Defect(
        changes={"integer(0, 2**31 - 1)": "integer(0, 2**32 - 1)"},
        check="documented_ones",
        says="seed: the class has 0 to 4294967295, limits has 0 to 2147483647",
    ),
    "a default": Defect(
        changes={'"fine", default="fine"': '"fine", default="draft"'},
        check="documented_ones",
        says="quality: the class has the default 'draft', defaults has 'fine'",
    ),
    "a choice is missing": Defect(
        changes={'choice("draft", "fine"': 'choice("fine"'}, check="documented_ones", says="quality: the class has fine"
    ),
    "a constant": Defect(
        changes={'{"model": "ink-1"}': '{"model": "ink-2"}'},
        check="constants_and_nothing_else",
        says="model is ink-2, not 'ink-1'",
    ),
    "a further constant": Defect(
        changes={_PACK: 'fields["safety"] = False'},
        check="constants_and_nothing_else",
        says="safety=false is neither a parameter of the call nor in constants",
    ),
    "a part's name": Defect(
        changes={'{"image": "init_image"}': '{"image": "image"}'},
        check="every_parameter_arrives",
        says="image=bytes is not in the request at 'init_image'",
    ),
    "mask and image are swapped": Defect(
        changes={'{"image": "init_image"}': '{"image": "mask", "mask": "init_image"}'},
        check="every_parameter_arrives",
        says="is not in the request at 'init_image'",
    ),
    "a number is text": Defect(
        changes={_PACK: 'fields = {n: str(v) if n == "seed" else v for n, v in fields.items()}'},
        check="every_parameter_arrives",
        says="seed=1234567 is not in the request at 'seed' as it was given",
    ),
    "the address": Defect(
        changes={'target="/v1/images"': 'target="/v1/image"'}, check="documented_address", says="not to https://api"
    ),
    "the host": Defect(
        changes={"https://api.acme.example": "https://api.acme.test"},
        check="documented_address",
        says="goes to https://api.acme.test",
    ),
    "the end user is dropped": Defect(
        changes={'{} if request.user is None else {"x-user": request.user}': "{}"},
        check="end_user_is_passed_on",
        says="the end user's id is not at header:x-user",
    ),
    "Retry-After is unread": Defect(
        changes={"if kind is RateLimited:": "if False:"},
        check="retry_after_is_read",
        says="Retry-After: 7 became retry_after=None",
    ),
    "Retry-After as a date breaks it": Defect(
        changes={"retry_after(response.headers)\n": 'float(response.headers.get("retry-after", "1"))\n'},
        check="retry_after_is_read",
        says='became retry_after="ChargeUnknown',
    ),
    "the media type is always the same": Defect(
        changes={"media_type=media_type, seed": 'media_type="image/png", seed'},
        check="media_type_is_that",
        says="the media type of image/jpeg is image/png",
    ),
    "the request id is dropped": Defect(
        changes={"errors=tuple(errors), request_id=response.request_id": "errors=tuple(errors)"},
        check="request_id_is_reported",
        says="HTTP 200 has x-request-id, but request_id is None",
    ),
    "the request id of a refusal is dropped": Defect(
        changes={"status=response.status, request_id=response.request_id)": "status=response.status)"},
        check="request_id_is_reported",
        says="HTTP 400 has x-request-id, but request_id is None",
    ),
    "state is shared between calls": Defect(
        changes={
            _BEGIN: "self.request = request",
            _UNPACK: "request = self.request",
            "artifacts, errors = [], []": "artifacts, errors = [], []\n"
            "        entries = [(f, (s or 0) + (request.params.seed or 0), d) for f, s, d in entries]",
        },
        check="two_calls_at_once",
        says="the plugin shares state",
    ),
    "an answer is cached": Defect(
        changes={_STATE: "answers = {}", _UNPACK: "response = self.answers.setdefault(operation.id, response)"},
        check="two_calls_at_once",
        says="the plugin shares state",
    ),
    "a file is read on the loop": Defect(
        changes={_PACK: "for each in files.values():\n            with each.open() as f: f.read()"},
        check="no_hook_reads_the_disk_or_waits",
        says="it opens a file on the loop's thread",
    ),
    "it sleeps": Defect(
        changes={_IMPORT: "import time", _PACK: "time.sleep(0.001)"},
        check="no_hook_reads_the_disk_or_waits",
        says="it sleeps on the loop's thread",
    ),
    "it looks up a host": Defect(
        changes={_IMPORT: "import socket", _PACK: 'socket.getaddrinfo("localhost", 80)'},
        check="no_hook_reads_the_disk_or_waits",
        says="it looks up a host name on the loop's thread",
    ),
    "a short block": Defect(
        changes={
            _IMPORT: "import time",
            _PACK: "until = time.monotonic() + 0.05\n        while time.monotonic() < until: pass",
        },
        check="the_loop_is_not_blocked",
        says="each call blocks the loop for",
    ),
    "a file stays open": Defect(
        changes={_STATE: "open_files = []", _PACK: "self.open_files += [each.open() for each in files.values()]"},
        check="leaves_nothing_behind",
        says="a file is still open after the call",
    ),
    "a thread is left": Defect(
        changes={
            _IMPORT: "import threading, time",
            _PACK: "threading.Thread(target=time.sleep, args=(3,), daemon=True).start()",
        },
        check="leaves_nothing_behind",
        says="it left threads",
    ),
    "a constant is changed": Defect(
        changes={_PACK: 'request.constants["count"] = fields["count"] = request.constants.get("count", 0) + 1'},
        check="equal_calls_send_equal_requests",
        says="a second equal call, a day later, sent another request than the first",
    ),
    "the time is sent": Defect(
        changes={_IMPORT: "import time", _PACK: 'fields["at"] = int(time.time() / 1000)'},
        check="equal_calls_send_equal_requests",
        says="a second equal call, a day later, sent another request than the first",
    ),
    "it prints": Defect(
        changes={_PACK: 'print("sending")'},
        check="nothing_of_the_process_changes",
        says="it wrote to standard output: 'sending",
    ),
    "a logger is changed": Defect(
        changes={_IMPORT: "import logging", _PACK: 'logging.getLogger("impasto").setLevel("ERROR")'},
        check="nothing_of_the_process_changes",
        says="a call changed the process's logger 'impasto'",
    ),
    "another key is read": Defect(
        changes={_IMPORT: "import os", _PACK: 'os.environ.get("OTHER_API_KEY")'},
        check="no_key_is_read",
        says="a call reads OTHER_API_KEY",
    ),
    "n is left to the provider's default": Defect(
        changes={'native_n=("n", 4), ': ""}, check="n_images_are_requested", says="the operation has native_n=None"
    ),
    "n is not sent": Defect(
        changes={_PACK: 'fields.pop("n", None)'}, check="n_images_are_requested", says="n=5 sent n="
    ),
    "the seed is dropped": Defect(
        changes={"seed=seed, finish": "finish"}, check="reports_what_the_answer_says", says="seed is None, not 7"
    ),
    "the finish reason is dropped": Defect(
        changes={", finish_reason=finish": ""},
        check="reports_what_the_answer_says",
        says="finish_reason is None, not 'ok'",
    ),
    "the usage is dropped": Defect(
        changes={"request_id=response.request_id, usage=usage": "request_id=response.request_id"},
        check="reports_what_the_answer_says",
        says="usage is None, not Usage(",
    ),
    "tokens in and out are swapped": Defect(
        changes={'count["in"], output_tokens=count["out"]': 'count["out"], output_tokens=count["in"]'},
        check="reports_what_the_answer_says",
        says="usage is Usage(",
    ),
    "the price": Defect(
        changes={_PRICE: "usd=0.3, as_of"}, check="reports_what_the_answer_says", says="usd is 0.3, not 0.03"
    ),
    "the order of keys matters": Defect(
        changes={'(e["finish"], e.get': "(list(e.values())[0], e.get"},
        check="same_in_every_form",
        says="JSON with its keys in another order",
    ),
    "a hook waits for ever": Defect(
        changes={
            _IMPORT: "import threading",
            _UNPACK: "threading.Event().wait()",
            "golden = None": "golden = None\n    seconds = 1.0",
        },
        check="a_good_answer_is_a_result",
        says="this check did not end within",
    ),
}
