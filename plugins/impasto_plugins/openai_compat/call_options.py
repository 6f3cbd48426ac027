"""LiteLLM's arguments that say how to call: each has its meaning here, or is refused by name with what to use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import attrs

from impasto import InvalidRequest, Problem, Retry
from impasto.fields import shown

MOST_RETRIES = 20

REFUSED: Mapping[str, str] = {
    "extra_headers": "headers can't be added; user goes out as one",
    "headers": "headers can't be added; user goes out as one",
    "default_headers": "headers can't be added; user goes out as one",
    "extra_query": "the provider takes no query; leave it out",
    "api_version": "is Azure's; leave it out, as the version belongs to the model here",
    "deployment_id": "is Azure's; name the model instead",
    "organization": "is OpenAI's; the key decides whose account pays",
    "allowed_openai_params": "leave it out: parameters are translated, or refused by name",
    "mock_response": 'use impasto.Client(transport="emulator"), which costs nothing',
    "mock_timeout": 'use impasto.Client(transport="emulator"), which has faults for tests',
    "fallbacks": "a call has one model; the gateway has several deployments of one model_name",
    "context_window_fallback_dict": "a call has one model; leave it out",
    "caching": "nothing is cached; a middleware can, see the example impasto-cache",
    "cache": "nothing is cached; a middleware can, see the example impasto-cache",
    "input_cost_per_image": "prices belong to the models; the gateway's configuration can set them",
    "input_cost_per_pixel": "prices belong to the models; the gateway's configuration can set them",
    "output_cost_per_image": "prices belong to the models; the gateway's configuration can set them",
    "ssl_verify": "use impasto.Client(ssl=...) with the path of a CA file",
    "client": "use impasto.Client for a client of your own",
    "shared_session": "use impasto.Client for a client of your own",
    "logger_fn": "use logging: the logger is impasto",
    "azure_ad_token": "is Azure's; leave it out",
    "azure_ad_token_provider": "is Azure's; leave it out",
    "tags": "use metadata, which comes back in response.hidden_params",
    "model_info": "use metadata, which comes back in response.hidden_params",
    "proxy_server_request": "belongs to LiteLLM's proxy; leave it out",
    "litellm_logging_obj": "belongs to LiteLLM's proxy; leave it out",
}
_NEUTRAL: tuple[object, ...] = ({}, [], "", False)
"""Values of the names above that ask for nothing."""

_RETURNED = ("metadata", "litellm_metadata", "litellm_call_id")
"""What a caller wants back beside the response. It is sent nowhere."""


@attrs.frozen(kw_only=True)
class CallOptions:
    """How to call. ``hidden_params`` go into the response, ``dropped`` are the parameters that are left out."""

    timeout: float | None
    retry: Retry | None
    dropped: tuple[str, ...]
    hidden_params: Mapping[str, object] = attrs.field(repr=False)


def take_call_options(given: dict[str, Any], model: str, fields: Collection[str]) -> CallOptions:
    """Take every argument that says how to call out of ``given``; what the model has a field for stays there.

    Raises InvalidRequest with all problems that these arguments have.
    """
    problems: list[Problem] = []
    hidden = {name: given.pop(name) for name in _RETURNED if given.get(name) is not None and name not in fields}
    for name in sorted(REFUSED.keys() & given.keys() - fields):
        value = given.pop(name)
        if value is not None and not any(type(value) is type(each) and value == each for each in _NEUTRAL):
            problems.append(Problem(name, REFUSED[name]))
    _rename(given, "base_url", "api_base", problems)
    _rename(given, "request_timeout", "timeout", problems)
    retry = _retry(given, problems)
    dropped = _dropped(given, problems)
    if problems:
        raise InvalidRequest(problems)
    provider = model.partition("/")[0]
    return CallOptions(
        timeout=given.pop("timeout", None),
        retry=retry,
        dropped=dropped,
        hidden_params={"model": model, "custom_llm_provider": provider, **hidden},
    )


def take_model(given: dict[str, Any]) -> str:
    """Take the whole name of the model, whose provider may be given apart. Raises InvalidRequest."""
    model, provider = given.pop("model", None), given.pop("custom_llm_provider", None)
    if provider is not None and (not isinstance(provider, str) or not provider or "/" in provider):
        problem = Problem("custom_llm_provider", f"must be a provider's name, not {shown(provider)}")
    elif not isinstance(model, str) or not model:
        problem = Problem("model", "required: a provider and its model, as in stability/sd3.5-large")
    elif provider is None or model.startswith(f"{provider}/"):
        return model
    else:
        return f"{provider}/{model}"
    raise InvalidRequest([problem])


def take_arn(given: dict[str, Any], model: str, base_model: str | None) -> tuple[str, str | None]:
    """Take ``model_id``, LiteLLM's name for the ARN at which a ``bedrock/`` model is called: the model and its base."""
    arn = given.get("model_id")
    if not isinstance(arn, str) or not arn.startswith("arn:") or not model.startswith("bedrock/"):
        return model, base_model
    del given["model_id"]
    return f"bedrock/{arn}", base_model if base_model is not None else model


def _rename(given: dict[str, Any], alias: str, name: str, problems: list[Problem]) -> None:
    value = given.pop(alias, None)
    if value is None:
        return
    if given.get(name) is not None and given[name] != value:
        problems.append(Problem(alias, f"is another word for {name}, which is given too; leave one out"))
    given[name] = value


def _retry(given: dict[str, Any], problems: list[Problem]) -> Retry | None:
    """Return the retries that were asked for: only what is proved to have cost nothing is ever sent again."""
    counts = {}
    for name in ("num_retries", "max_retries"):
        value = given.pop(name, None)
        if value is None:
            continue
        if type(value) is not int or not 0 <= value <= MOST_RETRIES:
            problems.append(Problem(name, f"must be a whole number from 0 to {MOST_RETRIES}, not {shown(value)}"))
        else:
            counts[name] = value
    if len(set(counts.values())) > 1:
        problems.append(Problem("max_retries", "is another word for num_retries, which is given too; leave one out"))
    if not counts:
        return None
    times = next(iter(counts.values()))
    return Retry(attempts=times + 1, refused=times)


def _dropped(given: dict[str, Any], problems: list[Problem]) -> tuple[str, ...]:
    names = given.pop("additional_drop_params", None)
    if names is None:
        return ()
    if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
        problems.append(Problem("additional_drop_params", f"must be a list of names, not {shown(names)}"))
        return ()
    return tuple(cast("Sequence[str]", names))
