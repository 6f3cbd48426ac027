"""OpenAI's parameters that a model may have no field for: neutral values, and what to use instead."""

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
    "quality": "takes auto and standard only; choose a model of another quality instead",
    "background": "takes auto and opaque only; use a model that removes backgrounds for a transparent one",
    "moderation": "takes auto only: the provider's moderation can't be set",
    "output_compression": "takes 100 only; use output_format, as jpeg and webp are smaller",
    "stream": "a picture comes whole: leave it out and take the answer's data",
    "num_retries": "goes to the functions as an argument, or to impasto.Client(retry=impasto.Retry(...))",
    "max_retries": "goes to the functions as an argument, or to impasto.Client(retry=impasto.Retry(...))",
    "custom_llm_provider": "name the provider in model, as in stability/sd3.5-large",
    "extra_headers": "headers can't be added; user goes out as one",
    "extra_query": "the provider takes no query",
    "api_key": "is a setting of the client, not of a model; the functions take it as an argument",
    "model_id": "takes an ARN, for a bedrock/ model; any other id goes into model, as in bedrock/stability...",
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
    """Return why a model with these fields does not take a word, and what to use instead."""
    fields = list(fields)
    if (candidates := _INSTEAD.get(word)) is not None:
        usable = [name for name in candidates if name in fields]
        if usable:
            return f"is not taken; use {' or '.join(usable)} instead"
        return f"is not taken, and this model has no {' or '.join(candidates)}; leave it out"
    word = _MEANT.get(_letters(word), word)
    if (instead := _ADVICE.get(word)) is not None:
        return instead
    if word in AWS:
        return "goes with bedrock/ models only; leave it out"
    if word.startswith("aws_"):
        return f"is no setting; there are {', '.join(AWS)}, and a role belongs in the profile"
    names = [name for name in WORDS if name not in (*NEUTRAL, *_INSTEAD) and (name in fields or name in _ALWAYS)]
    near = closest(word, dict.fromkeys([*fields, *names]), 1)
    hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(fields)}"
    return f"is no parameter of this model; {hint}"
