"""Arguments of a call that say how to reach a provider, as a client's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from impasto import Operation
from impasto.ext import Settings

_KEY = ("api_key", "api_base")
AWS: dict[str, str] = {
    "aws_region_name": "aws_region",
    "aws_access_key_id": "aws_access_key_id",
    "aws_secret_access_key": "aws_secret_access_key",
    "aws_session_token": "aws_session_token",
    "aws_profile_name": "aws_profile",
    "aws_bedrock_runtime_endpoint": "bedrock_endpoint",
}


def own_settings(operation: Operation) -> tuple[str, ...]:
    """Return the names of the settings that the model's provider declares; a parameter of that name goes first."""
    return tuple(name for name in operation.provider.settings if name not in operation.fields)


def split_settings(operation: Operation, arguments: Mapping[str, object]) -> tuple[Settings, dict[str, object]]:
    """Return the settings for the model's provider, and every other argument.

    ``api_key``, ``api_base`` and the settings that it declares belong to the model's provider, ``aws_...`` to Bedrock,
    which takes an ``api_key`` too: a Bedrock API key, and ``api_base`` as another word for its endpoint. A setting
    that the provider does not take, or one that conflicts with another, stays among the others, which refuse it by
    name.
    """
    is_bedrock = operation.provider.name == "bedrock"
    words = AWS if is_bedrock else {name: name for name in (*_KEY, *own_settings(operation))}
    found: dict[str, object] = {
        words[name]: value for name, value in arguments.items() if name in words and value is not None
    }
    others = {name: value for name, value in arguments.items() if name not in words}
    # A sibling client is made for each call, so the environment counts as it is now: None reads it again.
    if is_bedrock:
        key = others.pop("api_key", None)
        if (base := others.get("api_base")) is not None and found.setdefault("bedrock_endpoint", base) == base:
            del others["api_base"]
        own = {"providers": {"bedrock": {"api_key": key}}} if key is not None else {}
        return cast(Settings, {**found, **own, "poll_interval": None}), others
    return Settings(providers={operation.provider.name: found}, poll_interval=None), others
