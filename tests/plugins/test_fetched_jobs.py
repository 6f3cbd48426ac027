"""Jobs that are fetched later: what their records hold, and what their images change in a result."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from impasto import (
    Artifact,
    ChargeUnknown,
    ContentFiltered,
    Cost,
    Download,
    FailedArtifact,
    ImpastoError,
    Pending,
    Result,
    Usage,
    WireRequest,
)
from impasto_plugins.fetched_jobs import ProviderJob, open_jobs, with_later_images

TOKENS = Usage(input_tokens=1, output_tokens=2)


def usd(amount: float) -> Cost:
    return Cost(usd=amount, as_of="2026-01-01")


def images(*names: str) -> tuple[Artifact, ...]:
    return tuple(Artifact(data=name.encode(), media_type="image/png") for name in names)


def late(job: str, billed: str = "unknown") -> ImpastoError:
    error = ChargeUnknown("no result within 1 s")
    error.id, error.billed = job, billed  # type: ignore[assignment]  # one of the three
    return error


def lacking(*errors: ImpastoError, first: int, came: str, **facts: Any) -> Result:
    """A result with these images, in which others failed, one after the other."""
    failures = tuple(FailedArtifact(index=index, error=error) for index, error in enumerate(errors, first))
    return attrs.evolve(Result(artifacts=images(*came), errors=failures), **facts)


def test_a_record_has_what_the_first_answer_states_of_images() -> None:
    requests = [Download(request=WireRequest(url=f"https://a.example/{i}"), index=i) for i in range(3)]
    downloads = (attrs.evolve(requests[0], seed=0), requests[1], attrs.evolve(requests[2], revised_prompt="finer"))
    job = ProviderJob.of(Pending(id="j", downloads=downloads, usage=TOKENS), place=2, count=3)
    assert ProviderJob.from_json(json.loads(json.dumps(attrs.asdict(job)))) == job
    assert ProviderJob.from_json({"id": "j", "place": 2, "count": 3, **job.statements()}) == job
    result = job.completed(lacking(late("j"), first=0, came="bc"))
    assert [(each.seed, each.revised_prompt) for each in result.artifacts] == [(None, None), (None, "finer")]
    assert (result.usage, result.cost) == (TOKENS, None)
    assert job.completed(Result(artifacts=images("a", "b", "c"))).artifacts[0].seed == 0
    assert ProviderJob.of(Pending(id="j")).statements() == {}


@pytest.mark.parametrize(
    ("job", "result", "outcome", "expected"),
    [
        # A whole job, at its own cost or at the price
        (ProviderJob(id="j", place=1), lacking(late("j"), first=1, came="ac", cost=usd(0.2), possible_cost=usd(0.3)),
         Result(artifacts=images("b"), cost=usd(0.05)), ("abc", [], 0.25, 0.25)),
        (ProviderJob(id="j", place=1), lacking(late("j"), first=1, came="ac", cost=usd(0.2), possible_cost=usd(0.3)),
         Result(artifacts=images("b"), cost=usd(0.1)), ("abc", [], 0.3, 0.3)),
        # An image of a job, some of whose images came: all may be paid for already
        (ProviderJob(id="j", count=3), lacking(late("j"), first=2, came="ab", cost=usd(0.2), possible_cost=usd(0.3)),
         Result(artifacts=images("a", "b", "c"), cost=usd(0.3)), ("abc", [], 0.3, 0.3)),
        (ProviderJob(id="j", count=3, cost=usd(0.25)),
         lacking(late("j"), first=2, came="ab", cost=usd(0.25), possible_cost=usd(0.25)),
         Result(artifacts=images("a", "b", "c"), cost=usd(0.25)), ("abc", [], 0.25, 0.25)),
        (ProviderJob(id="j", count=3),
         lacking(late("j", "yes"), first=2, came="ab", cost=usd(0.3), possible_cost=usd(0.3)),
         Result(artifacts=images("a", "b", "c"), cost=usd(0.3)), ("abc", [], 0.3, 0.3)),
        # A job that was free in the end, and one that is still late
        (ProviderJob(id="j", place=2), lacking(late("j"), first=2, came="ab", cost=usd(0.2), possible_cost=usd(0.3)),
         ContentFiltered("no", billed="no"), ("ab", [2], 0.2, 0.2)),
        (ProviderJob(id="j", place=2), lacking(late("j"), first=2, came="ab", cost=usd(0.2), possible_cost=usd(0.3)),
         late("j"), ("ab", [2], 0.2, 0.3)),
        # What came is kept, whatever the job brings in its place
        (ProviderJob(id="j", count=2), lacking(late("j"), first=1, came="a", cost=usd(0.1), possible_cost=usd(0.2)),
         Result(artifacts=images("x", "b", "y"), cost=usd(0.3)), ("ab", [], 0.2, 0.2)),
    ],
)  # fmt: skip
def test_later_images_take_the_places_of_errors(
    job: ProviderJob, result: Result, outcome: Result | ImpastoError, expected: tuple[str, list[int], float, float]
) -> None:
    found = with_later_images(result, [(job, outcome)], price=usd(0.1))
    assert found.cost is not None
    assert found.possible_cost is not None
    came = b"".join(each.data for each in found.artifacts).decode()
    failed = [each.index for each in found.errors]
    assert (came, failed, found.cost.usd, found.possible_cost.usd) == expected


def test_tokens_are_added_if_both_counted_them() -> None:
    job, other = ProviderJob(id="j", place=1), Result(artifacts=images("b"), usage=TOKENS)
    for usage, expected in ((TOKENS, TOKENS + TOKENS), (None, None)):
        result = lacking(late("j"), first=1, came="a", usage=usage)
        assert with_later_images(result, [(job, other)], price=None).usage == expected


def test_a_job_is_open_while_an_error_leads_to_it() -> None:
    jobs = [ProviderJob(id=id) for id in ("j", "http://a/1 http://a/2", "done", "ended")]
    refused = ContentFiltered("no", billed="no")
    refused.id = "ended"
    result = lacking(late("j"), late("http://a/2"), ChargeUnknown("cut off"), refused, first=0, came="")
    assert open_jobs(jobs, result) == jobs[:2]
