"""The gateway's configuration, made of the records that check it."""

from __future__ import annotations

import attrs

from impasto.fields import KEY, Field
from impasto_plugins.gateway.config.litellm import ADVICE
from impasto_plugins.gateway.config.model import (
    BatchesConfig,
    Config,
    DeploymentParams,
    FilesConfig,
    GeneralSettings,
    KeyConfig,
    LiteLLMSettings,
    ModelInfo,
    S3Config,
)

from .text import code, doc, page, table

SECTIONS: dict[str, type[attrs.AttrsInstance]] = {
    "model_list: litellm_params": DeploymentParams,
    "model_list: model_info": ModelInfo,
    "litellm_settings": LiteLLMSettings,
    "general_settings": GeneralSettings,
    "keys": KeyConfig,
    "files": FilesConfig,
    "files.s3": S3Config,
    "batches": BatchesConfig,
}
_INTRODUCTION = """
Every key of `config.yaml` with what it takes. [The gateway](../gateway.md) says what they are for. Any value may be
`os.environ/NAME`. An entry of `model_list` has a `model_name`, by which callers know the model, and `litellm_params`,
of which `provider_params` is another name.
"""


def pages() -> dict[str, str]:
    """One page."""
    parts = [part for name, record in SECTIONS.items() for part in _section(name, record)]
    advice = table(["key", "what to do"], [[code(key), text] for key, text in ADVICE.items()])
    return {
        "reference/config.md": page(
            "# The gateway's configuration",
            _INTRODUCTION,
            *parts,
            "## LiteLLM's keys that are not taken",
            "Each is refused with these words:",
            advice,
        )
    }


def keys(record: type[attrs.AttrsInstance]) -> list[attrs.Attribute[object]]:
    """A section's keys: the record's, and in ``general_settings`` the lists that stand in ``Config``."""
    lists = [field for field in attrs.fields(Config) if str(field.type).startswith("tuple[str, ...]")]
    return [*attrs.fields(record), *(lists if record is GeneralSettings else ())]


def _section(name: str, record: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    rows = [[code(field.name), _takes(field), _default(field)] for field in keys(record)]
    said = doc(record).removeprefix(f"`{name.rpartition(' ')[2]}`").lstrip(".:, ")
    return f"## {name}", said[:1].upper() + said[1:], table(["key", "takes", "default"], rows)


def _takes(field: attrs.Attribute[object]) -> str:
    if isinstance(spec := field.metadata.get(KEY), Field):
        return spec.describe_constraint()
    return {"bool": "true or false", "S3 | None": "the keys of `files.s3`"}.get(str(field.type), "a list of texts")


def _default(field: attrs.Attribute[object]) -> str:
    if field.default is attrs.NOTHING:
        return "**required**"
    return "" if field.default in (None, ()) else code(str(field.default).lower())
