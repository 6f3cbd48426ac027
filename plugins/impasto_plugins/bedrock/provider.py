"""Amazon Bedrock as a provider: AWS regions, credentials and endpoints instead of a key and a base URL."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping

import attrs

from impasto import Account, ConfigError, Provider
from impasto.ext import check_base_url, check_key, check_setting_names

_EMULATOR_REGION = "us-west-2"
_SECRETS = ("secret_access_key", "session_token", "access_key_id")
_SETTINGS = ("api_key", "region", "endpoint", "profile", *reversed(_SECRETS), "arn_region")
_BEARER = "AWS_BEARER_TOKEN_BEDROCK"


@attrs.frozen(kw_only=True, eq=False)
class BedrockProvider(Provider):
    """Amazon Bedrock. Finds region and endpoint as documented; botocore finds the rest when it is first needed.

    ``api_key`` is a Bedrock API key, sent as a bearer token. Of the environment's credentials only this token is read
    here, in AWS's own order: explicit keys, an explicit profile, the bearer token, then everything that boto3 finds.
    """

    def account(self, settings: Mapping[str, object], *, emulator_url: str | None = None) -> Account:
        """Return the account. Order of regions: explicit, the ARN's, AWS_REGION_NAME, AWS_REGION, then boto3's own.

        Raises ConfigError.
        """
        check_setting_names(self.name, settings, _SETTINGS)
        found = _check_settings({name: value for name, value in settings.items() if value is not None})
        arn_region, bearer = found.pop("arn_region", None), found.pop("api_key", None)
        region = found.get("region") or arn_region or _from("AWS_REGION_NAME", "AWS_REGION")
        endpoint = found.get("endpoint") or emulator_url or _from("AWS_BEDROCK_RUNTIME_ENDPOINT")
        if emulator_url is not None:
            region = region or _EMULATOR_REGION
            if bearer is None and not found.keys() & {"access_key_id", "profile"}:
                found |= {"access_key_id": "emulator", "secret_access_key": "emulator"}
        if bearer is not None:
            found["bearer"] = bearer
        elif not found.keys() & {"access_key_id", "profile"}:
            found |= _bearer()
        if region:
            found["region"] = _region(region)
        if endpoint:
            found["endpoint"] = check_base_url(endpoint, "bedrock_endpoint", with_path=True)
        found["environment"] = _environment()
        secrets = [found[name] for name in (*_SECRETS, "bearer") if name in found]
        secrets += [value for name in _SECRETS if (value := os.environ.get(f"AWS_{name.upper()}"))]
        return Account(
            provider=self,
            base_url=found.get("endpoint") or _endpoint_of_environment() or self.base_url,
            headers={},
            secrets=tuple(secrets),
            settings=found,
        )


def _check_settings(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the settings as text. Raises ConfigError."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if not isinstance(value, str) or not value:
            raise ConfigError(f"bedrock: {name} must be text and not empty")
        found[name] = check_key(value, f"aws_{name}") if name in _SECRETS else value
    if "api_key" in found:
        check_key(found["api_key"], "the Bedrock API key")
        if others := sorted(found.keys() & {"access_key_id", "profile"}):
            raise ConfigError(f"bedrock: api_key and aws_{others[0]} are two ways to sign in; give one of them")
    if ("access_key_id" in found) != ("secret_access_key" in found):
        raise ConfigError("incomplete AWS credentials: give both aws_access_key_id and aws_secret_access_key")
    if "session_token" in found and "access_key_id" not in found:
        raise ConfigError("aws_session_token needs aws_access_key_id and aws_secret_access_key: give all three")
    return found


def _region(name: str) -> str:
    """Return a region's name, which becomes part of a host name. Raises ConfigError."""
    if not re.fullmatch(r"[a-z0-9-]{1,63}", name):
        raise ConfigError("invalid AWS region: give one such as us-west-2")
    return name


def _bearer() -> dict[str, str]:
    token = os.environ.get(_BEARER)
    if token is None:
        return {}
    if not token.strip():
        raise ConfigError(f"{_BEARER} is set but empty: give it a key or unset it")
    return {"bearer": check_key(token, _BEARER)}


def _from(*variables: str) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


def _endpoint_of_environment() -> str | None:
    """Return the endpoint that botocore takes from the environment; a profile's is known only when it is opened."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return _from("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL")


def _environment() -> str:
    """Return a digest of everything in the environment that botocore may read: if it changes, the account does too."""
    assignments = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("AWS_"))
    return hashlib.sha256("\n".join(assignments).encode("utf-8", "surrogateescape")).hexdigest()


bedrock = BedrockProvider(
    name="bedrock", base_url="https://bedrock-runtime.us-west-2.amazonaws.com", transport="bedrock"
)
