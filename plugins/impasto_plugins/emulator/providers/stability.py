"""api.stability.ai as far as it is known, with choices for the rest.

Known: multipart only; unknown fields dropped; parameters before the key; 403 and every other refusal
free; a result only for the key that started its job. Chosen here, because it is not known:

- the order: 429, then body and parameters (400, 413), the key (401), credits (402), moderation (403, 422);
- a key without ``Bearer`` is refused; a key is anything, unless ``Settings.keys`` lists them;
- every request counts towards the limit of 150 in 10 s, polls and account calls too, per key;
- an ``accept`` value that is not declared is answered as the default is (``strict`` refuses it);
- a filtered image is charged; a job is charged when it is accepted;
- of a field sent twice the last counts; a body over 10 MiB is refused also if no limit is stated, with 400;
- audio: a body over the operation's stated size is 413, though none is declared;
- everything that the parameter classes allow is accepted: retired sd3 names, ``strength`` without an image, an inpaint
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
from impasto_plugins.emulator.rendering.pictures import Generated, UnreadableImage
from impasto_plugins.emulator.server.exchange import EmulatorExchange, Endpoint, ErrorResponse, Reply, json_reply
from impasto_plugins.emulator.server.multipart import BodyTooLarge, Form, InvalidMultipart, describe_file, read_form
from impasto_plugins.emulator.settings import EmulatorSettings
from impasto_plugins.emulator.state.charges import InsufficientCredits
from impasto_plugins.emulator.state.jobs import EmulatorJob

from .backend import Backend, GenerationOrder
from .form_validation import ValidatedForm, ValidationFailed, validate_form
from .operations import load_operations

PREFIX = "/v2beta/"
_BEARER = "bearer "
CREATIVE = "/v2beta/stable-image/upscale/creative"
"""The one operation whose results have a second path of their own."""

MAX_BYTES = 10 * 2**20
ACCEPT_VALUES: Mapping[Makes, tuple[str, ...]] = {
    "image": ("image/*", "application/json"),
    "audio": ("audio/*", "application/json"),
    "3d": (),
}
"""The ``accept`` values of each kind of operation; a 3D model comes as it is for any."""

ERROR_NAMES = {
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
"""The error name of each status."""

REFUSED_WORDS = {
    "[content_moderation]": (403, "content_moderation", "prompt: was flagged by moderation"),
    "[invalid_language]": (422, "invalid_language", "prompt: must be English"),
    "[public_figure]": (422, "public_figure", "prompt: asks for a public figure"),
    "[copyrighted_content]": (422, "copyrighted_content", "audio: contains copyrighted content"),
}
"""Words of text fields that stand for refused content."""

WORD_OUTPUTS: Mapping[str, Makes] = {"[public_figure]": "image", "[copyrighted_content]": "audio"}
"""Words that have a meaning for one kind of operation only."""

NO_ENCODER = f"mp3 needs {ENCODER}: pip install 'impasto[emulator]', or set output_format to wav"

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


def routes(backend: Backend) -> Iterator[tuple[str, str, Endpoint]]:
    """Return method, path and endpoint of each route: installed operations, results, account."""
    results = set()
    for target, variants in load_stability_operations().items():
        yield "POST", target, SubmitEndpoint(backend, target, variants)
        results.add(results_path(variants[0]))
    for prefix in sorted(prefix for prefix in results if prefix is not None):
        yield "GET", prefix + "{id}", ResultEndpoint(backend, prefix)
    yield "GET", CREATIVE + "/result/{id}", ResultEndpoint(backend, None, CREATIVE)
    yield "GET", "/v1/user/balance", StaticEndpoint(backend, lambda: {"credits": backend.charges.balance})
    yield "GET", "/v1/user/account", StaticEndpoint(backend, _account_payload)
    yield "GET", "/v1/engines/list", StaticEndpoint(backend, lambda: _ENGINES)


def load_stability_operations(registry: Registry | None = None) -> dict[str, tuple[Operation, ...]]:
    """Return the vendor's operations by path, from the entry points; several share one path. Imports their modules."""
    operations: dict[str, dict[str, Operation]] = {}
    for _, operation in load_operations("stability/", registry):
        if operation.target.startswith(PREFIX):
            operations.setdefault(operation.target, {})[operation.id] = operation
    return {target: tuple(each.values()) for target, each in operations.items()}


def results_path(operation: Operation) -> str | None:
    """Return the path of an asynchronous operation's results; None for one that answers at once."""
    return getattr(operation.dialect, "results", None)


