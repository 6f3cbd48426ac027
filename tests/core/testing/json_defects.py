"""Defects of the JSON plugin that each make one check of its suite fail."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

FIRST_LINE = "golden = None"
"""The line of the suite that a defect may change."""

_PACK, _CLASSIFY, _UNPACK = "# PACK", "# CLASSIFY", "# UNPACK"
_STATE = "# STATE"
_PRICE = "usd=0.03, as_of"
_IMPORT = "# IMPORT"

DEFECTS: Mapping[str, Defect] = {
    "a model that does not stream asks for a stream": Defect(
        changes={
            _PACK: "fields |= {'stream': True} if request.stream else {}",
            _UNPACK: "pass\n    def normalize_event(self, operation, request, event):\n        return None\n"
            "    def normalize_response(self, operation, request, response):",
        },
        check="without_partial_images_streams_its_result",
        says="client.stream sends another request, although no stream is declared",
    ),
    "the seed of the request": Defect(
        changes={"seed=seed, finish": "seed=request.params.seed or seed, finish"},
        check="reports_what_the_answer_says",
        says="success of a call with a seed, whose answer has another: seed is 1234567, not 7",
    ),
    "the usage is always the same": Defect(
        changes={"usage = Usage(": "usage = Usage(input_tokens=11, output_tokens=22) if count else None and Usage("},
        check="reports_what_the_answer_says",
        says="success with twice the usage: usage is Usage(input_tokens=11",
    ),
    "a rule names no field": Defect(
        changes={
            "native_n=(": 'rules=(Needs("masc", ("image",)),), native_n=(',
            _IMPORT: "from impasto.rules import Needs",
        },
        check="its_hooks_are_as_they_are_specified",
        says="masc",
    ),
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
        says="one is filtered: its errors are 2: UnusableResult, not 1: ContentFiltered",
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
        says="success: the answer has x-request-id, but request_id of the Result is None",
    ),
    "the request id of a refusal is dropped": Defect(
        changes={"status=response.status, request_id=response.request_id)": "status=response.status)"},
        check="request_id_is_reported",
        says="the refusal HTTP 400: the answer has x-request-id, but request_id of the",
    ),
    "a short block": Defect(
        changes={
            _IMPORT: "import time",
            _PACK: "until = time.thread_time() + 0.05\n        while time.thread_time() < until: pass",
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
        says="finish_reason is None, not 'ok-7'",
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
    "a constant changes beside other fields": Defect(
        changes={_PACK: 'if len(fields) > 4: fields["model"] = "ink-2"'},
        check="constants_and_nothing_else",
        says="model is ink-2, not 'ink-1'",
    ),
    "a constant changes at a limit": Defect(
        changes={_PACK: 'if len(fields["prompt"]) > 3_000: fields["model"] = "ink-2"'},
        check="values_within_a_fields_bounds",
        says="model is ink-2, not 'ink-1'",
    ),
    "mask and image are swapped if both are there": Defect(
        changes={_PACK: "if len(files) == 2: files = dict(zip(files, [*files.values()][::-1]))"},
        check="every_parameter_arrives",
        says="image=bytes is not in the request at 'init_image'",
    ),
    "a prompt in a header": Defect(
        changes={_PACK: 'headers["x-prompt"] = fields["prompt"]'},
        check="values_within_a_fields_bounds",
        says="was not accepted: BrokenPlugin",
    ),
    "the media type of WebP": Defect(
        changes={"media_type=media_type, seed": 'media_type=media_type.replace("webp", "png"), seed'},
        check="media_type_is_that",
        says="the media type of image/webp is image/png",
    ),
    "the media type of the first image": Defect(
        changes={
            "media_type=media_type, seed": "media_type=artifacts[0].media_type if artifacts else media_type, seed"
        },
        check="media_type_is_that",
        says="three images: images of image/png, image/jpeg, image/webp have image/png, image/png, image/png",
    ),
    "base64 is decoded with its prefix": Defect(
        changes={
            ", validate=True": "",
            "media_type = media_type_of(data)": 'media_type = "image/png"',
            "not is_complete(data, media_type)": "not data",
        },
        check="base64_is_decoded_strictly",
        says="base64 with a data: prefix ended in it returned a Result",
    ),
    "the seeds' order": Defect(
        changes={"seed=seed, finish": "seed=entries[-1 - index][1], finish"},
        check="several_images",
        says="seed is (9, 8, 7), not (7, 8, 9)",
    ),
    "the finish reasons' order": Defect(
        changes={"finish_reason=finish": "finish_reason=entries[-1 - index][0]"},
        check="several_images",
        says="finish_reason is ('ok-9', 'ok-8', 'ok-7')",
    ),
    "moderation in a 200 is perhaps charged": Defect(
        changes={'ContentFiltered("moderated",': 'ContentFiltered("moderated", billed="unknown",'},
        check="filtered_image_is_reported",
        says="moderated: billed is 'unknown', not 'no'",
    ),
    "the request id of moderation is dropped": Defect(
        changes={'"moderated", status=200, request_id=response.request_id': '"moderated", status=200'},
        check="request_id_is_reported",
        says="the scenario 'moderated': the answer has x-request-id, but request_id of the ContentFiltered is None",
    ),
    "a file is read for a refusal": Defect(
        changes={_CLASSIFY: "if response.status == 402: open(__file__).close()"},
        check="no_hook_reads_the_disk_or_waits",
        says="it opens a file on the loop's thread",
    ),
    "a short block for a refusal": Defect(
        changes={
            _IMPORT: "import time",
            _CLASSIFY: "until = time.thread_time() + (response.status != 200) * 0.05\n"
            "        while time.thread_time() < until: pass",
        },
        check="the_loop_is_not_blocked",
        says="each call blocks the loop for",
    ),
    "Retry-After in milliseconds": Defect(
        changes={"retry_after(response.headers)\n": "(retry_after(response.headers) or 0) / 1_000\n"},
        check="retry_after_is_read",
        says="Retry-After: 7 became retry_after=0.007",
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
    "a prompt has a pattern": Defect(
        changes={"text(1, 4_000, ": 'text(1, 4_000, pattern="[ -~]+", '},
        check="values_within_a_fields_bounds",
        says="was not accepted: InvalidRequest",
    ),
    "nothing is required": Defect(
        changes={"prompt: str = text(1, 4_000, required=True": "prompt: str | None = text(1, 4_000"},
        check="required_parameters",
        says="a call without any parameter was not refused",
    ),
    "a paid answer without an image was not billed": Defect(
        changes={
            "raise self.unusable(response) from None": "error = self.unusable(response)\n"
            "            error.billed = 'no'\n"
            "            raise error from None"
        },
        check="paid_answer_without_a_result",
        says="a paid answer was billed, whatever it holds",
    ),
    "images are encoded again": Defect(
        changes={
            _IMPORT: "import io\nfrom PIL import Image",
            "artifacts.append(Artifact(data=data": "out = io.BytesIO()\n"
            "                Image.open(io.BytesIO(data)).save(out, 'WEBP', lossless=True)\n"
            "                artifacts.append(Artifact(data=out.getvalue()",
        },
        check="a_good_answer_is_a_result",
        says="the artifact's bytes are not those of the answer",
    ),
    "the usage of several images": Defect(
        changes={'output_tokens=count["out"]': 'output_tokens=count["out"] // len(entries)'},
        check="several_images",
        says="three images: usage is Usage(input_tokens=11, output_tokens=7",
    ),
}
