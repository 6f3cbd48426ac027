"""api.stability.ai as far as it is known, and what is chosen where it is not.

Known and kept: multipart only; unknown fields dropped; parameters before the key; 403 and every other refusal free;
a result only for the key that started its job. Chosen here, as nobody has established it:

- the order: 429, then body and parameters (400, 413), the key (401), credits (402), moderation (403, 422);
- a key without ``Bearer`` is refused; a key is anything, unless ``Settings.keys`` lists them;
- every request counts towards the limit of 150 in 10 s, polls and account calls too, per key;
- an ``accept`` value that is not declared is answered as the default is (``strict`` refuses it);
- a filtered picture is charged; a job is charged when it is accepted;
- of a field sent twice the last counts; a body over 10 MiB is refused also where no limit is stated, with 400;
- sounds: a body over what the operation states is 413, though none is declared;
- what the parameter classes do not forbid is taken: retired sd3 names, ``strength`` without an image, an inpaint
  with neither mask nor transparency, which then changes nothing;
- errors carry ``x-request-id``; an unknown path is 404 ``not_found`` in the shape of its version.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from impasto import Operation, Registry
from impasto.ext import Makes
from impasto_plugins.emulator.rendering.audio import ENCODER, can_encode
from impasto_plugins.emulator.rendering.pictures import Made, Unreadable
from impasto_plugins.emulator.server.exchange import Answer, Endpoint, Exchange, Refusal, json_answer
from impasto_plugins.emulator.server.multipart import Form, NotAForm, TooLarge, describe, read_form
from impasto_plugins.emulator.settings import Settings
from impasto_plugins.emulator.state.charges import NoCredits
from impasto_plugins.emulator.state.jobs import Job

from .backend import Desk, Order
from .form_validation import Checked, Wrong, check
from .served_operations import served_operations

PREFIX = "/v2beta/"
_BEARER = "bearer "
CREATIVE = "/v2beta/stable-image/upscale/creative"
"""The one operation whose results have a second path of their own."""

MOST_BYTES = 10 * 2**20
DECLARED: Mapping[Makes, tuple[str, ...]] = {
    "image": ("image/*", "application/json"),
    "audio": ("audio/*", "application/json"),
    "3d": (),
}
"""The ``accept`` values of each kind of operation; a 3D model comes as it is, whatever is asked for."""

NAMES = {
    400: "bad_request",
    401: "unauthorized",
    402: "payment_required",
    403: "content_moderation",
    404: "generation_not_found",
    413: "payload_too_large",
    422: "invalid_language",
    429: "rate_limit_exceeded",
    500: "internal_error",
}
"""The name that goes with each status."""

REFUSED = {
    "[content_moderation]": (403, "content_moderation", "prompt: was flagged by moderation"),
    "[invalid_language]": (422, "invalid_language", "prompt: must be English"),
    "[public_figure]": (422, "public_figure", "prompt: asks for a public figure"),
    "[copyrighted_content]": (422, "copyrighted_content", "audio: holds copyrighted content"),
}
"""Words that, anywhere in a text field, stand for content that is refused."""

ONLY: Mapping[str, Makes] = {"[public_figure]": "image", "[copyrighted_content]": "audio"}
"""Those that mean something to one kind of operation alone."""

NO_ENCODER = f"mp3 needs {ENCODER}: pip install 'impasto[emulator]', or ask for wav (output_format)"

_ENGINES = [
    {
        "id": "stable-diffusion-xl-1024-v1-0",
        "name": "Stable Diffusion XL v1.0",
        "description": "Stability-AI Stable Diffusion XL v1.0",
        "type": "PICTURE",
    },
    {
        "id": "stable-diffusion-v1-6",
        "name": "Stable Diffusion v1.6",
        "description": "Stability-AI Stable Diffusion v1.6",
        "type": "PICTURE",
    },
]


def routes(desk: Desk) -> Iterator[tuple[str, str, Endpoint]]:
    """Method, path and endpoint of all that is served: each installed operation of the vendor's, results, account."""
    results = set()
    for target, variants in installed().items():
        yield "POST", target, Submit(desk, target, variants)
        results.add(results_of(variants[0]))
    for prefix in sorted(prefix for prefix in results if prefix is not None):
        yield "GET", prefix + "{id}", Result(desk, prefix)
    yield "GET", CREATIVE + "/result/{id}", Result(desk, None, CREATIVE)
    yield "GET", "/v1/user/balance", Told(desk, lambda: {"credits": desk.account.balance})
    yield "GET", "/v1/user/account", Told(desk, _owner)
    yield "GET", "/v1/engines/list", Told(desk, lambda: _ENGINES)


