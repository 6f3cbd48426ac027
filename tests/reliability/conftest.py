"""Clients whose times are a hundredth of the real ones, against servers that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

import impasto
from tests.reliability.servers import PICTURE, Server, serving

KEY = "sk-canary-0123456789abcdefghijklmnopqrstuvwxyz"
CORE = "stability/stable-image-core"
JOB_MODEL = "stability/stable-creative-upscale-v1:0"
FAST = impasto.Retry(base=0.002, cap=0.01, max_wait=0.3)

MakeClient = Callable[..., impasto.Client]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as it:
        yield it


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """Makes clients that are closed after the test."""
    async with AsyncExitStack() as stack:

        def make(base: str, **settings: object) -> impasto.Client:
            params = {"api_key": KEY, "poll_interval": 0.02, "timeout": 5.0, "retry": FAST, **settings}
            client = impasto.Client(api_base=base, **params)  # type: ignore[arg-type]  # the settings of a test
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def client(server: Server, make_client: MakeClient) -> impasto.Client:
    return make_client(server.url)


async def failure(client: impasto.Client, model: str = CORE, **settings: object) -> impasto.ImpastoError:
    """Runs a model and returns the error, which names it."""
    params: dict[str, object] = {"image": PICTURE} if model == JOB_MODEL else {}
    with pytest.raises(impasto.ImpastoError) as caught:
        await client.run(model, prompt="a lighthouse", **params, **settings)  # type: ignore[arg-type]
    assert caught.value.operation == model
    return caught.value


def is_unknown(error: impasto.ImpastoError) -> impasto.ChargeUnknown:
    assert type(error) is impasto.ChargeUnknown, repr(error)
    assert (error.billed, error.retryable) == ("unknown", False)
    return error
