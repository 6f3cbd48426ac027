"""Checks of parameters: some are refused before anything is sent, the others must arrive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from impasto import InvalidRequest, Result
from impasto.fields import format_value
from impasto.testing.boundary_values import invalid_values, valid_values
from impasto.testing.places import Content
from impasto.testing.subject import call_outcome
from impasto.testing.watch import check, run

from .wire import WireChecks, describe_outcome

_MOST_FILES = 8
"""Files of a list without a documented maximum."""


class ParameterChecks(WireChecks):
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
        if self.minimal and not required:
            [outcome] = run(self._outcomes([{}]))
            assert isinstance(outcome, InvalidRequest), (
                f"a call without any parameter was not refused: {describe_outcome(outcome)}; "
                f"minimal has {', '.join(self.minimal)}: give what the provider needs required=True, or a rule"
            )

    @check
    def test_fields_that_need_others_are_refused_without_them(self) -> None:
        """Check the rules behind ``along_with``: a field without what it needs is refused, or has a warning."""
        names = [name for name in self.along_with if name in {**self.minimal, **self.others}]
        calls = [{**self.minimal, name: {**self.others, **self.minimal}[name]} for name in names]
        wrong = [
            f"{name} was accepted without what along_with says that it needs: give the operation a rule"
            for name, params, came in zip(names, calls, run(self._outcomes([*calls])), strict=True)
            if isinstance(came, Result) and not came.warnings and params != self.params_with(name, params[name])
        ]
        assert not wrong, "\n".join(wrong)

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
        passed_over = {*self.requirements.formatted_fields, *(self.native_n or ())[:1]}  # callers give ``n``
        fields = {name: field for name, field in self.operation().fields.items() if name not in passed_over}
        right = [(name, value) for name, field in fields.items() for value in valid_values(field)]
        right += [
            (name, [several[n % len(several)] for n in range(int(fields[name].maximum or _MOST_FILES))])
            for name, several in self.values()
            if name in fields and fields[name].kind == "files" and isinstance(several, list | tuple)
        ]
        run(self._all_accepted(right))

    async def _outcomes(self, calls: list[Mapping[str, object]]) -> list[object]:
        async with self.recording() as recorder, self.client(recorder.url) as client:
            return [await call_outcome(client, self.model, params) for params in calls]

    async def _all_refused(self, cases: Iterator[tuple[str, Mapping[str, object]]]) -> None:
        wrong: list[str] = []
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for name, params in cases:
                value = format_value(params.get(name))
                result = await call_outcome(client, self.model, params)
                if not isinstance(result, InvalidRequest):
                    wrong.append(f"{name}={value} was not refused by InvalidRequest: {describe_outcome(result)}")
                elif name not in {problem.field.partition(".")[0] for problem in result.problems}:  # group.field too
                    wrong.append(f"{name}={value} was refused without naming {name}: {result}")
                elif result.operation != self.model or result.billed != "no":
                    wrong.append(f"{name}={value}: the refusal names {result.operation!r} and says {result.billed!r}")
            if recorder.requests:
                wrong.append(f"{len(recorder.requests)} requests were sent in spite of that")
        assert not wrong, "\n".join(wrong)

    async def _all_accepted(self, cases: list[tuple[str, object]]) -> None:
        wrong: list[str] = []
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for name, value in cases:
                recorder.requests.clear()
                result = await call_outcome(client, self.model, self.params_with(name, value))
                if isinstance(result, BaseException) or len(recorder.posts) != 1:
                    wrong.append(f"{name}={format_value(value)} was not accepted: {describe_outcome(result)}")
                else:
                    content, params = Content(recorder.posts[0]), self.params_with(name, value)
                    wrong += self.problems_of(content, name, value)
                    if name not in self.translated or value in (self.minimal.get(name), self.others.get(name)):
                        wrong += self.wrong_constants(content, params)
        assert not wrong, "\n".join(dict.fromkeys(wrong))


def _without(params: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in params.items() if key != name}
