"""``impasto serve`` as a process: the page's steps with curl, signals, workers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

import openai
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.serve import _Supervisor, _Worker
from tests.conftest import KEY
from tests.images import drawn

from .config.test_config import PAGE
from .conftest import MASTER, Serve, read_log, sdk_client


def curl(*words: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    return subprocess.run(
        ["curl", "-sS", "--max-time", "60", *words], capture_output=True, text=True, check=True
    ).stdout


def test_the_pages_steps_with_curl(serve: Serve, impasto_emulator: Emulator, tmp_path: Path) -> None:
    edits = PAGE.replace("model_name: sd3", "model_name: stability-inpaint").replace(
        "stability/sd3.5-large", "stability/stable-image-inpaint-v1:0"
    )
    both = PAGE.replace(
        "litellm_settings", edits.partition("litellm_settings")[0].partition("\n")[2] + "litellm_settings"
    )
    process, url = serve(both)
    answer = json.loads(
        curl(
            *("--location", f"{url}/v1/images/generations"),
            *("--header", "Content-Type: application/json", "--header", f"Authorization: Bearer {MASTER}"),
            *("--data", '{"model": "sd3", "prompt": "A beautiful sunset over a calm ocean"}'),
        )
    )
    assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(b"\x89PNG")
    (tmp_path / "original_image.png").write_bytes(drawn("PNG", size=(128, 128)))
    (tmp_path / "mask_image.png").write_bytes(drawn("PNG", "L", size=(128, 128)))
    answer = json.loads(
        curl(
            *("-X", "POST", f"{url}/v1/images/edits", "-H", f"Authorization: Bearer {MASTER}"),
            *("-F", "model=stability-inpaint"),
            *("-F", f"image=@{tmp_path / 'original_image.png'}"),
            *("-F", f"mask=@{tmp_path / 'mask_image.png'}"),
            *("-F", "prompt=Add a beautiful garden in the masked area"),
        )
    )
    assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert len(impasto_emulator.charges) == 2
    process.terminate()
    _, output = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "master_key" in output
    assert MASTER not in output
    assert KEY not in output


def test_check_says_whether_it_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from impasto_plugins.cli.main import main

    path = tmp_path / "config.yaml"

    def check(text: str) -> tuple[int, str]:
        path.write_text(text)
        result = CliRunner().invoke(main, ["serve", "--config", str(path), "--check"], env={"STABILITY_API_KEY": KEY})
        return result.exit_code, result.output

    assert check(PAGE) == (
        0,
        "config.yaml is valid: 1 model\nWarning: general_settings.master_key is weak; it works on loopback only\n",
    )
    code, output = check(PAGE.replace("sd3.5-large", "sd3.5-huge"))
    assert code == 2
    assert "line 4: sd3: unknown model 'stability/sd3.5-huge'; closest: stability/sd3.5-large" in output
    code, output = check(PAGE.replace("      api_key", "      aws_region_name: x\n      api_key"))
    assert "line 5: sd3: aws_region_name is not a setting of the provider stability" in output
    code, output = check(PAGE.replace("      api_key", "      api_base: http://example.com\n      api_key"))
    assert (code, "line 5: sd3: api_base is plain http" in output) == (2, True)


@pytest.mark.parametrize("check", [["--check"], []], ids=["check", "serve"])
@pytest.mark.parametrize("host", ["", " ", "[]", "nohost.invalid", "300.0.0.1", "\x1b[2J", "a" * 70])
def test_a_host_that_has_no_address_is_named_before_the_keys_are_judged(
    tmp_path: Path, host: str, check: list[str]
) -> None:
    from click.testing import CliRunner

    from impasto_plugins.cli.main import main

    path = tmp_path / "config.yaml"
    path.write_text(PAGE)
    result = CliRunner().invoke(main, ["serve", "--config", str(path), "--host", host, *check])
    assert result.exit_code == 2
    assert "can't listen on --host" in result.output
    assert "such as 127.0.0.1" in result.output
    assert "key" not in result.output
    assert "\x1b" not in result.output


def test_an_address_may_stand_in_brackets_as_in_a_url(serve: Serve) -> None:
    process, url = serve(PAGE, "--host", "[::1]")
    assert url.startswith("http://[::1]:")
    process.terminate()
    assert process.wait(60) == 0


def test_sighup_reads_the_configuration_again_and_keeps_the_old_one_if_it_is_wrong(
    serve: Serve, tmp_path: Path
) -> None:
    process, url = serve(PAGE)
    path = tmp_path / "config.yaml"

    def names() -> list[str]:
        models = json.loads(curl(f"{url}/v1/models", "-H", f"Authorization: Bearer {MASTER}"))
        return [model["id"] for model in models["data"]]

    def becomes(expected: list[str]) -> bool:
        end = time.monotonic() + 60
        while names() != expected and time.monotonic() < end:
            time.sleep(0.05)
        return names() == expected

    assert names() == ["sd3"]
    path.write_text(PAGE.replace("model_name: sd3", "model_name: other"))
    process.send_signal(signal.SIGHUP)
    assert becomes(["other"])
    path.write_text(PAGE.replace("master_key", "mastr_key"))
    process.send_signal(signal.SIGHUP)
    read_log(process, "the configuration was not reloaded")
    assert names() == ["other"]
    path.write_text(PAGE)
    process.send_signal(signal.SIGHUP)
    assert becomes(["sd3"])
    process.terminate()
    assert process.wait(60) == 0


def test_a_wrong_configuration_leaves_the_old_one(serve: Serve, tmp_path: Path) -> None:
    process, url = serve(PAGE)
    (tmp_path / "config.yaml").write_text(PAGE.replace("master_key", "mastr_key"))
    process.send_signal(signal.SIGHUP)
    message = read_log(process, "the configuration was not reloaded")
    assert "the configuration was not reloaded: config.yaml: line 11: general_settings.mastr_key" in message
    assert json.loads(curl(f"{url}/v1/models", "-H", f"Authorization: Bearer {MASTER}"))["data"]


def test_workers_that_have_only_begun_end_well(serve: Serve) -> None:
    process, _ = serve(PAGE, "--workers", "2")
    process.terminate()
    _, output = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_every_worker_has_the_configuration_that_was_read_last(serve: Serve, tmp_path: Path) -> None:
    """One that had only begun when it was to be read again, and one that begins in the place of another."""
    process, url = serve(PAGE, "--workers", "2")
    (tmp_path / "config.yaml").write_text(PAGE.replace("model_name: sd3", "model_name: other"))
    process.send_signal(signal.SIGHUP)

    def names() -> set[str]:
        answers = [curl(f"{url}/v1/models", "-H", f"Authorization: Bearer {MASTER}") for _ in range(8)]
        return {model["id"] for each in answers for model in json.loads(each)["data"]}

    end = time.monotonic() + 60
    while (found := names()) != {"other"}:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    first, second = (child.pid for child in psutil.Process(process.pid).children())
    os.kill(first, signal.SIGKILL)
    process.send_signal(signal.SIGHUP)  # as its end is noticed
    while {child.pid for child in psutil.Process(process.pid).children()} <= {first, second}:
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(second, signal.SIGKILL)  # all of what follows is the new one's, or its neighbour's
    while second in {child.pid for child in psutil.Process(process.pid).children()}:  # it listens until it is gone
        assert time.monotonic() < end
        time.sleep(0.05)
    assert names() == {"other"}
    process.terminate()
    assert process.wait(60) == 0


def test_a_signal_for_a_worker_that_is_gone_is_nothing() -> None:
    supervisor = _Supervisor([])
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    supervisor._running[process.pid] = cast("_Worker", None)
    supervisor._forward_signal(signal.SIGHUP)
    assert not supervisor._is_stopping
    supervisor._forward_signal(signal.SIGTERM)
    assert supervisor._is_stopping
    for end in supervisor._parent_pipe:
        os.close(end)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupt_that_was_ignored_at_the_start_stays_ignored(serve: Serve, workers: str) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the gateway inherits it
    try:
        process, url = serve(PAGE, "--workers", workers)
    finally:
        signal.signal(signal.SIGINT, before)
    process.send_signal(signal.SIGINT)
    assert "alive" in curl(f"{url}/health/liveliness")
    process.terminate()
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


async def let_in_no_more(url: str) -> None:
    """Waits until nobody listens: the signal that ends it has come."""
    host, _, port = url.rpartition("/")[2].partition(":")
    async with asyncio.timeout(60):
        with suppress(ConnectionError):
            while True:
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                await asyncio.sleep(0.02)


async def generate(url: str, **options: object) -> int:
    async with sdk_client(url) as client:
        return len((await client.images.generate(model="sd3", prompt="p")).data or [])


async def test_sigterm_delivers_all_that_runs(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = await asyncio.to_thread(serve, PAGE)
    impasto_emulator.fault("delay", seconds=1.5)
    calls = [asyncio.create_task(generate(url)) for _ in range(20)]
    while len(impasto_emulator.requests) < 20:
        await asyncio.sleep(0.02)
    process.terminate()
    await let_in_no_more(url)
    with pytest.raises(openai.APIConnectionError):  # nothing new is let in
        await generate(url)
    assert await asyncio.gather(*calls) == [1] * 20
    assert await asyncio.to_thread(process.wait, 60) == 0
    assert len(impasto_emulator.charges) == 20


@pytest.mark.parametrize("how", ["limit passed", "second signal"])
async def test_an_end_that_can_not_wait_says_so(serve: Serve, impasto_emulator: Emulator, how: str) -> None:
    limit = "  drain_seconds: 0.5\n" if how == "limit passed" else ""
    process, url = await asyncio.to_thread(serve, PAGE + limit)
    impasto_emulator.fault("delay", seconds=20)
    call = asyncio.create_task(generate(url))
    while not impasto_emulator.requests:
        await asyncio.sleep(0.02)
    process.terminate()
    if how == "second signal":
        await let_in_no_more(url)
        process.terminate()
    _, output = await asyncio.to_thread(process.communicate, None, 60)
    assert process.returncode == 1
    assert "while calls were running" in output
    with pytest.raises(openai.APIConnectionError):
        await call


def test_several_workers_share_the_port_and_one_that_dies_is_replaced(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = serve(PAGE, "--workers", "2")

    def workers() -> set[int]:
        return {child.pid for child in psutil.Process(process.pid).children()}

    before = workers()
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    end = time.monotonic() + 60
    while len(now := workers()) < 2 or now == before:
        assert time.monotonic() < end
        time.sleep(0.05)
    for _ in range(6):
        assert asyncio.run(generate(url)) == 1
    process.terminate()
    assert process.wait(60) == 0
    assert len(impasto_emulator.charges) == 6


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``impasto serve``, which does not start."""
    return subprocess.run(
        [sys.executable, "-m", "impasto_plugins.cli", "serve", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "STABILITY_API_KEY": KEY},
    )


def test_a_port_that_is_taken(serve: Serve, tmp_path: Path) -> None:
    _, url = serve(PAGE)
    result = run("--config", str(tmp_path / "config.yaml"), "--port", url.rpartition(":")[2])
    assert result.returncode == 2
    assert "can't listen on 127.0.0.1 port" in result.stderr


def test_workers_do_not_start_with_a_mistake_and_it_is_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(PAGE.replace("      api_key", "      aws_region_name: x\n      api_key"))  # only its plugin knows
    result = run("--config", str(path), "--port", "0", "--workers", "2")
    assert result.returncode == 2
    assert result.stderr.count("line 5: sd3: aws_region_name is not a setting of the provider stability") == 1
    assert "RUNNING" not in result.stdout
