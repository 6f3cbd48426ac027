"""A Ctrl-C while a plugin's rules are asked during a translation ends the program: no plugin is blamed."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from impasto import Registry
from impasto_plugins.openai_compat.translate import translate


@pytest.mark.parametrize("part", ["rules", "derive_params"])
def test_a_ctrl_c_while_a_plugins_rules_are_asked_ends_the_program(part: str) -> None:
    def press(*_: object) -> Mapping[str, object]:
        signal.raise_signal(signal.SIGINT)
        return {}

    parts: dict[str, Any] = {"derive_params": press, "rules": (SimpleNamespace(problems=press),)}
    operation = attrs.evolve(Registry().operation("stability/sd3"), **{part: parts[part]})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            translate(operation, {"prompt": "a", "size": "1024x1024"}, defaults={"seed": 1})
    finally:
        signal.signal(signal.SIGINT, before)