class _StabilityEndpoint:
    """The base of the endpoints: the key's header and the shape of refusals."""

    id_header = "x-request-id"
    counts_towards_rate = True

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def key(self, authorization: str) -> str | None:
        return authorization[len(_BEARER) :] if authorization.lower().startswith(_BEARER) else None

    async def read(self, exchange: EmulatorExchange) -> object:
        return None

    def refuse(self, exchange: EmulatorExchange, status: int, name: str | None, messages: Sequence[str]) -> Reply:
        return error_response(exchange, status, name or ERROR_NAMES.get(status, "error"), *messages).answer

    def rate_limit_answer(self, exchange: EmulatorExchange, seconds: float) -> Reply:
        settings, name = self.backend.settings, ERROR_NAMES[429]
        entries = [f"rate limit: more than {settings.rate_requests} requests; wait {seconds:.1f} s"]
        headers = {"retry-after": str(math.ceil(seconds))} if settings.retry_after else {}
        return json_reply(
            {"id": name, "name": name, "errors": entries}, 429, **headers
        )  # the vendor's id of this answer


class SubmitEndpoint(_StabilityEndpoint):
    """A path that runs an operation."""

    def __init__(self, backend: Backend, target: str, variants: tuple[Operation, ...]) -> None:
        super().__init__(backend)
        self.target = target
        self.variants = variants
        self.max_bytes = max((each.max_bytes for each in variants if each.max_bytes is not None), default=None)
        self.makes: Makes = variants[0].output
        self.results = results_path(variants[0])

    async def read(self, exchange: EmulatorExchange) -> Form:
        """Read and record the form. Raises ErrorResponse if it is invalid or too large."""
        record = exchange.record
        try:
            form = await read_form(exchange.request, self.max_bytes or MAX_BYTES)
        except InvalidMultipart as error:
            raise error_response(exchange, 400, "bad_request", str(error)) from None
        except BodyTooLarge:
            status, name = (413, "payload_too_large") if self.max_bytes is not None else (400, "bad_request")
            raise error_response(
                exchange, status, name, f"body: must have at most {self.max_bytes or MAX_BYTES:,} bytes"
            ) from None
        record.fields = {n: p.data.decode("utf-8", "replace") for n, p in form.items() if not p.is_file}
        files = {n: p for n, p in form.items() if p.is_file}
        if files:
            record.files = await asyncio.to_thread(lambda: {n: describe_file(p) for n, p in files.items()})
        return form

    async def answer(self, exchange: EmulatorExchange, body: object) -> Reply:
        """Validate the form, generate the artifact or start a job, and book the charge. Raises ErrorResponse."""
        assert isinstance(body, dict)  # noqa: S101 - what read gave
        form = await self._validate(exchange, body)
        require_key(exchange, self.backend.settings)
        order = self.backend.create_order(exchange, form)
        try:
            with self.backend.charges.reserve(order.cost):
                return await self._generate(exchange, order)
        except InsufficientCredits:
            shortage = f"credits: {order.cost.credits:g} needed, {self.backend.charges.balance:g} left"
            raise error_response(exchange, 402, "payment_required", shortage) from None
        except UnreadableImage as error:
            raise error_response(exchange, 400, "bad_request", str(error)) from None

    async def _validate(self, exchange: EmulatorExchange, form: Form) -> ValidatedForm:
        strict = self.backend.settings.strict
        try:
            if exchange.record.files:
                validated_form = await asyncio.to_thread(
                    validate_form, self.variants, form, strict=strict
                )  # decodes headers of images
            else:
                validated_form = validate_form(self.variants, form, strict=strict)
        except ValidationFailed as error:
            raise error_response(exchange, 400, "bad_request", *error.entries) from None
        if self.results is None and self.makes != "3d":
            accepts_json(exchange, ACCEPT_VALUES[self.makes], strict=strict)
        if self.makes == "audio" and not can_encode(str(validated_form.values.get("output_format", "mp3"))):
            raise error_response(exchange, 400, "bad_request", NO_ENCODER)
        return validated_form

    async def _generate(self, exchange: EmulatorExchange, order: GenerationOrder) -> Reply:
        backend = self.backend
        for word, (status, name, entry) in REFUSED_WORDS.items():
            if word in order.form.text and WORD_OUTPUTS.get(word, self.makes) == self.makes:
                raise error_response(exchange, status, name, entry)
        if self.results is None:
            await asyncio.sleep(backend.settings.answer_seconds)
            result = await backend.make(exchange, order)
            answer = await generated_answer(exchange, self.makes, result, order.task.seed, order.finish_reason)
        else:
            await asyncio.to_thread(order.task.decode_all)
            job = backend.jobs.start(
                asyncio.create_task(backend.make(exchange, order)),
                key=exchange.record.key,
                target=self.target,
                results=self.results,
                makes=self.makes,
                seed=order.task.seed,
                finish_reason=order.finish_reason,
            )
            answer = json_reply({"id": job.id}, 202 if self.makes == "audio" else 200)
        backend.charge(exchange, order)
        return answer