def installed(registry: Registry | None = None) -> dict[str, tuple[Operation, ...]]:
    """The vendor's operations by path, from the entry points; several share one path. Imports their modules."""
    found: dict[str, dict[str, Operation]] = {}
    for _, operation in served_operations("stability/", registry):
        if operation.target.startswith(PREFIX):
            found.setdefault(operation.target, {})[operation.id] = operation
    return {target: tuple(each.values()) for target, each in found.items()}


def results_of(operation: Operation) -> str | None:
    """The path below which an asynchronous operation's results are fetched; None for one that answers at once."""
    return getattr(operation.dialect, "results", None)


class _Base:
    """What the endpoints have in common: the key's place and the shape of refusals."""

    id_header = "x-request-id"
    counts = True

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def key(self, authorization: str) -> str | None:
        return authorization[len(_BEARER) :] if authorization.lower().startswith(_BEARER) else None

    async def read(self, exchange: Exchange) -> object:
        return None

    def refuse(self, exchange: Exchange, status: int, name: str | None, messages: Sequence[str]) -> Answer:
        return refusal(exchange, status, name or NAMES.get(status, "error"), *messages).answer

    def locked_out(self, exchange: Exchange, seconds: float) -> Answer:
        settings, name = self.desk.settings, NAMES[429]
        entries = [f"rate limit: more than {settings.rate_requests} requests; wait {seconds:.1f} s"]
        headers = {"retry-after": str(math.ceil(seconds))} if settings.retry_after else {}
        return json_answer({"id": name, "name": name, "errors": entries}, 429, **headers)  # the vendor's id here


class Submit(_Base):
    """One path of the vendor's where something is made."""

    def __init__(self, desk: Desk, target: str, variants: tuple[Operation, ...]) -> None:
        super().__init__(desk)
        self.target = target
        self.variants = variants
        self.most = max((each.max_bytes for each in variants if each.max_bytes is not None), default=None)
        self.makes: Makes = variants[0].makes
        self.results = results_of(variants[0])

    async def read(self, exchange: Exchange) -> Form:
        record = exchange.record
        try:
            form = await read_form(exchange.request, self.most or MOST_BYTES)
        except NotAForm as error:
            raise refusal(exchange, 400, "bad_request", str(error)) from None
        except TooLarge:
            status, name = (413, "payload_too_large") if self.most is not None else (400, "bad_request")
            raise refusal(
                exchange, status, name, f"body: must have at most {self.most or MOST_BYTES:,} bytes"
            ) from None
        record.fields = {n: p.data.decode("utf-8", "replace") for n, p in form.items() if not p.is_file}
        files = {n: p for n, p in form.items() if p.is_file}
        if files:
            record.files = await asyncio.to_thread(lambda: {n: describe(p) for n, p in files.items()})
        return form

    async def answer(self, exchange: Exchange, body: object) -> Answer:
        assert isinstance(body, dict)  # noqa: S101 - what read gave
        checked = await self._checked(exchange, body)
        require_key(exchange, self.desk.settings)
        order = self.desk.order(exchange, checked)
        try:
            with self.desk.account.hold(order.cost):
                return await self._made(exchange, order)
        except NoCredits:
            needs = f"credits: {order.cost.credits:g} needed, {self.desk.account.balance:g} left"
            raise refusal(exchange, 402, "payment_required", needs) from None
        except Unreadable as error:
            raise refusal(exchange, 400, "bad_request", str(error)) from None

    async def _checked(self, exchange: Exchange, form: Form) -> Checked:
        strict = self.desk.settings.strict
        try:
            if exchange.record.files:
                checked = await asyncio.to_thread(check, self.variants, form, strict=strict)  # it looks at pictures
            else:
                checked = check(self.variants, form, strict=strict)
        except Wrong as error:
            raise refusal(exchange, 400, "bad_request", *error.entries) from None
        if self.results is None and self.makes != "3d":
            wants_json(exchange, DECLARED[self.makes], strict=strict)
        if self.makes == "audio" and not can_encode(str(checked.values.get("output_format", "mp3"))):
            raise refusal(exchange, 400, "bad_request", NO_ENCODER)
        return checked

    async def _made(self, exchange: Exchange, order: Order) -> Answer:
        desk = self.desk
        for word, (status, name, entry) in REFUSED.items():
            if word in order.checked.said and ONLY.get(word, self.makes) == self.makes:
                raise refusal(exchange, status, name, entry)
        if self.results is None:
            await asyncio.sleep(desk.settings.answer_seconds)
            made = await desk.make(exchange, order)
            answer = await delivered(exchange, self.makes, made, order.task.seed, order.finish_reason)
        else:
            await asyncio.to_thread(order.task.decode_all)
            job = desk.jobs.start(
                asyncio.create_task(desk.make(exchange, order)),
                key=exchange.record.key,
                target=self.target,
                results=self.results,
                makes=self.makes,
                seed=order.task.seed,
                finish_reason=order.finish_reason,
            )
            answer = json_answer({"id": job.id}, 202 if self.makes == "audio" else 200)
        desk.charge(exchange, order)
        return answer


