"""Two replicas behind nginx, with the configuration that the documentation shows."""

from __future__ import annotations

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
def nginx(replicas: Sequence[Replica], tmp_path: Path) -> Iterator[str]:
    """The address of an nginx before the replicas; the third one does not run."""
    command, port = find_nginx(), free_port()
    (block,) = blocks("docs/gateway.md", "nginx")
    text = block.text
    for number, backend in enumerate((*(each.port for each in replicas), free_port()), 1):
        text = text.replace(f"10.0.0.{number}:4000", f"127.0.0.1:{backend}")
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


async def test_the_replicas_behind_nginx_are_one_gateway(nginx: str, provider: Emulator) -> None:
    answers = [await generate(nginx, "behind nginx") for _ in range(4)]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true", "true"]
    assert len(provider.charges) == 1
    streamed = await ask(nginx, "POST", "/v1/images/generations", json={**BODY, "stream": True})
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    async with sdk(nginx) as client:
        batch = await finish(client, await submit(client, [line("a"), line("b")]))
        assert (await results(client, batch.output_file_id)).keys() == {"a", "b"}
    assert len(provider.charges) == 4
