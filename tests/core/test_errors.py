"""The errors: the tree is as it is drawn, each says whether it was billed, and each survives a trip to a process."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from celery import Celery

from impasto import errors
from impasto.errors import (
    BadRequest,
    BatchStopped,
    ChargeUnknown,
    ContentFiltered,
    ImpastoError,
    InvalidRequest,
    NotSent,
    Problem,
    RateLimited,
    StorageError,
    UnusableResult,
)
from impasto.records import Artifact


def tree(cls: type[ImpastoError], depth: int = 0) -> list[tuple[int, str]]:
    below = [
        line for child in cls.__subclasses__() if child.__module__ == errors.__name__ for line in tree(child, depth + 1)
    ]
    return [(depth, cls.__name__), *below]


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines()[2:]:
        depth = (len(line) - len(line.lstrip())) // 2
        for word in line.split():
            if not hasattr(errors, word):
                break
            if isinstance(getattr(errors, word), type) and not word.startswith("ValueError"):
                drawn.append((depth, word))
    assert drawn == tree(ImpastoError)


def full() -> list[ImpastoError]:
    filtered = ContentFiltered("blurred", status=200, name="CONTENT_FILTERED", request_id="r")
    filtered.artifacts = (Artifact(data=b"x", media_type="image/png"),)
    filtered.billed = "unknown"
    limited = RateLimited("slow", status=429, messages=("a", "b"))
    limited.retry_after = 3.0
    limited.operation, limited.id = "stability/sd3", "a1"
    limited.errors = (NotSent("no", retryable=False),)
    return [
        BadRequest("x", status=400),
        filtered,
        limited,
        InvalidRequest([Problem("seed", "must be less"), Problem("x", "y")]),
        InvalidRequest([Problem(f"f{number}", "y") for number in range(99)], operation="stability/sd3"),
        ChargeUnknown("left", status=502, raw=b"<html>", request_id="r"),
        UnusableResult("cut", raw=b"\x89PNG", media_type="image/png"),
        BatchStopped("the budget is used up", reason="budget", billed="yes"),
        StorageError("the disk is full"),
    ]


@pytest.mark.parametrize("error", full(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("through", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])
def test_an_error_survives_a_trip_to_another_process(error: ImpastoError, through: Any) -> None:
    other = through(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert {k: v for k, v in vars(other).items() if k != "errors"} == {
        k: v for k, v in vars(error).items() if k != "errors"
    }
    assert [str(e) for e in other.errors] == [str(e) for e in error.errors]
    assert (other.billed, other.retryable) == (error.billed, error.retryable)


@pytest.mark.parametrize("error", full(), ids=lambda error: type(error).__name__)
def test_an_error_survives_the_json_of_a_task_queue(error: ImpastoError) -> None:
    backend = Celery(broker="memory://", backend="cache+memory://").backend
    stored = json.loads(json.dumps(backend.prepare_exception(error, serializer="json")))
    other = backend.exception_to_python(stored)
    assert type(other) is type(error)
    assert str(other) == str(error)
    names = vars(error).keys() - {"raw", "artifacts", "errors"}
    assert {name: getattr(other, name) for name in names} == {name: getattr(error, name) for name in names}
    assert (other.billed, other.retryable) == (error.billed, error.retryable)


def test_an_error_from_elsewhere_sets_its_facts_only() -> None:
    arguments: tuple[Any, ...] = ("x", {"status": 3, "billed": "no", "__class__": "y", "with_traceback": 1})
    error = NotSent(*arguments)
    assert error.status == 3
    assert type(error) is NotSent
    assert "with_traceback" not in vars(error)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [("ConfigError", ValueError), ("InvalidRequest", ValueError), ("RegistryError", LookupError)],
)
def test_callers_who_know_only_pythons_own_errors_can_catch_them(kind: str, builtin: type) -> None:
    assert issubclass(getattr(errors, kind), builtin)


def test_all_problems_are_in_the_message() -> None:
    error = InvalidRequest([Problem("a", "required"), Problem("b", "must be text")])
    assert str(error) == "a: required; b: must be text (nothing was sent)"
    error.operation = "stability/sd3"
    assert str(error).startswith("stability/sd3: a: required")
    assert error.billed == "no"
    assert not error.retryable
