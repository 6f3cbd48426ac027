"""The emulator's settings: every time and limit of the vendor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from impasto import ConfigError, InvalidRequest
from impasto.ext import structure


def bounded_number(default: Any, minimum: float, maximum: float = math.inf) -> Any:
    """Return an attribute for a finite number within limits; attrs reads its type from the class."""

    def check(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        kinds = int if isinstance(default, int) else (int, float)
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds)
            or not minimum <= value <= maximum
            or value == math.inf
        ):
            limits = f"from {minimum:g} to {maximum:g}" if math.isfinite(maximum) else f"of at least {minimum:g}"
            raise ConfigError(f"'{attribute.name}' must be a number {limits}, not {value!r}")

    return attrs.field(default=default, validator=check)


@attrs.frozen(kw_only=True)
class EmulatorSettings:
    """The settings of an emulator. Times are in seconds.

    ``keys``: the keys that it accepts, Bedrock's bearer keys too; None for any. ``aws_keys``: access key ids and the
    secrets that must sign Bedrock's requests; ``session_tokens``: those that belong to them, None for any or none.
    ``inference_profiles``: application inference profiles, ARN to the model's id. ``strict`` refuses unknown fields
    and undeclared ``accept`` values, which api.stability.ai ignores. ``seed`` makes random seeds repeatable.
    ``image_scale`` reduces images whose size the operation chooses. ``credits`` is the balance at the start.
    ``retry_after`` sends that header with a 429; the vendor declares none. ``history``: the number of requests and
    charges that are listed; the totals count all.
    """

    host: str = "127.0.0.1"
    port: int = bounded_number(0, 0, 65_535)
    strict: bool = False
    keys: tuple[str, ...] | None = None
    aws_keys: Mapping[str, str] = attrs.field(factory=lambda: {"emulator": "emulator"}, repr=False)
    session_tokens: tuple[str, ...] | None = attrs.field(default=None, repr=False)
    inference_profiles: Mapping[str, str] = attrs.field(factory=dict[str, str])
    seed: int | None = None
    image_scale: float = bounded_number(1.0, 0.01, 1)
    answer_seconds: float = bounded_number(0.0, 0)
    job_seconds: float = bounded_number(0.5, 0)
    result_seconds: float = bounded_number(24 * 3600.0, 0)
    rate_requests: int = bounded_number(150, 1)
    rate_seconds: float = bounded_number(10.0, 0)
    lock_seconds: float = bounded_number(60.0, 0)
    retry_after: bool = False
    keep_alive_seconds: float = bounded_number(75.0, 0)
    credits: float = bounded_number(1_000_000.0, 0)
    history: int = bounded_number(100_000, 1)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> EmulatorSettings:
        """Return settings by name. Raises ConfigError with every problem."""
        try:
            return structure(cls, values)
        except InvalidRequest as error:
            raise ConfigError("emulator: " + "; ".join(map(str, error.problems))) from None


SHORT = EmulatorSettings(
    image_scale=0.03125,
    job_seconds=0.1,
    result_seconds=864.0,
    rate_seconds=0.1,
    lock_seconds=0.6,
)
"""Settings for tests: a hundredth of the vendor's times, images of a thirty-second of the sides."""
