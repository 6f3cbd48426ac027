"""Whose settings a call's arguments are."""

import attrs
import pytest

from impasto import Operation, Provider, Registry
from impasto_plugins.openai_compat.settings import split_settings

KEYS: dict[str, object] = {"api_key": "sk-1", "api_base": "https://example.com"}
AWS: dict[str, object] = {
    "aws_region_name": "us-west-2",
    "aws_access_key_id": "AKIA",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token",
    "aws_profile_name": "studio",
    "aws_bedrock_runtime_endpoint": "https://bedrock.example.com",
}


def of(provider: str) -> Operation:
    operation = Registry().operation("stability/sd3")
    return attrs.evolve(operation, provider=Provider(name=provider, base_url="https://example.com"))


@pytest.mark.parametrize("provider", ["stability", "acme"])
def test_a_key_is_that_of_the_models_own_provider(provider: str) -> None:
    settings, others = split_settings(of(provider), {**KEYS, "prompt": "a", **AWS})
    assert settings == {"providers": {provider: KEYS}, "poll_interval": None}
    assert others == {"prompt": "a", **AWS}  # where they are refused by name


def test_a_missing_setting_does_not_hide_the_environment() -> None:
    settings, others = split_settings(of("stability"), {**dict.fromkeys(KEYS), **dict.fromkeys(AWS)})
    assert settings == {"providers": {"stability": {}}, "poll_interval": None}
    assert set(others.values()) <= {None}


def test_aws_arguments_are_bedrocks() -> None:
    settings, others = split_settings(of("bedrock"), {**KEYS, "prompt": "a", **AWS})
    assert settings == {
        "aws_region": "us-west-2",
        "aws_access_key_id": "AKIA",
        "aws_secret_access_key": "secret",
        "aws_session_token": "token",
        "aws_profile": "studio",
        "bedrock_endpoint": "https://bedrock.example.com",
        "providers": {"bedrock": {"api_key": KEYS["api_key"]}},
        "poll_interval": None,
    }
    assert others == {"prompt": "a", "api_base": KEYS["api_base"]}
