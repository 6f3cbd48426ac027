"""The stand-in for both providers, one for a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import impasto
from tests.oracle.entrances import client_of
from tests.oracle.recording import Provider, recording


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def recorder_of_module() -> AsyncIterator[Provider]:
    async with recording() as provider:
        yield provider


@pytest.fixture
def provider(recorder_of_module: Provider) -> Provider:
    """A stand-in that has seen nothing yet."""
    recorder_of_module.clear()
    recorder_of_module.pending = 0
    return recorder_of_module


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(recorder_of_module: Provider) -> AsyncIterator[impasto.Client]:
    """A client of the stand-in."""
    async with client_of(recorder_of_module) as client:
        yield client
