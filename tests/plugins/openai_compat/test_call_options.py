"""LiteLLM's arguments at the edge of what they take, and what is left for the model."""

from __future__ import annotations

from typing import Any, cast

import pytest

from impasto import InvalidRequest, Retry
from impasto_plugins.openai_compat.call_options import (
    MOST_RETRIES,
    CallOptions,
    take_arn,
    take_call_options,
    take_model,
)

ARN = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc"


def taken(*fields: str, **params: Any) -> tuple[CallOptions, dict[str, Any]]:
    """Return what was taken out of the arguments, and what is left of them."""
    return take_call_options(params, "stability/sd3", fields), params


def refused(*fields: str, **params: Any) -> dict[str, str]:
    """Return the problems of these arguments by their names."""
    with pytest.raises(InvalidRequest) as caught:
        taken(*fields, **params)
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("name", ["num_retries", "max_retries"])
@pytest.mark.parametrize(("value", "fits"), [(0, True), (1, True), (20, True), (21, False), (-1, False)])
def test_retries_are_from_0_to_20(name: str, value: int, fits: bool) -> None:
    assert MOST_RETRIES == 20
    if fits:
        options, left = taken(**{name: value})
        assert options.retry == Retry(attempts=value + 1, refused=value)
        assert left == {}
    else:
        assert list(refused(**{name: value})) == [name]


def test_two_names_of_one_argument_agree_or_are_refused() -> None:
    assert taken(num_retries=2, max_retries=2)[0].retry == Retry(attempts=3, refused=2)
    assert list(refused(num_retries=2, max_retries=3)) == ["max_retries"]
    assert taken(base_url="http://a", api_base="http://a")[1] == {"api_base": "http://a"}
    assert taken(base_url="http://a", api_base=None)[1] == {"api_base": "http://a"}
    assert list(refused(base_url="http://a", api_base="http://b")) == ["base_url"]
    assert taken(request_timeout=5, timeout=5.0)[0].timeout == 5
    assert list(refused(request_timeout=5, timeout=6)) == ["request_timeout"]


class HttpxTimeout:
    """An httpx.Timeout, by its attributes."""

    def __init__(self, read: float | None) -> None:
        self.connect, self.read, self.write, self.pool = 5.0, read, 5.0, 5.0


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("600", 600), ("0.5", 0.5), (HttpxTimeout(30.0), 30), (HttpxTimeout(None), None), ("soon", "soon"), ("-1", "-1")],
)
def test_a_timeout_may_be_text_or_an_object_of_httpx(timeout: object, seconds: float | str | None) -> None:
    assert taken(timeout=timeout)[0].timeout == seconds


def test_a_missing_option_is_not_set() -> None:
    options, left = taken(timeout=None, num_retries=None, additional_drop_params=None, metadata=None, base_url=None)
    assert (options.timeout, options.retry, options.dropped) == (None, None, ())
    assert options.hidden_params == {"model": "stability/sd3", "custom_llm_provider": "stability"}
    assert set(left.values()) <= {None}


def test_options_of_the_call_are_taken_and_the_models_fields_are_left() -> None:
    options, left = taken("metadata", "tags", timeout=30, metadata={"a": 1}, litellm_call_id="7", tags=["x"], seed=5)
    assert (options.timeout, options.hidden_params["litellm_call_id"]) == (30, "7")
    assert "metadata" not in options.hidden_params
    assert left == {"metadata": {"a": 1}, "tags": ["x"], "seed": 5}


@pytest.mark.parametrize("value", [{}, [], "", False, None])
def test_a_value_that_asks_for_nothing_is_taken_away(value: object) -> None:
    assert taken(caching=value, extra_headers=value)[1] == {}


@pytest.mark.parametrize("value", [0, 0.0, (), True, {"a": 1}, "x", b""])
def test_a_value_that_only_looks_like_nothing_is_refused(value: object) -> None:
    assert list(refused(caching=value)) == ["caching"]


def test_certificates_are_verified_and_a_request_not_to_is_refused() -> None:
    assert set(refused(ssl_verify=False)) == {"ssl_verify"}
    assert taken(ssl_verify=True)[1] == {}


def test_every_problem_is_told_at_once() -> None:
    problems = refused(
        caching=True, num_retries=21, max_retries="x", additional_drop_params=7, base_url="a", api_base="b"
    )
    assert list(problems) == ["caching", "base_url", "num_retries", "max_retries", "additional_drop_params"]


@pytest.mark.parametrize(
    ("names", "fits"), [(["style"], True), (("style",), True), ([], True), ("style", False), ([1], False)]
)
def test_names_to_drop_are_a_list_of_text(names: object, fits: bool) -> None:
    if fits:
        assert taken(additional_drop_params=names)[0].dropped == tuple(cast("list[str]", names))
    else:
        assert list(refused(additional_drop_params=names)) == ["additional_drop_params"]


@pytest.mark.parametrize(
    ("model", "provider", "whole"),
    [
        ("stability/sd3", None, "stability/sd3"),
        ("sd3", None, "sd3"),
        ("sd3", "stability", "stability/sd3"),
        ("stability/sd3", "stability", "stability/sd3"),
        ("stability.core", "bedrock", "bedrock/stability.core"),
        ("stabilityx/sd3", "stability", "stability/stabilityx/sd3"),
    ],
)
def test_a_model_and_its_provider_are_one_name(model: str, provider: str | None, whole: str) -> None:
    params = {"model": model, "custom_llm_provider": provider, "prompt": "p"}
    assert take_model(params) == whole
    assert params == {"prompt": "p"}


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"model": "sd3", "custom_llm_provider": ""}, "custom_llm_provider"),
        ({"model": "sd3", "custom_llm_provider": "a/b"}, "custom_llm_provider"),
        ({"model": "sd3", "custom_llm_provider": 7}, "custom_llm_provider"),
        ({"custom_llm_provider": "stability"}, "model"),
    ],
    ids=str,
)
def test_a_call_without_a_model_is_refused(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        take_model(dict(params))
    assert [problem.field for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(
    ("model", "base", "id", "called"),
    [
        ("bedrock/stability.core", None, ARN, (f"bedrock/{ARN}", "bedrock/stability.core")),
        ("bedrock/stability.core", "bedrock/other", ARN, (f"bedrock/{ARN}", "bedrock/other")),
        ("bedrock/stability.core", None, "my-model", None),
        ("bedrock/stability.core", None, 7, None),
        ("stability/core", None, ARN, None),
        ("bedrock/stability.core", None, None, None),
    ],
)
def test_an_arn_is_called_for_a_bedrock_model_alone(
    model: str, base: str | None, id: object, called: tuple[str, str] | None
) -> None:
    params: dict[str, Any] = {"model_id": id}
    assert take_arn(params, model, base) == (called or (model, base))
    assert params == ({} if called else {"model_id": id})  # where it is refused by name
