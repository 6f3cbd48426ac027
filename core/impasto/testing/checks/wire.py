"""Checks of requests against the provider's documentation, which the suite declares independently of the plugin."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar
from urllib.parse import urlsplit

import attrs

from impasto import Client, InvalidRequest
from impasto.fields import Field, format_bound, format_value
from impasto.testing.places import MISSING, Content, SentPart, all_fields, content_of, matches, text_matches
from impasto.testing.recorder import RecordedRequest, Recorder
from impasto.testing.subject import KEY, Subject, call_outcome
from impasto.testing.watch import check, run

_USER = "user-7f3a5c"
_OUTSIDE = ("header:", "query:")


@attrs.frozen
class FieldCall:
    """A call with one field set, and its request, or its error if none was sent."""

    name: str
    params: Mapping[str, object]
    request: RecordedRequest | None
    outcome: object


class WireChecks(Subject):
    """Checks of requests against the provider's documentation."""

    _calls: ClassVar[tuple[object, list[FieldCall]] | None] = None

    @check
    def test_the_request_goes_to_the_documented_address(self) -> None:
        """Check the method, the host and the path."""
        assert self.endpoint, "declare endpoint, the documented address: 'https://api.acme.example/v1/paint'"
        provider = self.operation().provider
        host = provider.base_url if "://" in self.endpoint else ""
        for call in self.sent_calls():
            if call.request is not None:
                found = f"{host}{urlsplit(call.request.target).path}"
                documented = next((url for name, url in self.endpoints.items() if name in call.params), self.endpoint)
                assert found == documented, f"the request goes to {found}, not to {documented}"
                if self.encoding is not None and not set(call.params) & set(self.operation().file_fields):
                    sent = "form" if Content(call.request).is_form else "json"
                    assert sent == self.encoding, f"the request is sent as {sent}, documented is {self.encoding}"
        assert set(provider.hosts) == set(self.hosts), (
            f"Provider.hosts are {', '.join(provider.hosts) or 'none'}; hosts, the documented ones, are "
            f"{', '.join(self.hosts) or 'none'}: each of them gets the key"
        )

    @check
    def test_the_key_is_where_it_is_documented(self) -> None:
        """Check the header or the query parameter of the key, and that the key stands nowhere else."""
        assert self.auth is not None, (
            "declare auth, the documented place of the key: {'header:authorization': f'Bearer {KEY}'}, "
            "{'query:key': KEY}, or {} for a provider without a key"
        )
        for call in self.sent_calls():
            if call.request is not None:
                wrong = wrong_auth(self.auth, call.request)
                assert not wrong, wrong

    @check
    def test_every_parameter_arrives(self) -> None:
        """Check that each field has its documented name, form and value on the wire, and no other field has it."""
        wrong = list(self._equal_files())
        for call in self.field_calls():
            value = format_value(call.params.get(call.name))
            if call.request is None or isinstance(call.outcome, BaseException):
                name = f"{call.name}={value}" if call.name else f"a call of requests() with {', '.join(call.params)}"
                wrong.append(f"{name} was not accepted: {describe_outcome(call.outcome)}")
                continue
            content = Content(call.request)
            wrong += [problem for name in call.params for problem in self.problems_of(content, name, call.params[name])]
        assert not wrong, "\n".join(dict.fromkeys(wrong))

    @check
    def test_the_request_holds_its_constants_and_nothing_else(self) -> None:
        """Check the constants, and that nothing is sent that is neither a parameter nor a constant."""
        wrong: list[str] = []
        for call in self.field_calls():
            if call.request is not None:
                wrong += self.wrong_constants(Content(call.request), call.params)
        assert not wrong, "\n".join(dict.fromkeys(wrong))

    @check
    def test_limits_choices_and_defaults_are_the_documented_ones(self) -> None:
        """Check the parameter class against ``limits``, ``choices`` and ``defaults``."""
        fields = dict(all_fields(self.operation().fields))
        wrong = [problem for name, field in fields.items() for problem in self._documented(name, field)]
        if self.max_bytes is not None and self.operation().max_bytes != self.max_bytes:
            wrong.append(f"max_bytes of the operation is {self.operation().max_bytes}, documented is {self.max_bytes}")
        unknown = {*self.limits, *self.choices, *self.defaults} - fields.keys()
        wrong += [f"limits, choices and defaults name an unknown field: {name}" for name in sorted(unknown)]
        assert not wrong, "\n".join(wrong)

    @check
    def test_the_end_user_is_passed_on(self) -> None:
        """Check that the end user's id is at its documented place, or nowhere."""
        wrong = run(self._wrong_users())
        assert not wrong, "\n".join(wrong)

    async def _wrong_users(self) -> list[str]:
        wrong: list[str] = []
        values = {**self.others, **self.minimal}
        calls = [self.minimal, *(self.params_with(name, values[name]) for name in self.endpoints if name in values)]
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for params in calls:
                recorder.requests.clear()
                await client.invoke(self.model, params, user=_USER)
                request, content = recorder.posts[0], Content(recorder.posts[0])
                wrong += self.wrong_constants(content, params, self.user)
                whole = f"{request.target} {request.headers}".encode() + request.body
                if self.user is None and _USER.encode() in whole:
                    wrong.append("the end user's id is sent: declare user, its documented place")
                elif self.user is not None:
                    found = content.at(self.user)
                    if not (text_matches if self.user.startswith(_OUTSIDE) else matches)(found, _USER):
                        path = urlsplit(request.target).path
                        wrong.append(f"the end user's id is not at {self.user} of {path}, but {summarize(found)}")
            recorder.requests.clear()
            await client.invoke(self.model, self.minimal)
            if _USER in f"{recorder.posts[0].target} {recorder.posts[0].headers} {recorder.posts[0].body!r}":
                wrong.append("a call without an end user sends the id of an earlier call's: the plugin shares state")
        return wrong

    def wrong_constants(
        self, content: Content, params: Mapping[str, object], further: str | None = None
    ) -> Iterator[str]:
        """Yield what is wrong with a request's constants, and what it has beside them and its parameters."""
        for place, value in self.constants.items():
            found = content.at(place)
            if not (text_matches if place.startswith(_OUTSIDE) else matches)(found, value):
                yield f"{place} is {summarize(found)}, not {format_value(value)}: see constants"
        places = [*self._places(params), *self.constants, *(self.auth or {}), further or ""]
        native = self.operation().native_n
        for place in content.undeclared(places):
            if native is not None and place == self.names.get(native[0], native[0]):
                yield f"{place} is sent for n, which is native here: declare native_n = ({native[0]!r}, its maximum)"
            else:
                yield f"{place}={summarize(content.at(place))} is neither a parameter of the call nor in constants"

    def sent_calls(self) -> list[FieldCall]:
        """Return those of the calls for each field that sent a request. Fails if there is none."""
        calls = self.field_calls()
        sent = [call for call in calls if call.request is not None]
        assert sent or not calls, f"no call sent a request; the first ended in {describe_outcome(calls[0].outcome)}"
        return sent

    def field_calls(self) -> list[FieldCall]:
        """Return a call for each field and those with many fields, made once for all checks that read them."""
        if self._calls is None or self._calls[0] is not self.operation():
            type(self)._calls = self.operation(), run(self._call_each_field())  # noqa: SLF001 - of the suite itself
        assert self._calls is not None
        return self._calls[1]

    async def _call_each_field(self) -> list[FieldCall]:
        calls: list[FieldCall] = []
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for name, value in self.values():
                calls.append(await self._call(client, recorder, name, self.params_with(name, value)))
            for params in self.requests():
                call = await self._call(client, recorder, "", params)
                is_chosen = type(self).requests is not Subject.requests  # else a rule may forbid every field at once
                if is_chosen or not isinstance(call.outcome, InvalidRequest):
                    calls.append(call)
        return calls

    async def _call(self, client: Client, recorder: Recorder, name: str, params: Mapping[str, object]) -> FieldCall:
        recorder.requests.clear()
        outcome = await call_outcome(client, self.model, params)
        return FieldCall(name, params, recorder.posts[0] if recorder.posts else None, outcome)

    def _equal_files(self) -> Iterator[str]:
        """Yield the file fields that a swap of two would not show."""
        owners: dict[object, str] = {}
        for name, value in self.values():
            field = self.operation().fields[name]
            if field.kind not in ("file", "files"):
                continue
            content = content_of(field, value)
            several = content if isinstance(content, list) else [content]
            if len(several) < 2 <= (field.maximum or 2) and field.kind == "files":
                yield f"{name}: give two files in others, with different contents"
            for each in several:
                if owners.setdefault(each, name) != name or several.count(each) > 1:
                    yield f"{name} has the same content as {owners[each]}: give each file its own in others"

    def problems_of(self, content: Content, name: str, value: object) -> Iterator[str]:
        """Yield what is wrong with a field's value on the wire."""
        field = self.operation().fields[name]
        if name in self.translated:
            for place, expected in self.translated[name].items():
                if value in (self.minimal.get(name), self.others.get(name)) and not matches(
                    content.at(place), expected
                ):
                    yield f"{name} became {summarize(content.at(place))} at {place}, not {format_value(expected)}"
            if field.kind == "files" and any(isinstance(each, bytes) for each in self.translated[name].values()):
                yield from _missing_files(content, name, content_of(field, value))
            return
        place = self.names.get(name, name)
        found, plain = content.at(place), content_of(field, value)
        if place == "path":
            is_there = isinstance(found, str) and str(plain) in found
        elif place.startswith(_OUTSIDE):
            is_there = text_matches(found, plain)
        else:
            is_there = matches(found, plain, data_url=name in self.data_urls)
        if not is_there:
            hint = "; if its files stand in objects of their own, declare their places and values in translated"
            yield (
                f"{name}={format_value(value)} is not in the request at {place!r} as it was given: {summarize(found)}"
                f"{hint if field.has_files else ''}"
            )

    def _places(self, params: Mapping[str, object]) -> Iterator[str]:
        """Yield the places that a call with these parameters may use."""
        native = () if self.native_n is None else self.native_n[:1]
        for name in (*params, *native, *self.operation().derive_params(params)):
            yield from self.translated.get(name, (self.names.get(name, name),))

    def _documented(self, name: str, field: Field) -> Iterator[str]:
        if field.choices:
            if name not in self.choices:
                yield f"{name}: declare its documented values in choices"
            elif sorted(self.choices[name]) != sorted(field.choices):
                yield f"{name}: the class has {', '.join(field.choices)}, choices has {', '.join(self.choices[name])}"
        elif field.kind in ("text", "integer", "number", "files", "texts"):
            low, high, *steps = self.limits.get(name) or (None, None)
            if name not in self.limits:
                yield (
                    f"{name}: declare its documented limits in limits, such as (0, 1_000) or (1, None); "
                    "None, in place of both, if there are none"
                )
            elif (step := steps[0] if steps else 1) != (field.step or 1):
                yield f"{name}: the class has the step {field.step or 1}, limits has {step}, its third number"
            elif (low or None, high) != (field.minimum or None, field.maximum):
                there = f"{format_bound(field.minimum)} to {format_bound(field.maximum)}"
                yield f"{name}: the class has {there}, limits has {format_bound(low)} to {format_bound(high)}"
        if field.default != self.defaults.get(name):
            mine, documented = format_value(field.default), format_value(self.defaults.get(name))
            yield f"{name}: the class has the default {mine}, defaults has {documented}"


