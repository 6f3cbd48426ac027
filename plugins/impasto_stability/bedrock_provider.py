"""Amazon Bedrock as a provider: AWS's regions, credentials and endpoints in place of a key and a base URL."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs

from impasto import Account, ConfigError, Cost, FlatPrice, Provider
from impasto.provider import check_base_url, check_key, check_known

AS_OF = "2026-11"
GENERATOR_REGIONS = ("us-west-2",)
SERVICE_REGIONS = ("us-east-1", "us-east-2", "us-west-2")
_SECRETS = ("secret_access_key", "session_token", "access_key_id")
_SETTINGS = ("region", "endpoint", "profile", "access_key_id", "secret_access_key", "session_token", "arn_region")
_BEARER = "AWS_BEARER_TOKEN_BEDROCK"


@attrs.frozen(kw_only=True, eq=False)
class BedrockProvider(Provider):
    """Finds region and endpoint as documented; what it does not find, botocore looks for when its client opens."""

    def account(self, settings: Mapping[str, object], *, stand_in: str | None = None) -> Account:
        """Region order: explicit, the ARN's, AWS_REGION_NAME, AWS_REGION, then boto3's own. Raises ConfigError."""
        check_known(self.name, settings, _SETTINGS)
        given = {name: value for name, value in settings.items() if value is not None}
        for name, value in given.items():
            if not isinstance(value, str) or not value:
                raise ConfigError(f"bedrock: {name} must be text and not empty")
        found = {name: str(value) for name, value in given.items() if name != "arn_region"}
        region = found.get("region") or given.get("arn_region") or _from("AWS_REGION_NAME", "AWS_REGION")
        endpoint = found.get("endpoint") or stand_in or _from("AWS_BEDROCK_RUNTIME_ENDPOINT")
        explicit_key = "access_key_id" in found or "secret_access_key" in found
        if explicit_key:
            check_key(found.get("access_key_id", ""))
            check_key(found.get("secret_access_key", ""))
        if stand_in is not None:
            region = region or GENERATOR_REGIONS[0]
            if not explicit_key and not found.get("profile"):
                found |= {"access_key_id": "emulator", "secret_access_key": "emulator"}
        if explicit_key or "profile" in found or stand_in is not None:
            found["signature"] = "v4"  # else a bearer token in the environment would beat what was given
        elif (token := os.environ.get(_BEARER)) is not None:
            if not token.strip():
                raise ConfigError(f"{_BEARER} is set but empty, which would be sent as a key: unset it")
            check_key(token)
            found["bearer"] = token
        if region:
            found["region"] = str(region)
        if endpoint:
            found["endpoint"] = check_base_url(endpoint, "bedrock_endpoint")
        return Account(
            provider=self,
            base_url=found.get("endpoint", self.base_url),
            headers={},
            secrets=tuple(found[name] for name in (*_SECRETS, "bearer") if name in found),
            settings=found,
        )


def _from(*variables: str) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


bedrock = BedrockProvider(
    name="bedrock", base_url="https://bedrock-runtime.us-west-2.amazonaws.com", transport="bedrock"
)


def usd(number: float) -> FlatPrice:
    """A price in USD per picture."""
    return FlatPrice(cost=Cost(usd=number, as_of=AS_OF))
