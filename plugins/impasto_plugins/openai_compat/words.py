"""OpenAI's parameters that a model may have no field for: their neutral values and their replacements."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from impasto.ext import closest

from .settings import AWS

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "quality": ("auto", "standard"),
    "background": ("auto", "opaque"),
    "moderation": ("auto",),
    "output_compression": (100,),
    "stream": (False,),
    "style": ("vivid",),
    "input_fidelity": ("low",),
}
"""OpenAI's defaults, which several clients always send and which change nothing here."""

MOST_PARTIAL_IMAGES = 3

_INSTEAD: Mapping[str, tuple[str, ...]] = {
    "style": ("style_preset",),
    "input_fidelity": ("strength", "fidelity", "composition_fidelity", "control_strength"),
}
"""Fields of models that serve the same purpose."""

_ADVICE: Mapping[str, str] = {
    "quality": "must be auto or standard; choose another model for another quality",
    "background": "must be auto or opaque; for a transparent background use a model that removes backgrounds",
    "moderation": "must be auto: the provider's moderation can't be set",
    "output_compression": "must be 100, as this model has no field for it; output_format jpeg or webp is smaller",
    "stream": "is an argument of the functions, true or false; leave it out elsewhere",
    "num_retries": "retries are a setting of the client or the gateway; leave it out",
    "max_retries": "retries are a setting of the client or the gateway; leave it out",
    "custom_llm_provider": "name the provider in model, as in stability/sd3.5-large",
    "extra_headers": "headers can't be added; use user, which is sent as a header",
    "extra_query": "the provider has no query parameters; leave it out",
    "api_key": "is a setting of the client, not of a model; the functions take it as an argument",
    "model_id": "must be an ARN, and needs a bedrock/ model; put any other id into model, as in bedrock/stability...",
    "api_base": "is a setting of the client, not of a model; the functions take it as an argument, "
    "for bedrock/ models as another word for aws_bedrock_runtime_endpoint",
}

WORDS = (
    *("prompt", "image", "mask", "n", "size", "response_format", "user", "output_format", "partial_images"),
    *NEUTRAL,
    *_INSTEAD,
)
"""OpenAI's parameters, some of which a model may not use."""

_ALWAYS = ("prompt", "n", "size", "response_format", "user", "partial_images")
"""Parameters that every model's call accepts, some only with a warning."""

_NEVER_DROPPED = (
    *("api_base", "base_url", "endpoint_url", "api_key", "base_model", "timeout", "request_timeout"),
    *("headers", "extra_headers", "default_headers", "extra_query"),
    *("proxy", "proxies", "http_proxy", "https_proxy", "ssl", "ssl_verify", "stream"),
)


def _letters(word: str) -> str:
    """Return the letters and digits of a name alone: ``API-Base`` and ``apiBase`` are meant as ``api_base`` is."""
    return _BETWEEN.sub("", unicodedata.normalize("NFKC", word[:_LONGEST]).casefold())


_LONGEST = 64
"""Characters of a name that are looked at: a body may have thousands of long ones."""

_BETWEEN = re.compile(r"[\W_]+")
_MEANT = {_letters(name): name for name in (*AWS, *_NEVER_DROPPED)}


def may_be_dropped(word: str) -> bool:
    """Return False for a name whose caller must not believe that it was honoured, however it is spelt.

    Such a name says where a call goes, with whose key and for how long. Whoever asks for a stream can't read another
    answer, once it is paid for.
    """
    letters = _letters(word)
    return letters not in _MEANT and not (letters.startswith("aws") and len(letters) < len(word[:_LONGEST]))


def is_neutral(word: str, value: object) -> bool:
    """Return True if the value asks for nothing special."""
    kind = str if isinstance(value, str) else type(value)
    return any(kind is type(each) and value == each for each in NEUTRAL.get(word, ()))


def advice(word: str, fields: Iterable[str]) -> str:
    """Return the reason why a model with these fields rejects a word, and its replacement."""
    fields, original = list(fields), word[:60]
    if (candidates := _INSTEAD.get(word)) is not None:
        usable = [name for name in candidates if name in fields]
        if usable:
            return f"is not supported; use {' or '.join(usable)} instead"
        return "is not supported by this model; leave it out"
    word = _MEANT.get(_letters(word), word)
    if (instead := _ADVICE.get(word)) is not None:
        return instead
    if word in AWS:
        return "is for bedrock/ models only; leave it out"
    if word.startswith("aws_"):
        return f"unknown setting; allowed: {', '.join(AWS)}; configure a role in the AWS profile"
    names = [name for name in WORDS if name not in (*NEUTRAL, *_INSTEAD) and (name in fields or name in _ALWAYS)]
    near = closest(word, dict.fromkeys([*fields, *names]), 1)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(fields)}"
    return f"unknown parameter {original!r}; {hint}"
