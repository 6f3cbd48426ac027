"""Checks of what is refused before anything is sent, and of what must arrive."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping

from impasto import File, InvalidRequest
from impasto.fields import Field, shown

from .boundary_values import inside, outside
from .golden import without_boundary
from .recorder import Recorder, Seen, recording
from .requirements import Subject, outcome


class Parameters(Subject):
    """Checks of parameters."""

    def test_unknown_parameters_are_refused_by_name(self) -> None:
        names = ["no_such_parameter", *(f"{name}_" for name in self.operation().fields)]
        asyncio.run(self._all_refused((name, {**self.least, name: 1}) for name in names))

    def test_required_parameters_are_required(self) -> None:
        fields = self.operation().fields
        required = [name for name, field in fields.items() if field.required]
        asyncio.run(self._all_refused((name, _without(self.least, name)) for name in required))

    def test_values_beyond_a_fields_bounds_are_refused_by_name(self) -> None:
        fields = self.operation().fields
        wrong = ((name, self.given(name, value)) for name, field in fields.items() for value in outside(field))
        asyncio.run(self._all_refused(wrong))

    def test_values_within_a_fields_bounds_arrive(self) -> None:
        fields = {n: field for n, field in self.operation().fields.items() if n not in self.requirements.formed}
        right = [(name, value) for name, field in fields.items() for value in inside(field)]
        asyncio.run(self._all_taken(right))

    def test_every_parameter_arrives(self) -> None:
        asyncio.run(self._all_arrive())

    def test_what_was_not_given_is_not_sent(self) -> None:
        operation = self.operation()
        request = operation.request(self.model, self.least)
        wire = operation.transform_request(request=request)
        sent = {*wire.fields, *wire.files} & set(operation.fields)
        added = sent - set(self.least) - set(operation.constants) - set(operation.implied(self.least))
        assert not added, f"sent, though nobody gave it: {', '.join(sorted(added))}"

    async def _all_refused(self, cases: Iterator[tuple[str, Mapping[str, object]]]) -> None:
        wrong: list[str] = []
        async with recording(self.usual) as recorder, self.client(recorder.url) as client:
            for name, given in cases:
                value = shown(given.get(name))
                came = await outcome(client, self.model, given)
                if not isinstance(came, InvalidRequest):
                    wrong.append(f"{name}={value} was not refused by InvalidRequest: {_named(came)}")
                elif name not in {problem.field for problem in came.problems}:
                    wrong.append(f"{name}={value} was refused without naming {name}: {came}")
                elif came.operation != self.model or came.billed != "no":
                    wrong.append(f"{name}={value}: the refusal names {came.operation!r} and says {came.billed!r}")
            if recorder.seen:
                wrong.append(f"{len(recorder.seen)} requests were sent all the same")
        assert not wrong, "\n".join(wrong)

    async def _all_taken(self, cases: list[tuple[str, object]]) -> None:
        wrong: list[str] = []
        fields, respelled = self.operation().fields, self.requirements.respelled
        async with recording(self.usual) as recorder, self.client(recorder.url) as client:
            for name, value in cases:
                recorder.seen.clear()
                came = await outcome(client, self.model, self.given(name, value))
                if isinstance(came, BaseException) or len(recorder.posts) != 1:
                    wrong.append(f"{name}={shown(value)} was not taken: {_named(came)}")
                elif name not in respelled and not _stands_in(recorder.posts[0], value, fields[name]):
                    wrong.append(f"{name}={shown(value)} does not stand in the request as it was given")
        assert not wrong, "\n".join(wrong)

    async def _all_arrive(self) -> None:
        wrong: list[str] = []
        fields, respelled = self.operation().fields, self.requirements.respelled
        async with recording(self.usual) as recorder, self.client(recorder.url) as client:
            for name, value in self.values():
                recorder.seen.clear()
                given = self.given(name, value)
                came = await outcome(client, self.model, given)
                if isinstance(came, BaseException) or not recorder.posts:
                    wrong.append(f"{name}={shown(value)} was not taken: {_named(came)}")
                    continue
                post = recorder.posts[0]
                if name not in respelled and not _stands_in(post, value, fields[name]):
                    wrong.append(f"{name}={shown(value)} does not stand in the request as it was given")
                elif name not in self.least and await self._is_ignored(recorder, given, name, post):
                    wrong.append(f"{name} changes nothing in the request: it is dropped")
        assert not wrong, "\n".join(wrong)

    async def _is_ignored(self, recorder: Recorder, given: Mapping[str, object], name: str, post: Seen) -> bool:
        """Whether the request is the same without the field, though that does not follow from the others."""
        less = _without(given, name)
        if name in self.operation().implied(less):
            return False
        recorder.seen.clear()
        async with self.client(recorder.url) as client:
            await outcome(client, self.model, less)
        return bool(recorder.posts) and without_boundary(recorder.posts[0]) == without_boundary(post)


def _without(given: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in given.items() if key != name}


def _named(came: object) -> str:
    return f"{type(came).__name__}: {came}" if isinstance(came, BaseException) else f"it gave a {type(came).__name__}"


def _stands_in(seen: Seen, value: object, field: Field) -> bool:
    whole = b"\n".join([seen.target.encode(), *(v.encode("latin-1") for _, v in seen.headers), seen.body])
    return any(form in whole for form in _forms(value, field))


def _forms(value: object, field: Field) -> Iterator[bytes]:
    """The ways in which a value may stand in a body, one of which must be there."""
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
