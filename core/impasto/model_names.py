"""What a model is called by: a name that is looked up, or an address whose body another model builds."""

from __future__ import annotations

from .errors import ConfigError, UnknownOperation


def address_in(model: str, base_model: str | None) -> str | None:
    """The ARN in a ``bedrock/arn:...`` model, whose body ``base_model`` builds; None for a model with a name."""
    if not isinstance(model, str):
        raise UnknownOperation(f"a model is named by text, such as 'stability/sd3.5-large', not {type(model).__name__}")
    provider, _, rest = model.partition("/")
    if not rest.startswith("arn:"):
        if base_model is not None:
            raise ConfigError("base_model goes with a bedrock/arn:... model only; leave it out")
        return None
    if base_model is None or not base_model.startswith(f"{provider}/"):
        raise ConfigError(
            f"an ARN does not say which model it serves: give base_model, such as {provider}/stability..."
        )
    if rest.count(":") < 5:
        raise ConfigError("the ARN is cut short; it has at least six parts between colons")
    return rest
