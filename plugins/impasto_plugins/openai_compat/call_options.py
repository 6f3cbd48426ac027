"""LiteLLM's arguments about the call itself: each is honoured, or rejected by name with its replacement."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import attrs

from impasto import InvalidRequest, Problem, Retry
from impasto.fields import format_value

MOST_RETRIES = 20
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

REFUSED: Mapping[str, str] = {
    "extra_headers": "headers can't be added; use user, which is sent as a header",
    "headers": "headers can't be added; use user, which is sent as a header",
    "default_headers": "headers can't be added; use user, which is sent as a header",
    "extra_query": "the provider has no query parameters; leave it out",
    "api_version": "is for Azure only; leave it out",
    "deployment_id": "is for Azure only; use model instead",
    "organization": "is for OpenAI only; leave it out, as the key selects the account",
    "allowed_openai_params": "not supported; leave it out: parameters are translated or rejected by name",
    "mock_response": 'use impasto.Client(transport="emulator"), which costs nothing',
    "mock_timeout": 'use impasto.Client(transport="emulator"), which has faults for tests',
    "fallbacks": "a call has one model; the gateway has several deployments of one model_name",
    "context_window_fallback_dict": "a call has one model; leave it out",
    "caching": "not supported; use a caching middleware, see the example impasto-cache",
    "cache": "not supported; use a caching middleware, see the example impasto-cache",
    "input_cost_per_image": "prices are part of the models; set other prices in the gateway's configuration",
    "input_cost_per_pixel": "prices are part of the models; set other prices in the gateway's configuration",
    "output_cost_per_image": "prices are part of the models; set other prices in the gateway's configuration",
    "ssl_verify": "use impasto.Client(ssl=...) with the path of a CA file",
    "client": "not supported; use impasto.Client to configure a client",
    "shared_session": "not supported; use impasto.Client to configure a client",
    "logger_fn": "not supported; use Python's logging, the logger is named impasto",
    "azure_ad_token": "is for Azure only; leave it out",
    "azure_ad_token_provider": "is for Azure only; leave it out",
    "tags": "not supported; use metadata, which is returned in response.hidden_params",
    "model_info": "not supported; use metadata, which is returned in response.hidden_params",
    "proxy_server_request": "is for LiteLLM's proxy only; leave it out",
    "litellm_logging_obj": "is for LiteLLM's proxy only; leave it out",
}
_NEUTRAL: tuple[object, ...] = ({}, [], "", False)
"""Values of the names above that change nothing, but for those that have others."""
_OWN_NEUTRAL: Mapping[str, tuple[object, ...]] = {"ssl_verify": (True,)}

_RETURNED = ("metadata", "litellm_metadata", "litellm_call_id")
"""Arguments that are returned with the response and sent nowhere."""


@attrs.frozen(kw_only=True)
class CallOptions:
    """Options of a call. ``hidden_params`` go into the response; ``dropped`` names parameters to leave out."""

    timeout: float | None
    retry: Retry | None
    dropped: tuple[str, ...]
    hidden_params: Mapping[str, object] = attrs.field(repr=False)


def take_call_options(arguments: dict[str, Any], model: str, fields: Collection[str]) -> CallOptions:
    """Remove every argument about the call itself from ``arguments``; ``fields``, of model and provider, stay.

    Raises InvalidRequest with all problems of these arguments.
    """
    problems: list[Problem] = []
    hidden = {name: arguments.pop(name) for name in _RETURNED if arguments.get(name) is not None and name not in fields}
    for name in sorted(REFUSED.keys() & arguments.keys() - fields):
        value = arguments.pop(name)
        neutral = _OWN_NEUTRAL.get(name, _NEUTRAL)
        if value is not None and not any(type(value) is type(each) and value == each for each in neutral):
            problems.append(Problem(name, REFUSED[name]))
    _rename(arguments, "base_url", "api_base", problems)
    _rename(arguments, "request_timeout", "timeout", problems)
    retry = _retry(arguments, problems)
    dropped = _additional_drop_params(arguments, problems)
    if problems:
        raise InvalidRequest(problems)
    provider = model.partition("/")[0]
    return CallOptions(
        timeout=_seconds(arguments.pop("timeout", None)),
        retry=retry,
        dropped=dropped,
        hidden_params={"model": model, "custom_llm_provider": provider, **hidden},
    )


def take_model(arguments: dict[str, Any]) -> str:
    """Return the whole name of the model; its provider may be a separate argument. Raises InvalidRequest."""
    model, provider = arguments.pop("model", None), arguments.pop("custom_llm_provider", None)
    if provider is not None and (not isinstance(provider, str) or not provider or "/" in provider):
        problem = Problem("custom_llm_provider", f"must be a provider's name, not {format_value(provider)}")
    elif not isinstance(model, str) or not model:
        problem = Problem("model", "required: a provider and its model, as in stability/sd3.5-large")
    elif provider is None or model.startswith(f"{provider}/"):
        return model
    else:
        return f"{provider}/{model}"
    raise InvalidRequest([problem])


def take_arn(arguments: dict[str, Any], model: str, base_model: str | None) -> tuple[str, str | None]:
    """Return the model and its base for ``model_id``, LiteLLM's name for the ARN of a ``bedrock/`` model."""
    arn = arguments.get("model_id")
    if not isinstance(arn, str) or not arn.startswith("arn:") or not model.startswith("bedrock/"):
        return model, base_model
    del arguments["model_id"]
    return f"bedrock/{arn}", base_model if base_model is not None else model


def _rename(arguments: dict[str, Any], alias: str, name: str, problems: list[Problem]) -> None:
    value = arguments.pop(alias, None)
    if value is None:
        return
    if arguments.get(name) is not None and arguments[name] != value:
        problems.append(Problem(alias, f"is another name for {name}, which has another value; leave one out"))
    arguments[name] = value


def _seconds(timeout: Any) -> Any:
    """Return the seconds of text, or those that an ``httpx.Timeout`` waits for an answer; the client checks them."""
    if hasattr(timeout, "connect") and hasattr(timeout, "read"):
        return timeout.read
    return float(timeout) if isinstance(timeout, str) and _SECONDS.fullmatch(timeout) else timeout


def _retry(arguments: dict[str, Any], problems: list[Problem]) -> Retry | None:
    """Return the retries to use: only what is proved to have cost nothing is ever sent again."""
    counts = {}
    for name in ("num_retries", "max_retries"):
        value = arguments.pop(name, None)
        if value is None:
            continue
        if type(value) is not int or not 0 <= value <= MOST_RETRIES:
            problems.append(
                Problem(name, f"must be a whole number from 0 to {MOST_RETRIES}, not {format_value(value)}")
            )
        else:
            counts[name] = value
    if len(set(counts.values())) > 1:
        problems.append(
            Problem("max_retries", "is another name for num_retries, which has another value; leave one out")
        )
    if not counts:
        return None
    times = next(iter(counts.values()))
    return Retry(attempts=times + 1, refused=times)


def _additional_drop_params(arguments: dict[str, Any], problems: list[Problem]) -> tuple[str, ...]:
    names = arguments.pop("additional_drop_params", None)
    if names is None:
        return ()
    if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
        problems.append(Problem("additional_drop_params", f"must be a list of names, not {format_value(names)}"))
        return ()
    return tuple(cast("Sequence[str]", names))
