"""The gateway's configuration, made of the records that check it."""

from __future__ import annotations

import attrs

from impasto.fields import KEY, Field
from impasto_gateway.config import S3, Config, Files, General, Info, Named, Params, Wording
from impasto_gateway.config_yaml import ADVICE

from .text import code, doc, page, table

SECTIONS: dict[str, type[attrs.AttrsInstance]] = {
    "model_list[].litellm_params": Params,
    "model_list[].model_info": Info,
    "litellm_settings": Wording,
    "general_settings": General,
    "keys[]": Named,
    "files": Files,
    "files.s3": S3,
}
LISTS = [field for field in attrs.fields(Config) if field.name in ("allowed_hosts", "middleware")]
"""They stand in ``general_settings`` and are no fields of its record."""

_INTRODUCTION = """
Every key of `config.yaml` with what it takes. [The gateway](../gateway.md) says what they are for. Any value may be
`os.environ/NAME`. `provider_params` is another name for `litellm_params`.
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


def _section(name: str, record: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    fields = [*attrs.fields(record), *(LISTS if record is General else ())]
    rows = [[code(field.name), _takes(field), _default(field)] for field in fields]
    return f"## {name}", doc(record), table(["key", "takes", "default"], rows)


def _takes(field: attrs.Attribute[object]) -> str:
    if isinstance(spec := field.metadata.get(KEY), Field):
        return spec.takes()
    return {"bool": "true or false", "S3 | None": "the keys of `files.s3`"}.get(str(field.type), "a list of texts")


def _default(field: attrs.Attribute[object]) -> str:
    if field.default is attrs.NOTHING:
        return "**required**"
    return "" if field.default in (None, ()) else code(str(field.default).lower())
