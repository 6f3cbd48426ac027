"""A third party's plugin that passes its suite, and defects that each make one check of it fail."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

MODEL = "acme/watercolour"

SOUND = '''
import base64
import json, time
import attrs
from impasto import (
    Artifact, BadRequest, ChargeUnknown, File, Operation, Provider, RateLimited, Result, Unauthorized, UnusableResult,
    WireRequest, hookimpl,
)
from impasto.ext import retry_after
from impasto.fields import choice, file, integer, text, texts

acme = Provider(
    name="acme", base_url="https://api.acme.example", key_variable="ACME_API_KEY", transport="acme-https"
)
REFUSALS = {400: BadRequest, 401: Unauthorized, 429: RateLimited}


@attrs.frozen(kw_only=True)
class Params:
    """What it takes."""

    prompt: str = text(1, 2_000, required=True, role="prompt")
    seed: int | None = integer(0, 2**32 - 1)
    paper: str | None = choice("rough", "smooth", default="smooth")
    sketch: File | None = file()
    codes: tuple[str, ...] | None = texts(4)


class Dialect:
    """How Acme spells it."""

    def transform_request(self, operation, request, account):
        given = attrs.asdict(request.params, recurse=False, filter=lambda _, value: value is not None)
        files = {name: value for name, value in given.items() if isinstance(value, File)}
        fields = {name: value for name, value in given.items() if name not in files}
        fields["codes[]"] = fields.pop("codes", ())
        # PACK
        return WireRequest(target=request.target, fields=fields, files=[*files.items()])

    def classify_error(self, operation, response):
        if response.status == 200 and response.media_type == "image/png":
            return None
        try:
            code = json.loads(response.body)["error"]["code"]
        except (ValueError, LookupError, TypeError):
            code = None
        if response.status in REFUSALS and code is not None:
            error = REFUSALS[response.status](f"{code}", status=response.status, request_id=response.request_id)
            error.retry_after = retry_after(response.headers)
            return error
        # CLASSIFY
        return ChargeUnknown(f"HTTP {response.status}", status=response.status, raw=response.body)

    def normalize_response(self, operation, request, response):
        if not (response.body.startswith(b"\\x89PNG") and response.body.endswith(b"IEND\\xaeB`\\x82")):
            raise UnusableResult("no whole picture", raw=response.body, media_type=response.media_type)
        artifact = Artifact(data=response.body, media_type=response.media_type)
        return Result(artifacts=(artifact,), request_id=response.request_id)


@attrs.frozen(kw_only=True, eq=False)
class Watercolour(Operation):
    """The plugin."""

    # HOOKS


watercolour = Watercolour(
    id="acme/watercolour", title="Watercolour", params=Params, target="/v1/paint", provider=acme, dialect=Dialect()
)
'''

CARRIER = '''
import asyncio, logging
from impasto import ChargeUnknown, hookimpl
from impasto_plugins.transports.https import HttpsTransport


class Carrier(HttpsTransport):
    """Acme's transport."""

    @hookimpl
    async def send(self, wire):
        # SEND
        return await super().send(wire)
