"""The pytest plugin: fixtures for whoever tests code that calls impasto. Imports nothing heavy until one is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from impasto_plugins.emulator import Emulator


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--impasto-update``."""
    parser.getgroup("impasto").addoption(
        "--impasto-update", action="store_true", help="write the golden files of OperationSuite anew, for review"
    )


@pytest.fixture(scope="session")
def impasto_emulator_settings() -> Mapping[str, object]:
    """Settings of ``impasto_emulator``, on top of its short times and small images. Override it in a conftest."""
    return {}


@pytest.fixture(scope="session")
def _impasto_emulator(impasto_emulator_settings: Mapping[str, object]) -> Iterator[Emulator]:
    import attrs

    from impasto_plugins.emulator import SHORT, Settings, serve

    given = {**attrs.asdict(SHORT), **impasto_emulator_settings}
    with serve(Settings.of(given)) as emulator:
        yield emulator


@pytest.fixture
def impasto_emulator(_impasto_emulator: Emulator) -> Iterator[Emulator]:
    """A running emulator, in a thread of its own: ``Client(api_base=impasto_emulator.url, api_key="any")``.

    ``.charges``, ``.requests`` and ``.credits`` tell what it saw, ``.fault(...)`` makes it fail. It forgets
    everything before each test.
    """
    _impasto_emulator.reset()
    yield _impasto_emulator
    _impasto_emulator.reset()
