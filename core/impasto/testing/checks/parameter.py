"""Checks of parameters: some are refused before anything is sent, the others must arrive."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping

from impasto import File, InvalidRequest
from impasto.fields import Field, format_value
from impasto.testing.boundary_values import invalid_values, valid_values
from impasto.testing.golden import without_boundary
from impasto.testing.recorder import RecordedRequest, Recorder, recording
from impasto.testing.subject import Subject, call_outcome
from impasto.testing.time_limit import check, run


class ParameterChecks(Subject):
    """Checks of parameters."""

    @check
    def test_unknown_parameters_are_refused_by_name(self) -> None:
        """Check that no unknown parameter is accepted."""
        names = ["no_such_parameter", *(f"{name}_" for name in self.operation().fields)]
        run(self._all_refused((name, {**self.minimal, name: 1}) for name in names))

    @check
    def test_required_parameters_are_required(self) -> None:
        """Check that a call without a required parameter is refused."""
        fields = self.operation().fields
        required = [name for name, field in fields.items() if field.required]
        run(self._all_refused((name, _without(self.minimal, name)) for name in required))

    @check
    def test_values_beyond_a_fields_bounds_are_refused_by_name(self) -> None:
        """Check values of other types and beyond the limits."""
        fields = self.operation().fields
        wrong = (
            (name, self.params_with(name, value)) for name, field in fields.items() for value in invalid_values(field)
        )
        run(self._all_refused(wrong))

    @check
    def test_values_within_a_fields_bounds_arrive(self) -> None:
        """Check that the smallest and the largest values are sent unchanged."""
        fields = {
            n: field for n, field in self.operation().fields.items() if n not in self.requirements.formatted_fields
        }
        right = [(name, value) for name, field in fields.items() for value in valid_values(field)]
        run(self._all_accepted(right))

    @check
    def test_every_parameter_arrives(self) -> None:
        """Check that every parameter changes the request."""
        run(self._all_arrive())

    @check
    def test_what_was_not_given_is_not_sent(self) -> None:
        """Check that defaults are not sent."""
        operation = self.operation()
        request = operation.request(self.model, self.minimal)
        wire = operation.transform_request(request=request)
        sent = {*wire.fields, *wire.files} & set(operation.fields)
        added = sent - set(self.minimal) - set(operation.constants) - set(operation.derive_params(self.minimal))
        assert not added, f"sent although the caller did not give it: {', '.join(sorted(added))}"

    async def _all_refused(self, cases: Iterator[tuple[str, Mapping[str, object]]]) -> None:
        wrong: list[str] = []
        async with recording(self.answer_for) as recorder, self.client(recorder.url) as client:
            for name, params in cases:
                value = format_value(params.get(name))
                result = await call_outcome(client, self.model, params)
                if not isinstance(result, InvalidRequest):
                    wrong.append(f"{name}={value} was not refused by InvalidRequest: {_describe(result)}")
                elif name not in {problem.field for problem in result.problems}:
                    wrong.append(f"{name}={value} was refused without naming {name}: {result}")
                elif result.operation != self.model or result.billed != "no":
                    wrong.append(f"{name}={value}: the refusal names {result.operation!r} and says {result.billed!r}")
            if recorder.requests:
                wrong.append(f"{len(recorder.requests)} requests were sent in spite of that")
        assert not wrong, "\n".join(wrong)

    async def _all_accepted(self, cases: list[tuple[str, object]]) -> None:
        wrong: list[str] = []
        fields, respelled = self.operation().fields, self.requirements.translated_fields
        async with recording(self.answer_for) as recorder, self.client(recorder.url) as client:
            for name, value in cases:
                recorder.requests.clear()
                result = await call_outcome(client, self.model, self.params_with(name, value))
                if isinstance(result, BaseException) or len(recorder.posts) != 1:
                    wrong.append(f"{name}={format_value(value)} was not accepted: {_describe(result)}")
                elif name not in respelled and not _contains_value(recorder.posts[0], value, fields[name]):
                    wrong.append(f"{name}={format_value(value)} is not in the request as it was given")
        assert not wrong, "\n".join(wrong)

    async def _all_arrive(self) -> None:
        wrong: list[str] = []
        fields, respelled = self.operation().fields, self.requirements.translated_fields
        async with recording(self.answer_for) as recorder, self.client(recorder.url) as client:
            for name, value in self.values():
                recorder.requests.clear()
                params = self.params_with(name, value)
                result = await call_outcome(client, self.model, params)
                if isinstance(result, BaseException) or not recorder.posts:
                    wrong.append(f"{name}={format_value(value)} was not accepted: {_describe(result)}")
                    continue
                post = recorder.posts[0]
                if name not in respelled and not _contains_value(post, value, fields[name]):
                    wrong.append(f"{name}={format_value(value)} is not in the request as it was given")
                elif name not in self.minimal and await self._is_ignored(recorder, params, name, post):
                    wrong.append(f"{name} changes nothing in the request: it is dropped")
        assert not wrong, "\n".join(wrong)

    async def _is_ignored(
        self, recorder: Recorder, params: Mapping[str, object], name: str, post: RecordedRequest
    ) -> bool:
        """Return True if the request is the same without the field, and the field is not derived from others."""
        less = _without(params, name)
        if name in self.operation().derive_params(less):
            return False
        recorder.requests.clear()
        async with self.client(recorder.url) as client:
            await call_outcome(client, self.model, less)
        return bool(recorder.posts) and without_boundary(recorder.posts[0]) == without_boundary(post)


def _without(params: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in params.items() if key != name}


def _describe(result: object) -> str:
    return (
        f"{type(result).__name__}: {result}"
        if isinstance(result, BaseException)
        else f"it returned a {type(result).__name__}"
    )


def _contains_value(request: RecordedRequest, value: object, field: Field) -> bool:
    whole = b"\n".join([request.target.encode(), *(v.encode("latin-1") for _, v in request.headers), request.body])
    return any(form in whole for form in _forms(value, field))


def _forms(value: object, field: Field) -> Iterator[bytes]:
    """Yield the forms in which a value may stand in a body. One of them must be there."""
    if field.kind == "file":
        with File.of(value).open() as source:
            content = source.read()
        yield content
        yield base64.b64encode(content)
        return
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        yield str(value).lower().encode()
        return
    yield json.dumps(value).encode()
    yield json.dumps(value, ensure_ascii=False).encode()
    yield str(value).encode()
    if isinstance(value, float):
        from decimal import Decimal

        yield format(Decimal(repr(value)), "f").encode()
        yield f"{value:g}".encode()
