"""The page about the gateway's configuration, from the records that check it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

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
_GUIDE = Path(__file__).parents[1] / "gateway.md"
_NAME = re.compile("`([a-z0-9_]+)`")
_LISTS = ("allowed_hosts", "cors_origins", "middleware", "plugins")
"""Keys of ``general_settings`` that are fields of ``Config``."""

_LIMITS = {
    "bool": "true or false",
    "bool | None": "true or false",
    "S3Config | None": "the keys of `files.s3`",
    "tuple[str, ...]": "a list of texts",
    "tuple[str, ...] | None": "a list of texts",
}
"""Limits of keys without a field of impasto's, by their type."""

_INTRODUCTION = """
Every key of `config.yaml` with its meaning, its limits and its default. [Deploy the gateway](../gateway.md) explains
how to use them. Any value may be `os.environ/NAME`. An entry of `model_list` has a `model_name`, the model's name for
clients, and `litellm_params`, which may also be called `provider_params`.
"""


def pages() -> dict[str, str]:
    """Return the page."""
    meanings = _meanings()
    parts = [part for name, record in SECTIONS.items() for part in _section(name, record, meanings)]
    advice = table(["key", "advice"], [[code(key), text] for key, text in ADVICE.items()])
    return {
        "reference/config.md": page(
            "# The gateway's configuration",
            _INTRODUCTION,
            *parts,
            "## Unsupported keys of LiteLLM",
            "Each of these keys is an error with this advice. A value that switches it off (`false`, `null`,\n"
            "`[]`, `{}`) is accepted with a warning:",
            advice,
        )
    }


def keys(record: type[attrs.AttrsInstance]) -> list[attrs.Attribute[object]]:
    """Return a section's keys: the record's, and in ``general_settings`` also lists of ``Config``."""
    lists = [field for field in attrs.fields(Config) if field.name in _LISTS]
    return [*attrs.fields(record), *(lists if record is GeneralSettings else ())]


def _section(name: str, record: type[attrs.AttrsInstance], meanings: Mapping[str, str]) -> tuple[str, ...]:
    title = name.rpartition(" ")[2]
    rows = [
        [code(key.name), meanings.get(f"{title}.{key.name}", ""), _limits(key), _default(key)] for key in keys(record)
    ]
    text = doc(record).removeprefix(f"`{title}`").lstrip(".:, ")
    return f"## {name}", text[:1].upper() + text[1:], table(["key", "meaning", "limits", "default"], rows)


def _meanings() -> dict[str, str]:
    """Return what the guide's tables say about each key, by the table's title and the key."""
    found: dict[str, str] = {}
    title = ""
    for line in _GUIDE.read_text("utf-8").splitlines():
        names, _, meaning = line.removeprefix("| ").removesuffix(" |").partition(" | ")
        if not line.startswith("| `"):
            continue
        if not meaning.strip(" |"):
            title = names.split("`")[1]
        else:
            found |= {f"{title}.{each}": meaning for each in _NAME.findall(names)}
    return found


def _limits(field: attrs.Attribute[object]) -> str:
    if isinstance(spec := field.metadata.get(KEY), Field):
        return spec.describe_constraint()
    # attrs.resolve_types, which cattrs calls, replaces the text of a type by the type
    words = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    return _LIMITS[words.removeprefix(f"{S3Config.__module__}.")]


def _default(field: attrs.Attribute[object]) -> str:
    if field.default is attrs.NOTHING:
        return "**required**"
    return "" if field.default in (None, ()) else code(str(field.default).lower())
