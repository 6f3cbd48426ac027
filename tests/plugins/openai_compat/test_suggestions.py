"""Suggestions of the drop-in functions name only what would be accepted."""

from __future__ import annotations

import pytest

import impasto
from impasto import InvalidRequest
from tests.recorder import Recorder


@pytest.mark.parametrize(
    ("arguments", "word", "suggestion"),
    [
        ({"sede": 5}, "sede", "did you mean seed?"),
        ({"aspectRatio": "1:1"}, "aspectRatio", "did you mean aspect_ratio?"),
        ({"steps": 20}, "steps", "allowed: prompt"),
        ({"zzz": "x"}, "zzz", "allowed: prompt"),
        ({"seed": 1, "seeds": 2}, "seeds", "did you mean seed?"),
        ({"promt": "x"}, "promt", "did you mean prompt?"),
    ],
)
async def test_only_what_would_be_accepted_is_suggested(
    wire: Recorder, arguments: dict[str, object], word: str, suggestion: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_generation("a", "stability/stable-image-core", extra_body=arguments)
    message = next(problem.message for problem in caught.value.problems if problem.field == word)
    assert suggestion in message
    assert wire.requests == []
