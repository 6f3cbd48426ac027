"""A client with the URL of a store checks it before anything is sent, also if no call needs it."""

from __future__ import annotations

import socket

import pytest

import impasto
from impasto import ConfigError, NotSent, RateLimit, Retry
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.postgres import PASSWORD, PostgresServer

MODEL = "stability/stable-image-core"


async def test_a_wrong_password_is_an_error_of_async_with(postgres_server: PostgresServer) -> None:
    with pytest.raises(ConfigError, match="^state: PostgreSQL at .* refused the user or the password") as refused:
        async with impasto.Client(state=postgres_server.dsn(password="other"), api_key=KEY):
            pass
    assert "other" not in str(refused.value)


async def test_without_async_with_it_is_an_error_of_the_first_call(
    postgres_server: PostgresServer, impasto_emulator: Emulator
) -> None:
    address = postgres_server.dsn(database="nowhere")
    client = impasto.Client(state=address, api_key=KEY, api_base=impasto_emulator.url)
    for _ in range(2):
        with pytest.raises(ConfigError, match="^state: .* no database of this name"):
            await client.run(MODEL, prompt="p")
    with pytest.raises(ConfigError, match="no database of this name"):
        _ = [each async for each in client.batch([{"id": "a", "model": MODEL, "prompt": "p"}])]
    await client.aclose()
    assert not impasto_emulator.charges


async def test_a_database_that_is_away_is_an_outage(impasto_emulator: Emulator) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # nobody listens
        state = f"postgresql://u:{PASSWORD}@127.0.0.1:{sock.getsockname()[1]}/x"
        async with impasto.Client(
            state=state,
            api_key=KEY,
            api_base=impasto_emulator.url,
            rate_limit=RateLimit(150, 10),
            retry=Retry(attempts=1),
        ) as client:
            with pytest.raises(NotSent, match="without the shared rate window nothing is sent, try again"):
                await client.run(MODEL, prompt="p")
    assert not impasto_emulator.charges
