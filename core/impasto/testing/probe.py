"""A model without a vendor, with which the suites of transports and middleware make their calls."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Self

import attrs

from impasto import (
    Account,
    Artifact,
    BadRequest,
    Body,
    Call,
    ChargeUnknown,
    Client,
    File,
    ImpastoError,
    NotSent,
    Operation,
    Partial,
    Pending,
    Provider,
    RateLimit,
    RateLimited,
    Registry,
    Request,
    Result,
    Retry,
    ServerEvent,
    UnusableResult,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.client_state import BUILT_IN
from impasto.ext import MIDDLEWARE, OPERATIONS, TRANSPORTS, Sending, retry_after
from impasto.fields import file, text

from .recorder import Answer

MODEL = "probe/image"
PATH = "/v1/images"
BODY = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 64
PARTIAL, DONE = (f"event: {name}\ndata: {b64encode(BODY).decode()}\n\n".encode() for name in ("partial", "done"))
GOOD = Answer(headers={"Content-Type": "image/png", "X-Request-Id": "req-1"}, body=BODY)
REFUSED = Answer(status=400, headers={"Content-Type": "application/json"}, body=b'{"error": "no"}')
LIMITED = Answer(
    status=429, headers={"Content-Type": "application/json", "Retry-After": "7"}, body=b'{"error": "too many"}'
)
RUNNING = b"running"
_POLLS = 3
ONCE = Retry(attempts=1, refused=0, max_wait=0)


@attrs.frozen(kw_only=True)
class Params:
    """The parameters of the probe."""

    prompt: str = text(1, 1_000, required=True)
    image: File | None = file(lambda _: (), role=None)


@attrs.define
class ProbeDialect:
    """Sends forms or JSON, and keeps the answers as they came."""

    encoding: str = "json"
    headers: dict[str, str] = attrs.field(factory=dict[str, str])
    key_query: str | None = None
    max_bytes: int | None = None
    is_recording: bool = True
    provider: type[Provider] = Provider
    responses: list[WireResponse] = attrs.field(factory=list[WireResponse])

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return a request with the parameters as they are."""
        params = {name: getattr(request.params, name) for name in operation.fields}
        files = tuple((name, value) for name, value in params.items() if isinstance(value, File))
        fields = {name: value for name, value in params.items() if isinstance(value, str)}
        encoding = "form" if self.encoding == "form" else "json"
        limits = {"headers": self.headers, "max_bytes": self.max_bytes}
        return WireRequest(target=request.target, fields=fields, files=files, encoding=encoding, **limits)  # type: ignore[arg-type]  # one of the two

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return the error of a refusal in the probe's own form."""
        if self.is_recording:
            self.responses.append(response)
        if response.status == 200:
            return None
        try:
            message = str(json.loads(response.body)["error"])
        except (ValueError, LookupError, TypeError):
            return ChargeUnknown(f"HTTP {response.status}", status=response.status, raw=response.body)
        error = (RateLimited if response.status == 429 else BadRequest)(message, status=response.status)
        if isinstance(error, RateLimited):
            error.retry_after = retry_after(response.headers)
        return error

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        """Return the body as an image."""
        if not response.body:
            raise UnusableResult("the answer is empty", raw=response.body)
        artifact = Artifact(data=response.body, media_type=response.media_type)
        return Result(artifacts=(artifact,), request_id=response.request_id)


class WatchedSending(Sending):
    """Evidence that counts how often it is opened and closed."""

    def __enter__(self) -> Self:
        """Open it."""
        WatchedCall.open_count += 1
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        WatchedCall.open_count -= 1
        super().__exit__(*error)  # type: ignore[arg-type]  # passed on as they are


class WatchedCall(Call):
    """A call whose evidence is open for inspection."""

    open_count = 0
    newest: WatchedCall

    def __init__(self, request: Request, account: Account, **options: object) -> None:
        super().__init__(request, account, **options)  # type: ignore[arg-type]  # passed on as they are
        self.bodies_sent = 0
        self.is_body_late = True
        """True if the body was reported after the headers, False if it came first."""
        WatchedCall.newest = self

    def sending(self, *, paid: bool) -> Sending:
        """Return evidence that is watched."""

        def body_sent() -> None:
            self.bodies_sent += 1
            self.is_body_late = self.sent or not paid
            self.on_written()

        return WatchedSending(self, paid, body_sent)


def probe_operation(transport: str, dialect: ProbeDialect) -> Operation:
    """Return the probe for a transport."""
    provider = dialect.provider(
        name="probe",
        base_url="https://probe.example",
        key_variable="PROBE_KEY",
        key_header="x-key",
        key_prefix="",
        key_query=dialect.key_query,
        transport=transport,
    )
    return Operation(id=MODEL, title="Probe", params=Params, target=PATH, provider=provider, dialect=dialect)


Plugins = Mapping[tuple[str, str], object]
"""Plugins by their group and name."""


