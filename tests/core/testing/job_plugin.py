"""A third party's plugin with jobs, polls on another host and a signed download, and defects of it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

MODEL = "acme/oil"

SOUND = """
import json, re
import attrs
from impasto import (
    Artifact, ChargeUnknown, ContentFiltered, InvalidRequest, JobFailed, NotFound, Operation, Pending, Problem,
    Provider, RateLimited, Result, Unauthorized, UnusableResult, WireRequest,
)
from impasto.ext import media_type_of, retry_after
from impasto.fields import integer, text
from impasto_plugins.images.completeness import is_complete
# IMPORT

acme = Provider(
    name="acme", base_url="https://api.acme.example", key_variable="ACME_KEY", key_query="key",
    hosts=("*.acme.example",), poll_interval=2.0,
)
REFUSALS = {401: Unauthorized, 403: ContentFiltered, 404: NotFound, 429: RateLimited}
failure = JobFailed
JOB = re.compile("[0-9a-f]{64}")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 1_000, required=True, role="prompt")
    seed: int | None = integer(0, 2**31 - 1)


class Dialect:
    # STATE
    def transform_request(self, operation, request, account):
        if request.job is not None:
            if JOB.fullmatch(request.job) is None:
                raise InvalidRequest([Problem("id", "must be 64 digits")])
            return WireRequest(target=f"/v1/jobs/{request.job}", method="GET")
        fields = attrs.asdict(request.params, filter=lambda _, value: value is not None)
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation, response):
        # CLASSIFY
        if response.status == 200 and response.media_type in ("application/json", "image/png"):
            return None
        try:
            message = json.loads(response.body)["error"]
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
        if response.media_type == "image/png":
            if not is_complete(response.body, "image/png"):
                raise UnusableResult("no image", raw=response.body, media_type=response.media_type)
            artifact = Artifact(data=response.body, media_type="image/png")
            return Result(artifacts=(artifact,), request_id=response.request_id)
        try:
            body = json.loads(response.body)
            state, job = body["state"], body["id"]
            # STATES
            if state == "failed":
                raise failure("failed", status=200, request_id=response.request_id)
            if JOB.fullmatch(job) is None:
                raise ValueError(job)
            if state == "done":
                signed = WireRequest(target="", url=body["image"], method="GET", anonymous=True)
                return Pending(id=job, poll=signed, result_ttl=600.0, is_ready=True)
            poll = WireRequest(target="", url=body["poll"], method="GET")
            stop = WireRequest(target=f"/v1/jobs/{job}/cancel", method="PUT")
            return Pending(id=job, poll=poll, cancel=stop)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise UnusableResult("no job", raw=response.body, media_type=response.media_type) from None


oil = Operation(
    id="acme/oil", title="Oil", params=Params, target="/v1/jobs", provider=acme, dialect=Dialect(),
)
"""

SUITE = """
import json
import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Scenario
from tests.images import png


