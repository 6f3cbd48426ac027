"""Checks of whole calls: several images, filtered ones, failed jobs, and what a result reports."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence

import attrs
import pytest

from impasto import ContentFiltered, ImpastoError, Result, Usage
from impasto.dialects import TokenPrice
from impasto.testing.recorder import Answer, Recorder
from impasto.testing.subject import Scenario, Subject, call_outcome
from impasto.testing.watch import check, run

from .job import PROXY
from .wire import describe_outcome

_NO_MORE_POLLS = 3


class ScenarioChecks(Subject):
    """Checks of the declared scenarios."""

    @check
    def test_several_images_all_come_in_their_order(self) -> None:
        """Check the scenarios with more than one image."""
        if not self.requirements.several_images:
            pytest.skip("Requirements(several_images=False)")
        several = {name: scenario for name, scenario in self.scenarios.items() if len(scenario.images) > 1}
        if not several and self.success.headers.get("content-type", "").startswith(("image/", "audio/", "model/")):
            pytest.skip("success is one artifact, and no scenario has several")
        assert several, (
            "declare a scenario whose answer has several images, with their bytes in images, or "
            "requirements = Requirements(several_images=False) if no answer of the provider has more than one"
        )
        assert any(len(set(each.images)) == len(each.images) for each in several.values()), (
            "give each image of a scenario its own content, or their order can't be seen; the answers at several "
            "addresses are downloads, by their paths"
        )
        for name in {"seed", "finish_reason", "revised_prompt"} & set(self.reports or {}):
            assert any(isinstance(each.reports.get(name), tuple) for each in several.values()), (
                f"give a scenario with several images the {name} of each, reports={{'{name}': (..., ...)}}"
            )
        self._check_all(several)

    @check
    def test_a_filtered_image_is_reported(self) -> None:
        """Check the refusals and the scenarios that end in ContentFiltered, for a call or for one of its images."""
        if not self.requirements.filters:
            pytest.skip("Requirements(filters=False)")
        whole = {name: each for name, each in self.scenarios.items() if _is_filter(each.error)}
        partial = {name: each for name, each in self.scenarios.items() if any(map(_is_filter, each.errors.values()))}
        assert whole or partial or any(_is_filter(refusal.error) for refusal in self.refusals), (
            "declare how the provider filters content: a refusal or a scenario with error=ContentFiltered, or "
            "requirements = Requirements(filters=False) if it never does"
        )
        if self.requirements.partial_results and any(len(each.images) > 1 for each in self.scenarios.values()):
            assert partial, (
                "declare a scenario in which one of several images is filtered, with errors={1: ContentFiltered}, or "
                "requirements = Requirements(partial_results=False) if the provider never removes single images"
            )
        self._check_all({**whole, **partial})

    @check
    def test_a_failed_job_ends_the_polling(self) -> None:
        """Check the scenarios of jobs that end in an error."""
        if self.job_accepted is None:
            pytest.skip("no job_accepted: the model has no jobs")
        failed = {name: each for name, each in self.scenarios.items() if each.error and len(each.answers) > 1}
        assert failed, (
            "declare a scenario of a job that the provider reports as failed: its answers, with that of the failure "
            "last, and error=JobFailed"
        )
        late = {
            f"{name}, after a proxy's answer": attrs.evolve(each, answers=(*each.answers[:-1], PROXY, each.answers[-1]))
            for name, each in failed.items()
        }
        self._check_all({**failed, **late})

    @check
    def test_each_scenario_ends_as_declared(self) -> None:
        """Check all other scenarios."""
        self._check_all(self.scenarios)

    @check
    def test_the_result_reports_what_the_answer_says(self) -> None:
        """Check the seed, the finish reason, the usage and the cost of a result."""
        assert self.reports is not None, (
            "declare reports, what the result of success says: {'seed': 7, 'finish_reason': 'SUCCESS', 'usage': "
            "Usage(...), 'usd': 0.04}; leave out what the provider does not report, {} if that is everything"
        )
        scenarios = {"success": Scenario(answers=self.stages(), reports=self.reports)}
        if "seed" in self.reports and "seed" in self.others:
            seeded, seed = self.params_with("seed", self.others["seed"]), {"seed": self.reports["seed"]}
            name = "success of a call with a seed, whose answer has another"
            scenarios[name] = Scenario(params=seeded, answers=self.stages(), reports=seed)
        usage = self.reports.get("usage")
        if isinstance(usage, Usage) and (answer := _with_double_counts(self.success, usage)) is not None:
            double = attrs.evolve(usage, **{name: 2 * count for name, count in attrs.asdict(usage).items() if count})
            scenarios["success with twice the usage"] = Scenario(
                answers=(*self.stages()[:-1], answer), reports={"usage": double}
            )
        self._check_all(scenarios)

    def _check_all(self, scenarios: Mapping[str, Scenario]) -> None:
        wrong = run(self._run_all(scenarios))
        assert not wrong, "\n".join(wrong)

    async def _run_all(self, scenarios: Mapping[str, Scenario]) -> list[str]:
        wrong: list[str] = []
        for name, scenario in scenarios.items():
            recording = self.recording(scenario.answers, scenario.downloads)
            async with recording as recorder, self.client(recorder.url) as client:
                client = client.with_options(timeout=self.seconds / 3)
                n = min(len(scenario.images) + len(scenario.errors), self.native_n[1]) if self.native_n else 1
                outcome = await call_outcome(client, self.model, {**self.minimal, **scenario.params}, n=max(n, 1))
                problems = [*_problems(scenario, outcome), *_polls(scenario, recorder)]
                if isinstance(outcome, Result):
                    problems += self._wrong_usage(scenario, outcome)
                wrong += [f"{name}: {problem}" for problem in problems]
        return wrong

    def _wrong_usage(self, scenario: Scenario, result: Result) -> Iterator[str]:
        """Yield what is wrong with a usage that the answer repeats, and with the cost of its tokens."""
        usage, price = (self.reports or {}).get("usage"), self.operation().price
        if "usage" not in scenario.reports and repeats(self.success.body, [scenario.answers[-1].body], usage):
            yield from wrong_reports(result, {"usage": usage})
        if "usd" in scenario.reports or not isinstance(price, TokenPrice) or (cost := price.of(result.usage)) is None:
            return
        if result.cost is None or not math.isclose(result.cost.usd, cost.usd):
            found = "unknown" if result.cost is None else f"{result.cost.usd:g} USD"
            yield f"the cost is {found}; its tokens cost {cost.usd:g} USD by the operation's price, for all its images"


def _with_double_counts(answer: Answer, usage: Usage) -> Answer | None:
    """Return a JSON answer in which each count of a usage, and their sum, is doubled; None if they are not in it."""
    counts = {count for count in attrs.asdict(usage).values() if count}
    counts |= {(usage.input_tokens or 0) + (usage.output_tokens or 0)} - {0}

    def double(value: object) -> object:
        if isinstance(value, Mapping):
            return {name: double(each) for name, each in value.items()}
        if isinstance(value, list):
            return [double(each) for each in value]
        return 2 * value if type(value) is int and value in counts else value

    body = _parsed(answer.body)
    changed = double(body)
    return None if changed == body else attrs.evolve(answer, body=json.dumps(changed).encode())


def _is_filter(error: type[ImpastoError] | None) -> bool:
    return error is not None and issubclass(error, ContentFiltered)


def _polls(scenario: Scenario, recorder: Recorder) -> Iterator[str]:
    if len(recorder.posts) != 1:
        yield f"it made {len(recorder.posts)} paid requests"
    polls = len(recorder.requests) - len(recorder.posts)
    if scenario.error is not None and polls > len(scenario.answers) + _NO_MORE_POLLS:
        yield f"it was polled {polls} times, although answer {len(scenario.answers)} ends the job"


def _problems(scenario: Scenario, outcome: object) -> Iterator[str]:
    """Yield the differences between an outcome and its declaration."""
    if scenario.error is not None:
        if type(outcome) is not scenario.error:
            yield f"it ended in {describe_outcome(outcome)}, not in {scenario.error.__name__}"
        elif outcome.billed != (billed := scenario.billed or scenario.error.billed):
            yield f"billed is {outcome.billed!r}, not {billed!r}"
        return
    if not isinstance(outcome, Result):
        yield f"it ended in {describe_outcome(outcome)}, not in a result"
        return
    if scenario.images:
        yield from _wrong_images(list(scenario.images), [artifact.data for artifact in outcome.artifacts])
    found = {failed.index: type(failed.error) for failed in outcome.errors}
    if scenario.images and found != dict(scenario.errors):
        yield f"its errors are {_names(found)}, not {_names(scenario.errors)}"
    for failed in outcome.errors:
        if scenario.billed not in (None, failed.error.billed):
            yield f"billed of the error of image {failed.index} is {failed.error.billed!r}, not {scenario.billed!r}"
    yield from wrong_reports(outcome, scenario.reports)


def wrong_reports(result: Result, reports: Mapping[str, object]) -> Iterator[str]:
    """Yield the differences between a result and what it should report."""
    for name, value in reports.items():
        reported = _reported(result, name, several=isinstance(value, tuple))
        if reported != value or type(reported) is not type(value):
            yield f"{name} is {reported!r}, not {value!r}"


def _wrong_images(images: list[bytes], found: list[bytes]) -> Iterator[str]:
    if found == images:
        return
    if sorted(found) == sorted(images):
        yield f"its {len(images)} images are in another order"
    else:
        came = sum(image in found for image in images)
        others = f", and {len(found) - came} that it does not name" if len(found) > came else ""
        yield f"{came} of its {len(images)} images came{others}"


def _names(errors: Mapping[int, type]) -> str:
    return ", ".join(f"{index}: {error.__name__}" for index, error in sorted(errors.items())) or "none"


def _reported(result: Result, name: str, *, several: bool) -> object:
    match name:
        case "usd":
            return None if result.cost is None else result.cost.usd
        case "seed" | "finish_reason" | "revised_prompt" | "media_type":
            values = tuple(getattr(artifact, name) for artifact in result.artifacts)
            return values if several else next(iter(values), None)
        case _:
            return getattr(result, name, None)


def repeats(body: bytes, others: Sequence[bytes], reported: object) -> bool:
    """Return True if one of other answers in JSON says what is reported with the name and the value of this answer."""
    pairs = [pair for pair in _pairs(_parsed(body)) if _says(pair[1], reported)]
    return bool(pairs) and any(pair in pairs for other in others for pair in _pairs(_parsed(other)))


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _pairs(value: object) -> Iterator[tuple[str, object]]:
    """Yield each name of a JSON value's objects, at any depth, with what stands there."""
    for name, each in value.items() if isinstance(value, dict) else ():
        yield name, each
        yield from _pairs(each)
    for each in value if isinstance(value, list) else ():
        yield from _pairs(each)


def _says(value: object, reported: object) -> bool:
    """Return True if a JSON value is what is reported: a number, a text, or the object with all counts of a usage."""
    if isinstance(reported, Usage):
        counts = {count for count in attrs.asdict(reported).values() if count}
        return isinstance(value, dict) and counts <= {each for _, each in _pairs(value) if type(each) is int}
    return type(value) is type(reported) and value == reported
