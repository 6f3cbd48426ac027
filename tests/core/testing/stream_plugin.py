"""A third party's plugin that streams partial images, and defects of it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

MODEL = "acme/wash"

SOUND = """
import base64, json
import attrs
from impasto import (
    Artifact, ChargeUnknown, Operation, Partial, Provider, ProviderFault, RateLimited, Result, UnusableResult,
    Usage, WireRequest,
)
from impasto.ext import retry_after
from impasto.fields import text
from impasto_plugins.images.completeness import is_complete

acme = Provider(
    name="acme", base_url="https://api.acme.example", key_variable="ACME_KEY", key_header="x-key", key_prefix=""
)


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 1_000, required=True, role="prompt")


class Dialect:
    def transform_request(self, operation, request, account):
        fields = {"prompt": request.params.prompt}
        if request.stream:
            fields["stream"] = True
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation, response):
        if response.status == 200 and response.media_type in ("application/json", "text/event-stream"):
            return None
        try:
            message = json.loads(response.body)["error"]
        except (ValueError, LookupError, TypeError, RecursionError):
            message = None
        if response.status == 429 and isinstance(message, str):
            error = RateLimited(message, status=429, request_id=response.request_id)
            error.retry_after = retry_after(response.headers)
            return error
        return ChargeUnknown(f"HTTP {response.status}", status=response.status, raw=response.body)

    def normalize_response(self, operation, request, response):
        try:
            return self.result(json.loads(response.body), response.request_id)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise UnusableResult("no image", raw=response.body, media_type=response.media_type) from None

    def normalize_event(self, operation, request, event):
        body = json.loads(event.data)
        if event.event == "error":
            raise ProviderFault("it failed", billed="unknown")
        if event.event == "partial":
            return Partial(self.result(body).artifacts[0], body["index"])
        return self.result(body) if event.event == "done" else None

    def result(self, body, request_id=None):
        count = body.get("usage")
        usage = None if count is None else Usage(input_tokens=count["in"], output_tokens=count["out"])
        data = base64.b64decode(body["b64"], validate=True)
        if not is_complete(data, "image/png"):
            raise ValueError("no image")
        return Result(artifacts=(Artifact(data=data, media_type="image/png"),), request_id=request_id, usage=usage)


wash = Operation(
    id="acme/wash", title="Wash", params=Params, target="/v1/images", provider=acme, dialect=Dialect(),
)
"""

SUITE = """
import base64, json
import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Stream
from tests.images import png

ROUGH, FINER, DONE = (png(8, side) for side in (8, 16, 24))


def answer(status, **body):
    return Answer(status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


def event(name, image=None, **body):
    body |= {} if image is None else {"b64": base64.b64encode(image).decode()}
    return f"event: {name}\\ndata: {json.dumps(body)}\\n\\n"


def events(*several):
    return Answer(headers={"content-type": "text/event-stream"}, body="".join(several).encode())


USAGE = {"in": 11, "out": 22}
PARTIALS = event("partial", ROUGH, index=0), event("partial", FINER, index=1)


class TestWash(OperationSuite):
    model = "acme/wash"
    golden = None
    entrances = False
    minimal = {"prompt": "a lighthouse"}
    endpoint = "https://api.acme.example/v1/images"
    auth = {"header:x-key": KEY}
    limits = {"prompt": (1, 1_000)}
    success = answer(200, b64=base64.b64encode(DONE).decode(), usage=USAGE)
    media_types = ("image/png",)
    reports = {"usage": impasto.Usage(input_tokens=11, output_tokens=22)}
    requirements = Requirements(several_images=False, filters=False)
    refusals = (Refusal(answer=answer(429, error="no"), error=impasto.RateLimited),)
    stream = Stream(
        answer=events(event("begin"), *PARTIALS, event("done", DONE, usage=USAGE)),
        sends={"stream": True},
        partials=((0, ROUGH), (1, FINER)),
        images=(DONE,),
        failures=(
            Refusal(answer=events(PARTIALS[0], event("error")), error=impasto.ProviderFault, billed="unknown"),
        ),
    )
"""

_PARTIAL = 'return Partial(self.result(body).artifacts[0], body["index"])'

DEFECTS: Mapping[str, Defect] = {
    "an event waits": Defect(
        changes={"body = json.loads(event.data)": "import time; time.sleep(0.001); body = json.loads(event.data)"},
        check="no_hook_reads_the_disk_or_waits",
        says="it sleeps on the loop's thread",
    ),
    "an event blocks": Defect(
        changes={
            "body = json.loads(event.data)": "import time; until = time.thread_time() + 0.02\n"
            "        while time.thread_time() < until: pass\n        body = json.loads(event.data)"
        },
        check="the_loop_is_not_blocked",
        says="each call blocks the loop for",
    ),
    "a stream's partials are dropped": Defect(
        changes={_PARTIAL: "return None"},
        check="partial_images_and_its_result",
        says="0 partial images came, not the 2",
    ),
    "a stream's last partial is its result": Defect(
        changes={_PARTIAL: "return self.result(body)"},
        check="breaks_off_has_no_result",
        says="a stream that ends after 2 events ended in it returned a Result",
    ),
    "an index of a stream": Defect(
        changes={'body["index"])': "0)"},
        check="partial_images_and_its_result",
        says="the partial images have the indices [0, 0], not [0, 1]",
    ),
    "an error of a stream is ignored": Defect(
        changes={'event.event == "error"': "False"},
        check="an_error_in_a_stream",
        says="ended in ChargeUnknown",
    ),
    "an error of a stream says that nothing was charged": Defect(
        changes={', billed="unknown")': ")"}, check="an_error_in_a_stream", says="billed is 'no', not 'unknown'"
    ),
    "a stream that nobody asked for": Defect(
        changes={"if request.stream:": "if True:"},
        check="constants_and_nothing_else",
        says="stream=true is neither a parameter of the call nor in constants",
    ),
    "a stream is not asked for": Defect(
        changes={"if request.stream:": "if False:"},
        check="partial_images_and_its_result",
        says="a request for a stream has nothing is there at stream",
    ),
    "a stream's result is its first image": Defect(
        changes={'event.event == "partial"': "False", 'if event.event == "done"': 'if "b64" in body'},
        check="breaks_off_has_no_result",
        says="a stream that ends after 2 events",
    ),
    "a damaged image of a stream": Defect(
        changes={"not is_complete(data, ": "data == b'' and not is_complete(data, "},
        check="damaged_image_of_a_stream",
        says="a stream with half of its last image ended in it returned a Result",
    ),
    "the usage of a stream is dropped": Defect(
        changes={
            "return self.result(body) if event.event": "body.pop('usage', 0); return self.result(body) if event.event"
        },
        check="partial_images_and_its_result",
        says="the result of the stream: usage is None, not Usage(",
    ),
    "streams share their indices": Defect(
        changes={
            'if event.event == "partial":': 'self.seen = getattr(self, "seen", -1) + (event.event == "partial")\n'
            '        if event.event == "partial":',
            'body["index"])': "self.seen)",
        },
        check="partial_images_and_its_result",
        says="a second stream with equal events has other partial images",
    ),
}
