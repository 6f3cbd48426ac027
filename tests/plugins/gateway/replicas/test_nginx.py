"""Three replicas behind nginx, with the configuration that the documentation shows."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from tests.docs.pages import blocks
from tests.plugins.gateway.batches.conftest import finish, line, results, submit

from .processes import Replica, free_port
from .test_shared_contents import BODY, ask, generate, sdk

pytestmark = pytest.mark.waits


def find_nginx() -> str:
    """Return the command of nginx; skip the test if there is none. That of NGINX_COMMAND, as in .ci/run, must exist."""
    command = shutil.which(os.environ.get("NGINX_COMMAND", "nginx"), path=f"{os.environ['PATH']}:/usr/sbin")
    if command is None:
        assert "NGINX_COMMAND" not in os.environ, "nginx is not installed"
        pytest.skip("needs nginx, such as apt-get install nginx")
    return command


@pytest.fixture
def three(replicas: Sequence[Replica]) -> Iterator[Sequence[Replica]]:
    """The replicas, and one more."""
    third = Replica("three", replicas[0].config, replicas[0].folder, free_port())
    third.start()
    try:
        third.wait()
        yield [*replicas, third]
    finally:
        third.kill()


@pytest.fixture
def nginx(three: Sequence[Replica], tmp_path: Path) -> Iterator[str]:
    """The address of an nginx before the replicas."""
    command, port = find_nginx(), free_port()
    (block,) = blocks("docs/gateway.md", "nginx")
    text = block.text
    for number, each in enumerate(three, 1):
        text = text.replace(f"10.0.0.{number}:4000", f"127.0.0.1:{each.port}")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
    paths = "".join(
        f"{name}_temp_path {tmp_path / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(text.replace("http {", f"http {{ access_log off; {paths}", 1))
    words = ["-c", str(config), "-e", "stderr", "-g", f"daemon off; master_process off; pid {tmp_path / 'pid'};"]
    with subprocess.Popen([command, "-p", str(tmp_path), *words], stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert "[emerg]" not in process.communicate(timeout=30)[1]


async def test_the_replicas_behind_nginx_are_one_gateway(
    nginx: str, three: Sequence[Replica], provider: Emulator
) -> None:
    answers = [await generate(nginx, "behind nginx") for _ in range(6)]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, *["true"] * 5]
    async with asyncio.timeout(60):
        while not all("/images/generations" in each.log.read_text() for each in three):
            await generate(nginx, "behind nginx")
            await asyncio.sleep(0.05)  # the log is written in groups
    assert len(provider.charges) == 1
    streamed = await ask(nginx, "POST", "/v1/images/generations", json={**BODY, "stream": True})
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    async with sdk(nginx) as client:
        batch = await finish(client, await submit(client, [line("a"), line("b")]))
        assert (await results(client, batch.output_file_id)).keys() == {"a", "b"}
    assert len(provider.charges) == 4
    await asyncio.to_thread(three[2].kill)
    answers = [await generate(nginx, key) for key in ("behind nginx", "new") for _ in range(3)]
    assert {answer.status for answer in answers} == {200}
    assert len(provider.charges) == 5
