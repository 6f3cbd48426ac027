"""The declarations that an author makes of a model for its suite, and the calls that the checks make."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Literal

import attrs

from impasto import Client, ImpastoError, Operation, RateLimit, Registry, Result, Retry
from impasto.client_state import BUILT_IN
from impasto.options import Settings
from impasto.registry import MIDDLEWARE, OPERATIONS, TRANSPORTS

from .recorder import HOSTS, Answer, Conversation, Recorder, recording
from .watch import Limited

KEY = "sk-canary-5f2d9c71b6e84a30"
"""The key of every call. It must appear in requests only."""

_ONCE = Retry(attempts=1, refused=0, max_wait=0)
"""No retries, and a 429 pauses nothing."""

_ANY = RateLimit(1_000_000, 1.0)


@attrs.frozen(kw_only=True)
class Refusal:
    """A refusal in the provider's own form, and the error that it must become.

    ``retry_after``: the seconds to wait, if its body has them.
    """

    answer: Answer
    error: type[ImpastoError]
    billed: str = "no"
    retry_after: float | None = None


@attrs.frozen(kw_only=True)
class Requirements:
    """Abilities of a model, which decide what the suite requires.

    ``several_images``: one answer may hold more than one image. ``filters``: the provider refuses or removes content.
    ``partial_results``: it may remove some images of an answer and send the others.
    ``detects_truncation``: the plugin notices if the image (sound, model) of a complete answer is cut short.
    ``formatted_fields``: fields whose text has a format, so that not every text of a valid length is accepted.
    """

    several_images: bool = True
    filters: bool = True
    partial_results: bool = True
    detects_truncation: bool = True
    formatted_fields: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class Scenario:
    """A call, the provider's answers to it in their order, and the result or the error that it must become.

    ``answers``: to the request, then to the polls; the last is repeated. ``images``: the images' bytes in their order.
    ``downloads``: as the attribute of that name, beside it.
    ``errors``: the errors of images that did not come, by index. ``error``: that of the whole call. ``billed``: of
    both; without it ``error`` must have its class's own.
    ``reports``: as the attribute of that name.
    """

    answers: Sequence[Answer]
    params: Mapping[str, object] = {}
    images: Sequence[bytes] = ()
    errors: Mapping[int, type[ImpastoError]] = {}
    error: type[ImpastoError] | None = None
    billed: str | None = None
    reports: Mapping[str, object] = {}
    downloads: Mapping[str, Answer] = {}


@attrs.frozen(kw_only=True)
class Stream:
    """A call that takes partial images, and the provider's stream of events.

    ``sends``: places and values that its request has beside those of every request. ``partials``: the index and the
    bytes of each partial image, in their order; ``images``: those of the result. ``failures``: streams that an event
    ends with an error, whose ``billed`` is what the provider documents. ``reports``: as the attribute of that name.
    """

    answer: Answer
    sends: Mapping[str, object]
    partials: Sequence[tuple[int, bytes]]
    images: Sequence[bytes]
    params: Mapping[str, object] = {}
    failures: Sequence[Refusal] = ()
    reports: Mapping[str, object] = {}


class Subject(Limited):
    """The declarations of one model."""

    model: ClassVar[str] = ""
    """The installed name of the model."""
    minimal: ClassVar[Mapping[str, object]] = {}
    """The minimal parameters of a call."""
    others: ClassVar[Mapping[str, object]] = {}
    """A value for each other field."""
    along_with: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Parameters that a field needs along with it, if a rule ties them. None removes a field of ``minimal``."""
    success: ClassVar[Answer]
    """The provider's answer with a result."""
    job_accepted: ClassVar[Answer | None] = None
    """The provider's answer that accepts a job, if it has jobs."""
    downloads: ClassVar[Mapping[str, Answer]] = {}
    """The answers at the addresses of images that ``success`` or another answer has, by their paths:
    ``{"/files/{job}-1.png": Answer(...)}``. An answer with addresses is not a job: it is ``success``."""
    polls: ClassVar[Sequence[Answer]] = ()
    """The answers between ``job_accepted`` and ``success``, such as one that the job still runs."""
    refusals: ClassVar[Sequence[Refusal]] = ()
    """The provider's own refusals, at least one of each kind."""
    requirements: ClassVar[Requirements] = Requirements()

    poll_request: ClassVar[str | None] = None
    """The documented request of a poll, such as ``"GET /v1/jobs/{job}"``, unless the answers have its address."""
    result_request: ClassVar[str | None] = None
    """The documented request of a finished job's result, if that is not a poll and its address stands in no answer."""
    poll_interval: ClassVar[float | None] = None
    """The documented seconds between two polls of a job."""
    first_poll: ClassVar[float | None] = None
    """The documented seconds before the first poll, if they differ from ``poll_interval``; 0 if the result of a job is
    there at once, such as an image that is answered as an address."""
    result_ttl: ClassVar[float | None] = None
    """The documented seconds for which the provider keeps a job's result, if it says so."""
    cancel: ClassVar[str | None] = None
    """The request that cancels a job, if there is one: ``"PUT /v1/jobs/{job}/cancel"``."""
    native_n: ClassVar[tuple[str, int] | None] = None
    """The documented field for the number of images of one request, and its maximum, if there is one."""
    stream: ClassVar[Stream | None] = None
    """A stream with partial images, if the provider has them."""
    scenarios: ClassVar[Mapping[str, Scenario]] = {}
    """Further calls by name: several images, a filtered one, a job that failed."""
    reports: ClassVar[Mapping[str, object] | None] = None
    """What the result of ``success`` reports: ``seed``, ``finish_reason``, ``revised_prompt``, ``usage``, ``usd``."""
    estimates: ClassVar[Sequence[tuple[Mapping[str, object], float]]] = ()
    """The documented USD of one image before its call, if they depend on parameters: ``[({"size": "wide"}, 0.05)]``."""
    request_id: ClassVar[str | None] = "x-request-id"
    """The header with the provider's id of an exchange, if it sends one."""
    media_types: ClassVar[Sequence[str]] = ("image/png", "image/jpeg", "image/webp")
    """The media types of the provider's images."""

    endpoint: ClassVar[str] = ""
    """The documented address of the request, such as ``https://api.acme.example/v1/paint``. A path alone, if the
    provider has many hosts."""
    endpoints: ClassVar[Mapping[str, str]] = {}
    """The documented addresses of requests that have a certain field, by its name, if they differ from ``endpoint``."""
    hosts: ClassVar[Sequence[str]] = ()
    """All other hosts that the provider's documentation names, as in ``Provider.hosts``: those of signed addresses too.
    Only anonymous requests to them have no key. ``"*.acme.example"`` if many."""
    auth: ClassVar[Mapping[str, str | re.Pattern[str]] | None] = None
    """The documented place of the key: ``{"header:x-key": KEY}``, ``{"query:key": KEY}``."""
    names: ClassVar[Mapping[str, str]] = {}
    """The place of each field whose place is not its own name: ``{"image": "instances.0.image.data"}``."""
    constants: ClassVar[Mapping[str, object]] = {}
    """Places and values that every request has beside its fields, such as ``{"model": "paint-1"}``."""
    translated: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Fields whose value is changed on its way: the places and values that ``minimal`` or ``others`` becomes."""
    encoding: ClassVar[Literal["json", "form"] | None] = None
    """The documented form of a request without files: JSON or ``multipart/form-data``."""
    data_urls: ClassVar[frozenset[str]] = frozenset()
    """File fields that are sent as ``data:`` URLs, not as base64 alone."""
    user: ClassVar[str | None] = None
    """The place of the end user's id, if the provider takes one."""
    limits: ClassVar[
        Mapping[str, tuple[float | None, float | None] | tuple[float | None, float | None, int] | None]
    ] = {}
    """The documented limits of each text (its length), number and list (its length), and the step if there is one.
    None, or ``(None, None)``, if there are none."""
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The documented values of each choice."""
    defaults: ClassVar[Mapping[str, object]] = {}
    """The documented defaults."""
    max_bytes: ClassVar[int | None] = None
    """The documented limit of a whole request in bytes, if there is one."""
    roles: ClassVar[Mapping[str, str]] = {}
    """The OpenAI argument that fills a field, by the field's name: ``{"init_image": "image", "mask": "mask"}``."""
    mask_area: ClassVar[str | None] = None
    """The documented area of a mask that the provider edits: ``white``, ``black`` or ``transparent``."""

    _found: ClassVar[tuple[str, Operation, Registry] | None] = None
    _resolver: ClassVar[str | None] = None
    """The name of the resolver that finds the model, None if its own name is declared."""

    def prepare(self) -> None:
        """Find the model: reading installed metadata must not happen in a loop."""
        if self._found is None or self._found[0] != self.model:
            registry = Registry()
            operation = registry.operation(self.model)
            type(self)._resolver = registry.resolver_of(self.model)  # noqa: SLF001 - of the suite itself
            type(self)._found = self.model, operation, registry_of_one(self.model, operation)  # noqa: SLF001 - of the suite itself

    def variables(self) -> Sequence[str | None]:
        """Return the provider's own environment variables: a call of the suite uses ``KEY`` alone."""
        provider = self.operation().provider
        return provider.key_variable, provider.base_url_variable

    def settings(self, url: str) -> Settings:
        """Return client settings that find the provider at ``url`` and use ``KEY``."""
        return {"providers": {self.operation().provider.name: {"api_base": url, "api_key": KEY}}}

    def operation(self) -> Operation:
        """Return the plugin."""
        return self._model[1]

    def registry_of_one(self) -> Registry:
        """Return a registry of this model and its needs, so that other installed plugins can't affect a result."""
        return self._model[2]

    @property
    def _model(self) -> tuple[str, Operation, Registry]:
        self.prepare()
        assert self._found is not None
        return self._found

    def stages(self) -> tuple[Answer, ...]:
        """Return the provider's answers to one call, in their order."""
        assert hasattr(self, "success"), "declare success, the provider's answer with a result: Answer(...)"
        return (self.success,) if self.job_accepted is None else (self.job_accepted, *self.polls, self.success)

    def answering(
        self, stages: Sequence[Answer] | None = None, downloads: Mapping[str, Answer] | None = None
    ) -> Conversation:
        """Return a provider's side of calls, by default of those that succeed. ``downloads``: beside the usual ones."""
        own = {**self.downloads, **(downloads or {})}
        return Conversation(self.stages() if stages is None else stages, self.job_id, own)

    def job_id(self, number: int) -> str:
        """Return the id that stands for ``{job}`` in the answers to a call. Override it if ids have another form."""
        return f"{number:064x}"

    def requests(self) -> Iterator[Mapping[str, object]]:
        """Return calls with many fields, which the golden file shows: by default one with every field."""
        yield {**self.others, **self.minimal}

    def hosts_of(self, stages: Sequence[Answer] | None = None) -> tuple[str, ...]:
        """Return the names of the hosts that the answers mention."""
        scenarios = [answer for each in self.scenarios.values() for answer in each.answers]
        answers = stages or (*self.stages(), *scenarios)
        whole = b"".join(answer.body + str(answer.headers).encode() for answer in answers)
        return tuple(name for name in HOSTS if name == "url" or f"{{{name}}}".encode() in whole)

    def recording(
        self, stages: Sequence[Answer] | None = None, downloads: Mapping[str, Answer] | None = None
    ) -> AbstractAsyncContextManager[Recorder]:
        """Run a recorder that answers so, by default with success."""
        cancel = None if self.cancel is None else re.compile(re.escape(self.cancel).replace(r"\{job\}", "[^/?]+"))
        return recording(self.answering(stages, downloads), self.hosts_of(stages), cancel)

    def client(self, url: str) -> Client:
        """Return a client that finds the provider at ``url`` and never retries."""
        client = Client(registry=self.registry_of_one(), **self.settings(url))
        return client.with_options(retry=_ONCE, rate_limit=_ANY, poll_interval=0.01, timeout=30.0)

    def params_with(self, field: str, value: object) -> dict[str, object]:
        """Return the minimal parameters with this field set. Override it if they depend on the value."""
        params = {**self.minimal, **self.along_with.get(field, {}), field: value}
        return {name: each for name, each in params.items() if each is not None}

    def values(self) -> Iterator[tuple[str, object]]:
        """Yield every field with the value that its author declared, but for the one that ``n`` sets."""
        for name, value in {**self.others, **self.minimal}.items():
            if name != self.native_field:
                yield name, value

    @property
    def native_field(self) -> str | None:
        """The field for the number of images, which callers set with ``n``."""
        native = self.operation().native_n
        return None if native is None else native[0]


def registry_of_one(model: str, operation: Operation) -> Registry:
    """Return a registry of a model, its transport and the built-in middleware."""
    installed, transport = Registry(), operation.provider.transport
    registry = Registry(discover=False)
    registry.add(OPERATIONS, model, operation)
    registry.add(TRANSPORTS, transport, installed.load(TRANSPORTS, transport, type))
    for name in BUILT_IN:
        registry.add(MIDDLEWARE, name, installed.load(MIDDLEWARE, name, object))
    return registry


async def call_outcome(
    client: Client, model: str, params: Mapping[str, object], *, n: int = 1
) -> Result | BaseException:
    """Return a call's result or its error."""
    try:
        return await client.invoke(model, params, n=n)
    except Exception as error:  # noqa: BLE001 - what it is, is what the check is about
        return error
