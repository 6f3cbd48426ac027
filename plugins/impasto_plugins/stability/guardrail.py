"""Bedrock's guardrail: three fields of every model, sent as headers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from impasto import Problem
from impasto.fields import choice, text
from impasto.rules import Needs, Rule

HEADERS = {
    "guardrailIdentifier": "x-amzn-bedrock-guardrailidentifier",
    "guardrailVersion": "x-amzn-bedrock-guardrailversion",
    "trace": "x-amzn-bedrock-trace",
}


@attrs.frozen
class TextFormat:
    """A rule: the text of ``field`` matches ``pattern``, which ``words`` describe."""

    field: str
    pattern: re.Pattern[str]
    words: str

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield the problem of a text that does not match."""
        if self.field in arguments and self.pattern.fullmatch(str(arguments[self.field])) is None:
            yield Problem(self.field, f"must be {self.words}")

    def __str__(self) -> str:
        return f"{self.field}: {self.words}"


def fields() -> dict[str, Any]:
    """Return the fields for a parameter class."""
    return {
        "guardrailIdentifier": text(1, 2048, description="ID or ARN of the Bedrock guardrail that checks the call."),
        "guardrailVersion": text(1, 8, description="Version of the guardrail."),
        "trace": choice(
            "ENABLED", "DISABLED", "ENABLED_FULL", description="Turns the trace of the guardrail on or off."
        ),
    }


RULES: tuple[Rule, ...] = (
    TextFormat(
        "guardrailIdentifier",
        re.compile(r"[a-z0-9]+|arn:aws(-[^:\s]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:guardrail/[a-z0-9]+", re.ASCII),
        "a guardrail's id (lower-case letters and digits) or its ARN",
    ),
    TextFormat("guardrailVersion", re.compile(r"[1-9][0-9]{0,7}|DRAFT"), "a number without leading zeros, or DRAFT"),
    Needs("guardrailIdentifier", ("guardrailVersion",)),
)