'''

OIL = "oil = 1\n"

SUITE = """
import base64
import json
import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements
from tests.images import png

SAID = {"content-type": "application/json"}


def refusal(status, error):
    body = json.dumps({"error": {"code": "no"}}).encode()
    return Refusal(answer=Answer(status=status, headers=SAID, body=body), error=error)


class TestWatercolour(OperationSuite):
    model = "acme/watercolour"
    minimal = {"prompt": "a lighthouse"}
    others = {"seed": 7_654_321, "paper": "rough", "sketch": png(8, 8), "codes": ["a", "b"]}
    names = {"codes": "codes[]"}
    endpoint = "https://api.acme.example/v1/paint"
    auth = {"header:authorization": f"Bearer {KEY}"}
    limits = {"prompt": (1, 2_000), "seed": (0, 2**32 - 1), "codes": (1, 4)}
    choices = {"paper": ("rough", "smooth")}
    defaults = {"paper": "smooth"}
    reports = {}
    requirements = Requirements(filters=False, several_images=False)
    media_types = ("image/png",)
    success = Answer(headers={"content-type": "image/png"}, body=png(64, 64))
    refusals = (
        refusal(400, impasto.BadRequest), refusal(401, impasto.Unauthorized), refusal(429, impasto.RateLimited)
    )
"""


@attrs.frozen(kw_only=True)
class Defect:
    """What is changed of the sound plugin, the check that must fail, and words of what it says."""

    changes: Mapping[str, str]
    check: str
    says: str

    def made_in(self, source: str) -> str:
        """A module's source with the defect, where it belongs there."""
        for before, after in self.changes.items():
            source = source.replace(before, after)
        compile(source, "a plugin's module", "exec")
        return source


_PACK, _CLASSIFY, _SEND, _HOOKS = "# PACK", "# CLASSIFY", "# SEND", "# HOOKS"
_UNPACK = "def normalize_response(self, operation, request, response):"
_OWN = "return await super().send(wire)"

DEFECTS: Mapping[str, Defect] = {
    "a parameter is dropped": Defect(
        changes={_PACK: 'fields.pop("paper", None)'},
        check="every_parameter_arrives",
        says="paper='rough' is not in the request at 'paper'",
    ),
    "a list loses all but its first value": Defect(
        changes={_PACK: 'fields["codes[]"] = fields["codes[]"][:1]'},
        check="every_parameter_arrives",
        says="codes=a list is not in the request at 'codes[]' as it was given",
    ),
    "a file is dropped": Defect(
        changes={_PACK: "files = {}"},
        check="every_parameter_arrives",
        says="sketch=bytes is not in the request",
    ),
    "a value is changed": Defect(
        changes={_PACK: 'fields["seed"] = fields.get("seed", 0) % 1000'},
        check="every_parameter_arrives",
        says="seed=7654321 is not in the request",
    ),
    "text is cut": Defect(
        changes={_PACK: 'fields["prompt"] = fields["prompt"][:1000]'},
        check="values_within_a_fields_bounds_arrive",
        says="prompt=",
    ),
    "text is tidied": Defect(
        changes={_PACK: 'fields["prompt"] = " ".join(fields["prompt"].split())'},
        check="values_within_a_fields_bounds_arrive",
        says="prompt=",
    ),
    "a default is sent": Defect(
        changes={_PACK: 'fields.setdefault("paper", "smooth")'},
        check="constants_and_nothing_else",
        says="paper=smooth is neither a parameter of the call nor in constants",
    ),
    "a type is not checked": Defect(
        changes={"seed: int | None = integer(0, 2**32 - 1)": "seed: object = None"},
        check="values_beyond_a_fields_bounds",
        says="seed=object was not refused by InvalidRequest",
    ),
    "any 401 counts as a refusal": Defect(
        changes={_CLASSIFY: 'if response.status == 401: return Unauthorized("no", status=401)'},
        check="no_other_answer_proves",
        says="HTTP 401 (text/html) ended in Unauthorized (billed 'no')",
    ),
    "any 503 may be tried again": Defect(
        changes={
            _CLASSIFY: 'from impasto import NotSent\n        if response.status == 503: return NotSent("busy")',
        },
        check="no_other_answer_proves",
        says="HTTP 503 (text/html): classify_error returned NotSent, not an ImpastoError for an answer",
    ),
    "a refusal is called something else": Defect(
        changes={"429: RateLimited": "429: BadRequest"},
        check="the_providers_refusals",
        says="ended in BadRequest (billed 'no'): acme/watercolour: no, not RateLimited",
    ),
    "any 200 is a picture": Defect(
        changes={'response.status == 200 and response.media_type == "image/png"': "response.status == 200"},
        check="no_other_answer_proves",
        says="HTTP 200 (text/html) ended in UnusableResult (billed 'yes')",
    ),
    "a cut picture is a result": Defect(
        changes={' and response.body.endswith(b"IEND\\xaeB`\\x82")': ""},
        check="a_paid_answer_without_a_result_is_kept",
        says="half a good answer ended in a Result, not UnusableResult",
    ),
    "a cut picture within a whole answer is a result": Defect(
        changes={
            'Answer(headers={"content-type": "image/png"}, body=png(64, 64))': "Answer(headers=SAID, body=json.dumps("
            '{"image": base64.b64encode(png(64, 64)).decode()}).encode())',
            'response.media_type == "image/png"': 'response.media_type == "application/json"',
            _UNPACK: f"{_UNPACK}\n"
            '        try: data = base64.b64decode(json.loads(response.body)["image"])\n'
            "        except (ValueError, LookupError, TypeError, RecursionError):\n"
            '            raise UnusableResult("no picture", raw=response.body) from None\n'
            '        return Result(artifacts=(Artifact(data=data, media_type="image/png"),))',
        },
        check="a_paid_answer_without_a_result_is_kept",
        says="a whole answer with half of its image/png ended in a Result, not UnusableResult",
    ),
    "a made-up job id becomes a path": Defect(
        changes={_PACK: 'if request.job: return WireRequest(target=f"/v1/jobs/{request.job}", method="GET")'},
        check="a_made_up_job_id_sends_nothing",
        says="client.resume of '../account' requested /v1/",
    ),
    "what was paid for is thrown away": Defect(
        changes={"raw=response.body, media_type": "media_type"},
        check="a_paid_answer_without_a_result_is_kept",
        says="are not in .raw",
    ),
    "the loop is blocked": Defect(
        changes={_PACK: "until = time.thread_time() + 0.1\n        while time.thread_time() < until: pass"},
        check="the_loop_is_not_blocked",
        says="while time.thread_time() < until: pass",
    ),
    "it tries again by itself": Defect(
        changes={_SEND: "await super().send(wire); wire.call._may_post = True"},
        check="a_good_answer_is_a_result",
        says="one call made 2 paid requests",
    ),
    "a cancellation is swallowed": Defect(
        changes={
            _OWN: "try:\n            return await super().send(wire)\n        except asyncio.CancelledError:\n"
            '            raise ChargeUnknown("cancelled") from None'
        },
        check="cancelled_at_every_await",
        says="it ended in ChargeUnknown",
    ),
    "a task is left behind": Defect(
        changes={_SEND: "asyncio.get_running_loop().tasks = [asyncio.ensure_future(asyncio.sleep(60))]"},
        check="cancelled_at_every_await",
        says="it left tasks",
    ),
    "the key is logged": Defect(
        changes={_SEND: 'logging.getLogger("impasto.acme").debug("sending %s", dict(wire.call.account.headers))'},
        check="no_message_and_no_log_holds_the_key",
        says="the key is in",
    ),
    "the key is in an error": Defect(
        changes={_SEND: 'raise ChargeUnknown("x") from ValueError(str(dict(wire.call.account.headers)))'},
        check="no_message_and_no_log_holds_the_key",
        says="the key is in",
    ),
    "a hook is misspelt": Defect(
        changes={_HOOKS: "@hookimpl\n    def transform_requests(self, request):\n        return None"},
        check="its_hooks_are_as_they_are_specified",
        says="unknown hook transform_requests",
    ),
    "a hook is not marked": Defect(
        changes={_HOOKS: "def classify_error(self, request, response):\n        return None"},
        check="its_hooks_are_as_they_are_specified",
        says="classify_error has no @impasto.hookimpl",
    ),
    "a hook's arguments are keyword-only": Defect(
        changes={_HOOKS: "@hookimpl\n    def classify_error(self, *, response):\n        return None"},
        check="its_hooks_are_as_they_are_specified",
        says="classify_error: keyword-only arguments are never passed to a hook: response",
    ),
    "send is wrapped": Defect(
        changes={_HOOKS: "@hookimpl(wrapper=True)\n    def send(self, wire):\n        return (yield)"},
        check="its_hooks_are_as_they_are_specified",
        says="send must not be wrapped",
    ),
    "another model is imported too": Defect(
        changes={"import json, time": "import acme_watercolour.oil\nimport json, time"},
        check="its_first_use_no_other_model",
        says="the first use of acme/watercolour imported other models: ['acme_watercolour.oil']",
    ),
    "something heavy is imported": Defect(
        changes={"import json, time": "import PIL.Image\nimport json, time"},
        check="its_first_use_no_other_model",
        says="imports PIL",
    ),
}
