"""The emulator's settings. Every time and limit of the vendor's is one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from impasto import ConfigError, InvalidRequest
from impasto.ext import structure


def bounded(default: Any, least: float, most: float = math.inf) -> Any:
    """A finite number within bounds; attrs reads its type from the class."""

    def check(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        kinds = int if isinstance(default, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most or value == math.inf:
            raise ConfigError(f"'{attribute.name}' must be a number from {least:g} to {most:g}, not {value!r}")

    return attrs.field(default=default, validator=check)


@attrs.frozen(kw_only=True)
class Settings:
    """How an emulator behaves. Times are in seconds.

    ``keys``: those it accepts, None for any; Bedrock's bearer keys too. ``aws_keys``: access key ids and the secrets
    with which Bedrock's requests must be signed; ``session_tokens``: those that go with them, None for any or none.
    ``inference_profiles``: application inference profiles, ARN to the model's id. ``strict`` refuses unknown fields
    and undeclared ``accept`` values, which api.stability.ai takes silently. ``seed`` makes the seeds it draws
    repeatable. ``picture_scale`` shrinks the sides of pictures whose size the operation chooses. ``credits`` is the
    account's balance at the start. ``retry_after`` sends that header with a 429; the vendor declares none.
    ``history``: how many requests and charges are listed; the totals count all.
    """

    host: str = "127.0.0.1"
    port: int = bounded(0, 0, 65_535)
    strict: bool = False
    keys: tuple[str, ...] | None = None
    aws_keys: Mapping[str, str] = attrs.field(factory=lambda: {"emulator": "emulator"}, repr=False)
    session_tokens: tuple[str, ...] | None = attrs.field(default=None, repr=False)
    inference_profiles: Mapping[str, str] = attrs.field(factory=dict[str, str])
    seed: int | None = None
    picture_scale: float = bounded(1.0, 0.01, 1)
    answer_seconds: float = bounded(0.0, 0)
    job_seconds: float = bounded(0.5, 0)
    kept_seconds: float = bounded(24 * 3600.0, 0)
    rate_requests: int = bounded(150, 1)
    rate_seconds: float = bounded(10.0, 0)
    lock_seconds: float = bounded(60.0, 0)
    retry_after: bool = False
    keep_alive_seconds: float = bounded(75.0, 0)
    credits: float = bounded(1_000_000.0, 0)
    history: int = bounded(100_000, 1)

    @classmethod
    def of(cls, given: Mapping[str, object]) -> Settings:
        """Settings by name. Raises ConfigError, naming all that is wrong."""
        try:
            return structure(cls, given)
        except InvalidRequest as error:
            raise ConfigError("emulator: " + "; ".join(map(str, error.problems))) from None


SHORT = Settings(
    picture_scale=0.03125,
    job_seconds=0.1,
    kept_seconds=864.0,
    rate_seconds=0.1,
    lock_seconds=0.6,
)
"""Times of a hundredth of the vendor's and pictures of a thirty-second: for tests."""
