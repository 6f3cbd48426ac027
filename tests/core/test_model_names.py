"""Names of models, and addresses whose body another model builds."""

from __future__ import annotations

import pytest

from impasto import ConfigError
from impasto.ext import resolve_model

PROFILE = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/a1b2"
MODEL = "arn:aws:bedrock:us-west-2::foundation-model/stability.sd3-5-large-v1:0"
NAMED = "arn:aws:bedrock:us-west-2:123456789012:inference-profile/us.stability.stable-image-erase-object-v1:0"


@pytest.mark.parametrize(
    ("model", "base", "name", "address"),
    [
        ("stability/sd3", None, "stability/sd3", None),
        ("sd3", None, "sd3", None),
        (f"bedrock/{MODEL}", None, "bedrock/stability.sd3-5-large-v1:0", MODEL),
        (f"bedrock/{NAMED}", None, "bedrock/stability.stable-image-erase-object-v1:0", NAMED),
        (f"bedrock/{PROFILE}", "stability.x", "bedrock/stability.x", PROFILE),
        (f"bedrock/{PROFILE}", "bedrock/stability.x", "bedrock/stability.x", PROFILE),
        ("bedrock/arn:a:b:c:d:e", "stability.x", "bedrock/stability.x", "arn:a:b:c:d:e"),
    ],
)
def test_a_name_or_an_address(model: str, base: str | None, name: str, address: str | None) -> None:
    assert resolve_model(model, base) == (name, address)


@pytest.mark.parametrize(
    ("model", "base", "message"),
    [
        ("stability/sd3", "stability.x", "base_model is allowed with a bedrock/arn:... model only"),
        ("bedrock/arn:a:b:c:d", "stability.x", "invalid ARN"),
        (f"bedrock/{PROFILE}", None, "does not name its model; give base_model, such as bedrock/stability"),
        ("bedrock/arn:aws:bedrock:r::foundation-model/", None, "does not name its model"),
        (f"bedrock/{PROFILE}", "stability/sd3", "base_model must be a model of bedrock, "),
        (f"bedrock/{PROFILE}", 5, "base_model must be a model of bedrock, "),
    ],
)
def test_an_invalid_model_name_is_refused(model: str, base: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_model(model, base)
