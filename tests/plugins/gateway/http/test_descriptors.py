"""A gateway whose process may open few files: many silent callers take them all, and it serves again after them."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import MASTER, config, entry

CALLERS = 200
REFUSED = "connections can't be accepted: Too many open files"


@contextmanager
def gateway(folder: Path, base: str, files: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway in a process that can't have more files; its log is in ``folder``."""
    (folder / "config.yaml").write_text(config(base, entries=entry("sd3", "stability/sd3.5-large", base)))
    words = [sys.executable, "-m", "impasto_plugins.cli", "serve", "--config", str(folder / "config.yaml"), "--port=0"]
    shell = ["sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', *words]
    with (
        open(folder / "log", "w") as log,
        subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def status_of(url: str, **body: object) -> int:
    headers = {"authorization": f"Bearer {MASTER}", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def is_ready(url: str) -> bool:
    """Return False also if it had no descriptor yet for this connection."""
    try:
        return status_of(f"{url}/health/readiness") == 200
    except OSError:
        return False


@pytest.mark.parametrize("files", [64, 256], ids=["no descriptor is left", "the cap is reached first"])
def test_silent_callers_fill_no_log_and_a_paid_call_is_served_after_them(
    files: int, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    began = time.monotonic()
    with gateway(tmp_path, impasto_emulator.url, files) as (process, url), ExitStack() as stack:
        host, _, port = url.rpartition("/")[2].rpartition(":")
        callers = [stack.enter_context(socket.create_connection((host, int(port)), 60)) for _ in range(CALLERS)]
        if files < CALLERS:
            while log.read_text().count(REFUSED) < 2:
                assert process.poll() is None
                time.sleep(0.02)
        else:
            assert select.select(callers, [], [], 60)[0]
            assert not select.select(callers[: files // 2], [], [], 0)[0]  # those within the cap stay
        for caller in callers:
            caller.close()
        while not is_ready(url):
            assert process.poll() is None
        while status_of(f"{url}/v1/images/generations", model="sd3", prompt="p") != 200:
            assert process.poll() is None
        lines = log.read_text().splitlines()
        refused = [line for line in lines if REFUSED in line]
        assert len(refused) <= 1 + time.monotonic() - began
        assert not refused or files < CALLERS
        assert not [line for line in lines if REFUSED not in line and "master_key is weak" not in line]
        assert len(impasto_emulator.charges) == 1
        process.terminate()
        assert process.wait(60) == 0
