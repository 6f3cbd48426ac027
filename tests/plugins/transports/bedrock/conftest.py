"""Bedrock at a raw server, and at a recorder that the environment names; nothing of the developer's AWS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import impasto
from tests.bedrock import KEYS, pictured
from tests.plugins.transports.bedrock.wire import FAST, GOOD, MakeClient
from tests.recorder import Recorder
from tests.reliability.servers import Server, serving


@pytest.fixture(autouse=True)
def nothing_of_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No instance metadata is asked for, no file of the developer's is read."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    return tmp_path / "credentials"


@pytest.fixture
def env_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment-secret")


@pytest.fixture
def wire(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Bedrock at an endpoint of the environment's, in a region of it."""
    recorder.answer = lambda request: pictured()
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", recorder.url)
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    return recorder


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(Server(posts=[GOOD])) as it:
        yield it


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    async with AsyncExitStack() as stack:

        def make(endpoint: str, **settings: object) -> impasto.Client:
            arguments = {**KEYS, "timeout": 5.0, "retry": FAST, "bedrock_endpoint": endpoint, **settings}
            client = impasto.Client(**arguments)  # type: ignore[arg-type]  # the settings of a test
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def client(server: Server, make_client: MakeClient) -> impasto.Client:
    return make_client(server.url)