class ResultEndpoint(_StabilityEndpoint):
    """The results of jobs: those below a path, or those of one operation."""

    def __init__(self, backend: Backend, results: str | None, target: str | None = None) -> None:
        super().__init__(backend)
        self.results = results
        self.target = target
        makes: Makes = "audio" if results is not None and "/audio/" in results else "image"
        self.accept_values = ACCEPT_VALUES[makes] if makes == "audio" else ("*/*", *ACCEPT_VALUES[makes])

    async def answer(self, exchange: EmulatorExchange, body: object) -> Reply:
        """Answer with the result of a job, or that it is in progress. Raises ErrorResponse."""
        backend = self.backend
        accepts_json(exchange, self.accept_values, strict=backend.settings.strict)
        require_key(exchange, backend.settings)
        id = exchange.request.match_info["id"]
        job = backend.jobs.find(id, exchange.record.key)
        if job is None or not self._is_here(job):
            raise error_response(exchange, 404, "generation_not_found", "id: no such generation")
        if not backend.jobs.is_ready(job):
            return json_reply({"id": job.id, "status": "in-progress"}, 202)
        return await generated_answer(exchange, job.makes, await job.task, job.seed, job.finish_reason)

    def _is_here(self, job: EmulatorJob) -> bool:
        return job.results == self.results or job.target == self.target


class StaticEndpoint(_StabilityEndpoint):
    """A path of API v1 about the account."""

    def __init__(self, backend: Backend, get_payload: Callable[[], object]) -> None:
        super().__init__(backend)
        self.get_payload = get_payload

    async def answer(self, exchange: EmulatorExchange, body: object) -> Reply:
        """Answer with the payload. Raises ErrorResponse without a valid key."""
        require_key(exchange, self.backend.settings)
        return json_reply(self.get_payload())


class NotFoundEndpoint(_StabilityEndpoint):
    """Every other path: 404."""

    async def answer(self, exchange: EmulatorExchange, body: object) -> Reply:
        """Raise ErrorResponse with 404."""
        if exchange.record.target.startswith("/v1/"):
            require_key(exchange, self.backend.settings)
        raise error_response(exchange, 404, "not_found", "path: not found")


def require_key(exchange: EmulatorExchange, settings: EmulatorSettings) -> None:
    """Raise ErrorResponse with 401 without a valid key."""
    if not exchange.key or (settings.keys is not None and exchange.key not in settings.keys):
        raise error_response(exchange, 401, "unauthorized", "authorization: invalid or missing header value")


def error_response(exchange: EmulatorExchange, status: int, name: str, *entries: str) -> ErrorResponse:
    """Return a refusal in the shape of v2, or on a v1 path of v1."""
    payload: dict[str, object] = {"id": exchange.record.id, "name": name}
    if exchange.record.target.startswith("/v1/"):
        payload["message"] = "; ".join(entries)
    else:
        payload["errors"] = list(entries)
    return ErrorResponse(json_reply(payload, status))


def accepts_json(exchange: EmulatorExchange, accept_values: tuple[str, ...], *, strict: bool) -> bool:
    """Return True if the caller asks for base64 in JSON rather than for bytes.

    Raises ErrorResponse if ``strict`` forbids it.
    """
    accept = exchange.request.headers.get("accept", "*/*").partition(";")[0].strip()
    if strict and accept not in accept_values:
        raise error_response(exchange, 400, "bad_request", f"accept: must be one of {', '.join(accept_values)}")
    return accept == "application/json"


async def generated_answer(
    exchange: EmulatorExchange, makes: Makes, result: Generated, seed: int, reason: str
) -> Reply:
    """Return the output in the form that the caller asks for."""
    if makes == "3d":
        return Reply(headers={"content-type": result.media_type}, body=result.data)
    if not accepts_json(exchange, (), strict=False):
        headers = {"content-type": result.media_type, "finish-reason": reason, "seed": str(seed)}
        return Reply(headers=headers, body=result.data)

    def encode_json() -> bytes:
        data = base64.b64encode(result.data).decode()
        return json.dumps({makes: data, "finish_reason": reason, "seed": seed}).encode()

    body = await asyncio.to_thread(encode_json)
    return Reply(headers={"content-type": f"application/json; type={result.media_type}"}, body=body)


def _account_payload() -> object:
    organization = {"id": "emulator", "name": "Emulator", "role": "OWNER", "is_default": True}
    return {"id": "emulator", "email": "nobody@example.com", "organizations": [organization]}