def wrong_auth(auth: Mapping[str, str | re.Pattern[str]], request: RecordedRequest) -> str:
    """Return what is wrong with the place of the key in a request, empty if nothing is."""
    content = Content(request)
    for place, value in auth.items():
        found = content.at(place)
        if not (found == value if isinstance(value, str) else value.fullmatch(str(found))):
            return f"{place} is {summarize(found)}, not {str(value).replace(KEY, 'KEY')}"
    headers = [f"{name}: {value}" for name, value in request.headers if f"header:{name.lower()}" not in auth]
    query = "" if any(place.startswith("query:") for place in auth) else request.target
    if KEY.encode() in "\n".join([*headers, query]).encode() + request.body:
        return "the key stands in another place of the request too"
    return ""


def _missing_files(content: Content, name: str, value: object) -> Iterator[str]:
    """Yield a problem if some of a field's files are nowhere in the request, under whatever names."""
    several = value if isinstance(value, list) else []
    there = 0
    for each in set(several):
        found = content.raw.count(each) + content.raw.count(base64.b64encode(each))
        there += min(found, several.count(each))
    if there < len(several):
        yield f"{name}: {there} of its {len(several)} files are in the request"


def describe_outcome(result: object) -> str:
    """Return an outcome in words."""
    is_error = isinstance(result, BaseException)
    return f"{type(result).__name__}: {result}" if is_error else f"it returned a {type(result).__name__}"


def summarize(found: object) -> str:
    """Return what stands at a place, short and without the key."""
    if found is MISSING:
        return "nothing is there"
    if isinstance(found, SentPart):
        found = found.content.decode("utf-8", "replace") if found.filename is None else "a file"
    try:
        text = found if isinstance(found, str) else json.dumps(found)
    except (TypeError, ValueError):
        text = repr(found)
    text = text.replace(KEY, "KEY")
    return text if len(text) <= 80 else f"{text[:77]}..."