class Result(_Base):
    """Where the results of jobs are fetched: those below a path, or those of one operation."""

    def __init__(self, desk: Desk, results: str | None, target: str | None = None) -> None:
        super().__init__(desk)
        self.results = results
        self.target = target
        makes: Makes = "audio" if results is not None and "/audio/" in results else "image"
        self.declared = DECLARED[makes] if makes == "audio" else ("*/*", *DECLARED[makes])

    async def answer(self, exchange: Exchange, body: object) -> Answer:
        desk = self.desk
        wants_json(exchange, self.declared, strict=desk.settings.strict)
        require_key(exchange, desk.settings)
        id = exchange.request.match_info["id"]
        job = desk.jobs.find(id, exchange.record.key)
        if job is None or not self._is_here(job):
            raise refusal(exchange, 404, "generation_not_found", "id: no such generation")
        if not desk.jobs.is_ready(job):
            return json_answer({"id": job.id, "status": "in-progress"}, 202)
        return await delivered(exchange, job.makes, await job.made, job.seed, job.finish_reason)

    def _is_here(self, job: Job) -> bool:
        return job.results == self.results or job.target == self.target


class Told(_Base):
    """A call of v1 that tells something of the account."""

    def __init__(self, desk: Desk, tell: Callable[[], object]) -> None:
        super().__init__(desk)
        self.tell = tell

    async def answer(self, exchange: Exchange, body: object) -> Answer:
        require_key(exchange, self.desk.settings)
        return json_answer(self.tell())


class Unknown(_Base):
    """Whatever else is asked for."""

    async def answer(self, exchange: Exchange, body: object) -> Answer:
        if exchange.record.target.startswith("/v1/"):
            require_key(exchange, self.desk.settings)
        raise refusal(exchange, 404, "not_found", "path: nothing is served here")


def require_key(exchange: Exchange, settings: Settings) -> None:
    """Raises Refusal: 401."""
    if not exchange.key or (settings.keys is not None and exchange.key not in settings.keys):
        raise refusal(exchange, 401, "unauthorized", "authorization: invalid or missing header value")


def refusal(exchange: Exchange, status: int, name: str, *entries: str) -> Refusal:
    """A refusal in the shape of v2, or on a v1 path of v1."""
    told: dict[str, object] = {"id": exchange.record.id, "name": name}
    if exchange.record.target.startswith("/v1/"):
        told["message"] = "; ".join(entries)
    else:
        told["errors"] = list(entries)
    return Refusal(json_answer(told, status))


def wants_json(exchange: Exchange, declared: tuple[str, ...], *, strict: bool) -> bool:
    """Whether the caller asks for base64 in JSON rather than for bytes. Raises Refusal where ``strict`` says so."""
    accept = exchange.request.headers.get("accept", "*/*").partition(";")[0].strip()
    if strict and accept not in declared:
        raise refusal(exchange, 400, "bad_request", f"accept: must be one of {', '.join(declared)}")
    return accept == "application/json"


async def delivered(exchange: Exchange, makes: Makes, made: Made, seed: int, reason: str) -> Answer:
    """What was made, in the form that was asked for."""
    if makes == "3d":
        return Answer(headers={"content-type": made.media_type}, body=made.data)
    if not wants_json(exchange, (), strict=False):
        headers = {"content-type": made.media_type, "finish-reason": reason, "seed": str(seed)}
        return Answer(headers=headers, body=made.data)

    def told() -> bytes:
        data = base64.b64encode(made.data).decode()
        return json.dumps({makes: data, "finish_reason": reason, "seed": seed}).encode()

    body = await asyncio.to_thread(told)
    return Answer(headers={"content-type": f"application/json; type={made.media_type}"}, body=body)


def _owner() -> object:
    organization = {"id": "emulator", "name": "Emulator", "role": "OWNER", "is_default": True}
    return {"id": "emulator", "email": "nobody@example.com", "organizations": [organization]}
