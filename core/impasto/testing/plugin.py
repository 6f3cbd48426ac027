"""The pytest plugin: fixtures for tests of code that calls impasto. Nothing heavy is imported until one is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from impasto_plugins.emulator import Emulator


stderr = 2
"""The descriptor of standard error, which pytest does not capture."""
_copies: list[int] = []


def pytest_configure() -> None:
    """Copy the descriptor of standard error: nothing is captured yet."""
    global stderr  # noqa: PLW0603 - a process has one
    with suppress(OSError):  # it is closed
        stderr = os.dup(2)
        _copies.append(stderr)


def pytest_unconfigure() -> None:
    """Close the copy of this session: a session may run inside of another."""
    global stderr  # noqa: PLW0603 - as above
    if _copies:
        os.close(_copies.pop())
    stderr = _copies[-1] if _copies else 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--impasto-update`` and ``--impasto-live``."""
    group = parser.getgroup("impasto")
    group.addoption(
        "--impasto-update", action="store_true", help="write the golden files of OperationSuite again, for review"
    )
    group.addoption(
        "--impasto-live", action="store_true", help="make one paid call of each model, with the key in the environment"
    )


@pytest.fixture(scope="session")
def impasto_emulator_settings() -> Mapping[str, object]:
    """Return settings of ``impasto_emulator``, beside its short times and small images. Override it in a conftest."""
    return {}


@pytest.fixture(scope="session")
def _impasto_emulator(impasto_emulator_settings: Mapping[str, object]) -> Iterator[Emulator]:
    import attrs

    from impasto_plugins.emulator import SHORT, EmulatorSettings, serve

    settings = {**attrs.asdict(SHORT), **impasto_emulator_settings}
    with serve(EmulatorSettings.from_mapping(settings)) as emulator:
        yield emulator


@pytest.fixture
def impasto_emulator(_impasto_emulator: Emulator) -> Iterator[Emulator]:
    """Run an emulator in a thread of its own: ``Client(api_base=impasto_emulator.url, api_key="any")``.

    ``.charges``, ``.requests`` and ``.credits`` report its use, ``.fault(...)`` makes it fail. Each test starts with a
    reset emulator.
    """
    _impasto_emulator.reset()
    yield _impasto_emulator
    _impasto_emulator.reset()


@pytest.fixture(scope="session")
def impasto_stand_in() -> Iterator[Callable[[str], str]]:
    """Return a function that starts the emulator of a provider, as its plugin declares it in ``impasto.emulators``.

    It returns the base URL, for ``Client(providers={"acme": {"api_base": impasto_stand_in("acme"), ...}})``.
    """
    from impasto_plugins.emulator.stand_ins import serve_in_thread

    with serve_in_thread() as url:
        yield url