def find_plugins(transport: str, factory: object = None, middleware: object = None) -> Plugins:
    """Return a transport and middleware with the built-in ones. Reads installed metadata: not in a loop."""
    installed = Registry()
    plugins: dict[tuple[str, str], object] = {
        (TRANSPORTS, transport): factory or installed.load(TRANSPORTS, transport, type)
    }
    for name in (*BUILT_IN, *((middleware,) if isinstance(middleware, str) else ())):
        plugins[MIDDLEWARE, name] = installed.load(MIDDLEWARE, name, object)
    return plugins


def probe_client(
    url: str,
    key: str,
    plugins: Plugins,
    dialect: ProbeDialect,
    *,
    middleware: Sequence[object] = (),
    settings: Mapping[str, Mapping[str, object]] | None = None,
) -> Client:
    """Return a client of the probe at an address. ``settings``: those of the plugins."""
    registry = Registry(discover=False)
    [transport] = (name for group, name in plugins if group == TRANSPORTS)
    registry.add(OPERATIONS, MODEL, probe_operation(transport, dialect))
    for (group, name), plugin in plugins.items():
        registry.add(group, name, plugin)
    own: Mapping[str, Mapping[str, object]] = {"probe": {"api_base": url, "api_key": key}}
    client = Client(registry=registry, providers={**(settings or {}), **own}, middleware=middleware)
    return client.with_options(retry=ONCE, rate_limit=RateLimit(1_000_000, 1.0), poll_interval=0.01, timeout=5.0)


async def check_opens(what: str, client: Client) -> None:
    """Fail with the error of a plugin that can't be opened: the checks would report its consequences only."""
    async with client:
        try:
            await client.warm(MODEL)
        except ImpastoError as error:
            raise AssertionError(
                f"{what} can't be opened: {type(error).__name__}: {error}\n"
                "declare provider_settings if it needs settings"
            ) from error


@attrs.define(eq=False)
class Answering:
    """A transport without a network: gives one answer, raises an error, or sends prompt, key and files back."""

    answer: Answer | NotSent | ChargeUnknown | None
    is_silent: bool = False
    requests: list[WireRequest] = attrs.field(factory=list[WireRequest])
    came: asyncio.Event = attrs.field(factory=asyncio.Event)

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Return the answer."""
        self.requests.append(wire)
        self.came.set()
        if isinstance(self.answer, NotSent):
            raise NotSent(self.answer.message)
        with wire.call.sending(paid=True) as evidence:
            evidence.headers_sent()
            evidence.body_sent()
            await asyncio.sleep(3_600 if self.is_silent else 0)
            if isinstance(self.answer, ChargeUnknown):
                raise ChargeUnknown(self.answer.message, raw=self.answer.raw)
        answer = self.answer or Answer(headers=GOOD.headers, body=_content(wire))
        headers = {name.lower(): value for name, value in answer.headers.items()}
        if answer.headers.get("content-type") == "text/event-stream":
            return WireResponse(status=answer.status, headers=headers, stream=Body(_pieces(answer.body)))
        return WireResponse(status=answer.status, headers=headers, body=answer.body)


def _content(wire: WireRequest) -> bytes:
    """Return what tells a request from another."""
    parts = [str(wire.fields["prompt"]).encode(), str(dict(wire.call.account.headers)).encode()]
    for _, each in wire.files:
        with each.open() as source:
            parts.append(source.read())
    return b"\n".join(parts)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


@attrs.define(eq=False)
class PolledAnswers(Answering):
    """A transport without a network whose job runs for two polls, and then has its image."""

    answer: Answer | NotSent | ChargeUnknown | None = None

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Return the answer to a poll."""
        self.requests.append(wire)
        with wire.call.sending(paid=False):
            await asyncio.sleep(0)
        body = RUNNING if len(self.requests) < _POLLS else BODY
        return WireResponse(status=200, headers={"content-type": "image/png"}, body=body)


class StreamDialect(ProbeDialect):
    """The probe with partial images: the data of an event is an image in base64."""

    def normalize_event(self, operation: Operation, request: Request, event: ServerEvent) -> Partial | Result:
        """Return the partial image, or the result."""
        artifact = Artifact(data=b64decode(event.data), media_type="image/png")
        return Partial(artifact, 0) if event.event == "partial" else Result(artifacts=(artifact,))


class JobDialect(ProbeDialect):
    """The probe with jobs."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the poll of a job, or the request that starts one."""
        if request.job is not None:
            return WireRequest(target=f"{PATH}/{request.job}", method="GET")
        return super().transform_request(operation, request, account)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:  # type: ignore[override]  # the probe has no jobs
        """Return the job while it runs, then its image."""
        if response.body == RUNNING:
            return Pending(id="7", poll=WireRequest(target=f"{PATH}/7", method="GET"))
        return super().normalize_response(operation, request, response)
