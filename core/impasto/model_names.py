"""Model names, and ARNs whose request another model builds."""

from __future__ import annotations

import re

from .errors import ConfigError, UnknownOperation
from .redact import kind_in_words

_NAMING = ("foundation-model", "inference-profile")
"""Kinds of resources whose ARN ends with the model's own id."""

_GEOGRAPHY = re.compile(r"^[a-z]{2,6}(-[a-z]{3})?\.(?=[a-z0-9-]+\.)")
"""The regions of a profile, before the id of the model that it serves: ``us.``, ``eu.``, ``apac.``, ``us-gov.``."""


def resolve_model(model: str, base_model: str | None = None) -> tuple[str, str | None]:
    """Return the name to look up, and the ARN to call; None for a model that is called by its name.

    ``model``: a name, or ``bedrock/arn:...``. ``base_model`` names the model that builds the body for an ARN, with its
    provider or without; an ARN that ends with its model's id needs none. Raises ConfigError.
    """
    if not isinstance(model, str):
        raise UnknownOperation(f"the model must be text, such as 'stability/sd3.5-large', not {kind_in_words(model)}")
    if model.startswith("arn:"):
        raise UnknownOperation("an ARN needs its provider before it; give bedrock/arn:...")
    provider, _, arn = model.partition("/")
    if not arn.startswith("arn:"):
        if base_model is not None:
            raise ConfigError("base_model is allowed with a bedrock/arn:... model only; leave it out")
        return model, None
    if arn.count(":") < 5:
        raise ConfigError("invalid ARN; it must have at least six parts between colons")
    if base_model is None:
        kind, _, base_model = arn.split(":", 5)[5].partition("/")
        if kind not in _NAMING or not base_model:
            raise ConfigError(f"this ARN does not name its model; give base_model, such as {provider}/stability...")
    base_name: object = base_model
    if not isinstance(base_name, str) or ("/" in base_name and not base_name.startswith(f"{provider}/")):
        raise ConfigError(f"base_model must be a model of {provider}, such as {provider}/stability...")
    return f"{provider}/{_GEOGRAPHY.sub('', base_name.removeprefix(f'{provider}/'))}", arn