def answer(status, **body):
    return Answer(status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


def refusal(status, error):
    return Refusal(answer=answer(status, error="no"), error=error)


RUNNING = answer(200, state="running", id="{job}", poll="{other_url}/v1/jobs/{job}")
DONE = answer(200, state="done", id="{job}", image="{signed_url}/{job}.png?signature=1")


class TestOil(OperationSuite):
    model = "acme/oil"
    golden = None
    entrances = False
    minimal = {"prompt": "a lighthouse"}
    others = {"seed": 1_234_567}
    endpoint = "https://api.acme.example/v1/jobs"
    auth = {"query:key": KEY}
    hosts = ("*.acme.example",)
    limits = {"prompt": (1, 1_000), "seed": (0, 2**31 - 1)}
    job_accepted = RUNNING
    polls = (RUNNING, DONE)
    success = Answer(headers={"content-type": "image/png"}, body=png(8, 8))
    media_types = ("image/png",)
    reports = {}
    poll_request = "GET /v1/jobs/{job}"
    poll_interval = 2.0
    result_ttl = 600.0
    cancel = "PUT /v1/jobs/{job}/cancel"
    refusals = (
        refusal(401, impasto.Unauthorized), refusal(403, impasto.ContentFiltered), refusal(404, impasto.NotFound),
        refusal(429, impasto.RateLimited),
    )
    scenarios = {
        "failed": Scenario(
            answers=(RUNNING, RUNNING, answer(200, state="failed", id="{job}")), error=impasto.JobFailed
        ),
    }
"""

FIRST_LINE = "golden = None"
"""The line of the suite that a defect may change."""

_IMPORT, _CLASSIFY, _STATES = "# IMPORT", "# CLASSIFY", "# STATES"
_POLL = "return Pending(id=job, poll=poll, cancel=stop)"

DEFECTS: Mapping[str, Defect] = {
    "the first job's id again": Defect(
        changes={
            "# STATE\n": "first = None\n",
            _POLL: "self.first = self.first or job\n            return Pending(id=self.first, poll=poll, cancel=stop)",
        },
        check="the_id_of_a_job",
        says="is not in the answer that accepted the job",
    ),
    "polls go to the provider's own host": Defect(
        changes={'WireRequest(target="", url=body["poll"]': 'WireRequest(target=f"/v1/jobs/{job}"'},
        check="polls_are_gets",
        says="is no address of the answers",
    ),
    "a resumed poll lacks the key": Defect(
        changes={
            'return WireRequest(target=f"/v1/jobs/{request.job}", method="GET")': "return WireRequest("
            'url=f"{account.base_url}/v1/jobs/{request.job}", method="GET", anonymous=True)'
        },
        check="resumed_at_its_address",
        says=" of client.resume: query:key is nothing is there",
    ),
    "an interval of later polls": Defect(
        changes={
            _POLL: "return Pending(id=job, poll=poll, cancel=stop, interval=2.0 if request.job is None and "
            "not self.__dict__.setdefault('seen', []) and not self.seen.append(1) else 30.0)"
        },
        check="documented_interval",
        says="polls come every 30 s; documented are 2 s",
    ),
    "a state that is not understood": Defect(
        changes={'state == "done"': 'state == "finished"'},
        check="a_good_answer_is_a_result",
        says="an answer of job_accepted, polls, success or downloads is not understood: UnusableResult",
    ),
    "an invented job id": Defect(
        changes={_IMPORT: "import secrets", _POLL: "return Pending(id=secrets.token_hex(32), poll=poll, cancel=stop)"},
        check="the_id_of_a_job",
        says="is not in the answer that accepted the job",
    ),
    "a job is resumed elsewhere": Defect(
        changes={'target=f"/v1/jobs/{request.job}"': 'target=f"/v1/job/{request.job}"'},
        check="resumed_at_its_address",
        says="client.resume requests GET /v1/job/",
    ),
    "an id is not checked": Defect(
        changes={"JOB.fullmatch(request.job) is None": "False"}, check="made_up_job_id", says="'../account' requested"
    ),
    "polls without end": Defect(
        changes={'state == "done"': "False", 'body["poll"]': "body.get('poll') or str(self.poll)"}
        | {"# STATE\n": "poll = 'http://127.0.0.1:9/'\n"}
        | {FIRST_LINE: f"{FIRST_LINE}\n    seconds = 3.0"},
        check="a_good_answer_is_a_result",
        says="was cancelled; it may have been charged, after 3 requests for its job",
    ),
    "an image is taken for a job that runs": Defect(
        changes={
            'if response.media_type == "image/png":': 'if response.media_type == "image/png":\n'
            '            return Pending(id="0" * 64)\n        if False:'
        }
        | {FIRST_LINE: f"{FIRST_LINE}\n    seconds = 1.0"},
        check="media_type_is_that_of_the_image",
        says=".png, answered with HTTP 200, image/png, 68 bytes\nnormalize_response took the answer for job '000",
    ),
    "a failed job is polled on": Defect(
        changes={'state == "failed"': "False", 'body["poll"]': 'body.get("poll", "http://127.0.0.1:9/")'}
        | {FIRST_LINE: f"{FIRST_LINE}\n    seconds = 3.0"},
        check="a_failed_job_ends_the_polling",
        says="failed: it ended in ChargeUnknown",
    ),
    "a failed job is another error": Defect(
        changes={"failure = JobFailed": "failure = ContentFiltered"},
        check="a_failed_job_ends_the_polling",
        says="not in JobFailed",
    ),
    "a proxy's 503 ends a job": Defect(
        changes={_CLASSIFY: 'if response.status == 503: return JobFailed("busy", status=503)'},
        check="a_proxys_answer_to_a_poll",
        says="a proxy's answer to a poll ended the call in JobFailed",
    ),
    "a signed address gets the key": Defect(
        changes={'method="GET", anonymous=True': 'method="GET"'},
        check="the_key_goes_to_the_providers_hosts",
        says="a signed address got the key",
    ),
    "a poll lacks the key": Defect(
        changes={'url=body["poll"], method="GET"': 'url=body["poll"], method="GET", anonymous=True'},
        check="the_key_goes_to_the_providers_hosts",
        says=": query:key is nothing is there",
    ),
    "a result time that is too short": Defect(
        changes={"result_ttl=600.0": "result_ttl=60.0"},
        check="kept_for_the_documented_time",
        says="the result is documented for 600 s",
    ),
    "an interval that is too short": Defect(
        changes={"poll_interval=2.0": "poll_interval=0.2"},
        check="documented_interval",
        says="the first poll comes after 0.2",
    ),
    "a job is not cancelled": Defect(
        changes={_POLL: "return Pending(id=job, poll=poll)"},
        check="given_up_is_cancelled",
        says="a job that was given up led to no request",
    ),
    "polls without end after an error": Defect(
        changes={
            _CLASSIFY: "self.had_an_error = response.status == 503 or getattr(self, 'had_an_error', False)",
            _STATES: "if getattr(self, 'had_an_error', False): state = 'running'; body['poll'] = '/nowhere'",
        }
        | {'url=body["poll"]': 'url=body["poll"] if "://" in body["poll"] else "http://127.0.0.1:9/"'}
        | {FIRST_LINE: f"{FIRST_LINE}\n    seconds = 3.0"},
        check="a_failed_job_ends_the_polling",
        says="failed, after a proxy's answer: it ended in",
    ),
    "a result time in hours": Defect(
        changes={"result_ttl=600.0": "result_ttl=600.0 / 3_600"},
        check="kept_for_the_documented_time",
        says="the result is documented for 600 s",
    ),
    "the first poll comes at once": Defect(
        changes={_POLL: "return Pending(id=job, poll=poll, cancel=stop, first=0.0)"},
        check="documented_interval",
        says="the first poll comes after 0 s",
    ),
    "more hosts get the key": Defect(
        changes={'hosts=("*.acme.example",)': 'hosts=("*.acme.example", "*.amazonaws.com")'},
        check="documented_address",
        says="hosts, the documented ones, are *.acme.example: each of them gets the key",
    ),
    "the request id of a failed job is dropped": Defect(
        changes={'"failed", status=200, request_id=response.request_id': '"failed", status=200'},
        check="request_id_is_reported",
        says="the scenario 'failed': the answer has x-request-id, but request_id of the JobFailed is None",
    ),
    "the key's parameter": Defect(
        changes={'key_query="key"': 'key_query="api_key"'},
        check="the_key_is_where",
        says="query:key is nothing is there",
    ),
    "the newest job is resumed": Defect(
        changes={
            "# STATE\n": "newest = None\n",
            _STATES: "self.newest = job",
            'target=f"/v1/jobs/{request.job}"': 'target=f"/v1/jobs/{self.newest or request.job}"',
        },
        check="resumed_at_its_address",
        says="client.resume requests GET /v1/jobs/",
    ),
    "the address of polls": Defect(
        changes={'url=body["poll"]': 'url=body["poll"].replace("/jobs/", "/job/")'},
        check="polls_are_gets",
        says="the first poll is GET /v1/job/",
    ),
    "a result that is there is waited for": Defect(
        changes={", is_ready=True": ""},
        check="fetched_at_once",
        says="the result is fetched 2 s after its address came: is_ready=True",
    ),
    "a poll has the key twice": Defect(
        changes={
            'poll = WireRequest(target="", url=body["poll"]': 'poll = WireRequest(headers=self.key, target="", '
            'url=body["poll"]',
            "fields = attrs.asdict": "self.key = {'x-key': account.query['key']}\n        fields = attrs.asdict",
        },
        check="the_key_goes_to_the_providers_hosts",
        says="the key stands in another place of the request too",
    ),
}
