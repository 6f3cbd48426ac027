"""Ways to run it: in a loop, in a thread, as a command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from urllib.request import Request, urlopen

import attrs
import pytest

import impasto
from impasto_plugins.emulator import SHORT, Emulator, EmulatorSettings, serve


def test_an_emulator_runs_in_a_thread_for_code_without_a_loop() -> None:
    before = threading.active_count()
    with serve(SHORT) as emulator:
        request = Request(emulator.url + "/v1/user/balance", headers={"authorization": "Bearer k"})
        with urlopen(request, timeout=60) as answer:
            assert json.load(answer) == {"credits": 1_000_000.0}
        assert len(emulator.requests) == 1
    assert threading.active_count() <= before
    with pytest.raises(OSError, match="refused"):
        urlopen(request, timeout=60)


async def test_two_emulators_share_nothing() -> None:
    async with Emulator(SHORT) as one, Emulator(SHORT) as other:
        assert one.url != other.url
        async with impasto.Client(api_base=one.url, api_key="k") as client:
            await client.run("stability/sd3", prompt="x")
        assert (len(one.charges), len(other.charges)) == (1, 0)


async def test_a_stopped_emulator_can_run_again() -> None:
    emulator = Emulator(SHORT)
    for _ in range(2):
        async with emulator:
            assert emulator.url.startswith("http://127.0.0.1:")
        with pytest.raises(RuntimeError, match="not running"):
            _ = emulator.url


def test_a_port_in_use_is_an_error_of_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"), serve(attrs.evolve(SHORT, port=port)):
            pass


@pytest.mark.parametrize(
    "params", [{"port": -1}, {"port": True}, {"image_scale": 0}, {"job_seconds": "1"}, {"rate_requests": 1.5},
              {"result_seconds": float("inf")}]
)  # fmt: skip
def test_settings_are_checked(params: dict[str, object]) -> None:
    name = next(iter(params))
    with pytest.raises(impasto.ConfigError, match=name):
        EmulatorSettings.from_mapping(params)
    with pytest.raises(impasto.ConfigError, match=name):
        EmulatorSettings(**params)  # type: ignore[arg-type]  # wrong on purpose


def _command(*arguments: str) -> subprocess.Popen[str]:
    code = "from impasto_plugins.emulator.command import command; command()"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(number: signal.Signals) -> None:
    with _command("--port", "0", "--scale", "0.1", "--key", "right") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[3]
        assert f"STABILITY_API_BASE={url}" in process.stdout.readline()
        with urlopen(url + "/_emulator/charges", timeout=60) as answer:
            assert json.load(answer)["count"] == 0
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out


def test_an_interrupt_that_was_ignored_at_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command inherits it
    try:
        process = _command("--port", "0", "--scale", "0.1")
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[3]
        process.send_signal(signal.SIGINT)
        with urlopen(url + "/_emulator/charges", timeout=60) as answer:
            assert json.load(answer)["count"] == 0
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--host", "0.0.0.0"), 2, "--allow-remote"),
        (("--host", ""), 2, "--host '': it is empty"),
        (("--port", "70000"), 2, "70000"),
        (("--scale", "5"), 2, "--scale"),
        (("--job-seconds", "-1"), 2, "--job-seconds"),
    ],
)
def test_the_command_refuses_wrong_options(arguments: tuple[str, ...], status: int, message: str) -> None:
    with _command(*arguments) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert message in err
    assert "Traceback" not in err


def test_the_command_reports_a_port_in_use() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, _command("--port", str(taken.getsockname()[1])) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "can't listen on 127.0.0.1 port" in err
    assert "Traceback" not in err


def test_the_command_is_listed_without_importing_the_server() -> None:
    code = (
        "import sys; from impasto_plugins.emulator.command import command;"
        "assert command.name == 'emulator'; print(*(m for m in ('aiohttp', 'PIL', 'cattrs') if m in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


BODY_TO_COME = b"content-type: multipart/form-data; boundary=b\r\ncontent-length: 9000\r\n\r\n--b\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"POST /v2beta/stable-image/generate/core HTTP/1.1\r\nhost: x\r\n" + BODY_TO_COME, id="leaves"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + b"sk-1" * 4000 + b"\r\n\r\n", id="long"),
        pytest.param(b"sk-1 is no HTTP\r\n\r\n", id="garbage"),
    ],
)
def test_a_clients_faults_are_not_in_the_log(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with serve(SHORT) as emulator:
        host, port = emulator.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(sent)
            if BODY_TO_COME not in sent:
                assert connection.recv(1000).split(b" ")[1] == b"400"
        with urlopen(Request(emulator.url + "/v1/user/balance", headers={"authorization": "Bearer k"})) as answer:
            assert answer.status == 200
    assert caplog.text == ""
