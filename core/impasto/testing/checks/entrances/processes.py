"""Checks that start processes or servers: the command line, the gateway and the plugin's own emulator."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import ClassVar, cast

import pytest

from impasto import NotFound, Registry, Result, UnknownOperation
from impasto.registry import EMULATORS
from impasto.testing.checks.wire import WireChecks, describe_outcome
from impasto.testing.recorder import RecordedRequest
from impasto.testing.subject import KEY, call_outcome
from impasto.testing.watch import process_check, run

from .functions import POLL_INTERVAL, FunctionChecks

_GATEWAY = """
model_list:
  - model_name: {model}
    provider_params: {params}
"""


_SHOWN = 1_500
"""Characters of what a process printed."""
_SECONDS = 4.0


class ProcessChecks(FunctionChecks, WireChecks):
    """Checks that start processes or servers."""

    entrances: ClassVar[bool] = True
    """False to skip the checks that start processes, which take a second each."""

    @process_check
    def test_the_command_line_calls_it(self) -> None:
        """Check ``impasto generate`` in a process, for a model that takes text alone."""
        params, provider = self._process_params(), self.operation().provider
        if provider.base_url_variable is None or provider.key_variable is None:
            pytest.skip("the provider declares no base_url_variable, so a command can't be led to a recorder")
        names = {provider.base_url_variable: "", provider.key_variable: KEY}
        prompt = str(params.pop("prompt"))
        more = [word for name, value in params.items() for word in ("-p", f"{name}={value}")]

        async def call(folder: str) -> None:
            async with self.recording() as recorder:
                names[str(provider.base_url_variable)] = recorder.url
                words = ["generate", self.model, prompt, *more, "-o", "image.png", "--json"]
                done = await self._run_command(words, folder, {**names, "IMPASTO_POLL_INTERVAL": POLL_INTERVAL})
                assert done.returncode == 0, f"impasto generate ended with {done.returncode}: {done.stderr[-500:]}"
                json.loads(done.stdout)
                assert len(recorder.posts) == 1, f"one command made {len(recorder.posts)} paid requests"
                assert KEY not in done.stdout + done.stderr, "the command printed the key"

        with tempfile.TemporaryDirectory() as folder:
            run(call(folder))

    @process_check
    def test_the_gateway_serves_it(self) -> None:
        """Check ``impasto serve`` in a process, with a request over HTTP, for a model that takes text alone."""
        params = self._process_params()

        async def call(folder: str) -> None:
            async with self.recording() as recorder:
                reached = {"model": self.model, **self.drop_in_settings(recorder.url)}
                text = _GATEWAY.format(model=self.model, params=json.dumps(reached))  # JSON is YAML too
                body = await asyncio.to_thread(
                    self._request_gateway, Path(folder), text, {"model": self.model, **params}
                )
                assert base64.b64decode(body["data"][0]["b64_json"]), "the gateway's image is empty"
                assert len(recorder.posts) == 1, f"one request made {len(recorder.posts)} paid requests"

        with tempfile.TemporaryDirectory() as folder:
            run(call(folder))

    @process_check
    def test_its_emulator_behaves_as_the_provider(self) -> None:
        """Check the stand-in of ``impasto.emulators``: it answers the minimal call, and refuses an empty one."""
        if not self.entrances:
            pytest.skip("entrances = False")
        registry, serve = Registry(), None
        for name in (self.model, self.operation().provider.name):
            with suppress(UnknownOperation):
                serve = serve or registry.load(EMULATORS, name, object)
        if serve is None:
            pytest.skip("no emulator is declared in impasto.emulators")
        sent = next(call.request for call in self.field_calls() if call.request is not None)
        is_resolved = registry.resolver_of(self.model) is not None
        run(self._try_emulator(cast("Callable[[], AbstractAsyncContextManager[str]]", serve), sent, is_resolved))

    async def _try_emulator(
        self, serve: Callable[[], AbstractAsyncContextManager[str]], sent: RecordedRequest, is_resolved: bool
    ) -> None:
        async with serve() as url:
            async with self.client(url) as client:
                files = set(self.operation().file_fields)
                calls = [self.params_with(name, value) for name, value in self.values()]
                for params in (self.minimal, *(params for params in calls if not files & params.keys())):
                    came = await call_outcome(client, self.model, params)
                    if is_resolved and isinstance(came, NotFound):
                        pytest.skip("a resolver finds the model, and the emulator does not know it")
                    assert isinstance(came, Result), (
                        f"the emulator's answer to a call with {', '.join(params)} ended in {describe_outcome(came)}"
                    )
            status = await asyncio.to_thread(_post_nothing, f"{url}{sent.target}", sent)
            assert status >= 400 or self.job_accepted is not None, (  # a queue may refuse later, in place of a result
                f"the emulator answers HTTP {status} to a request without parameters: it must check requests as the "
                "provider does"
            )

    def _process_params(self) -> dict[str, object]:
        if not self.entrances:
            pytest.skip("entrances = False")
        return self.text_params()

    async def _run_command(
        self, words: list[str], folder: str, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "impasto", *words]
        return await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=folder,
            env={**os.environ, **variables},
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=self.process_seconds(),
        )

    def _request_gateway(
        self, folder: Path, config: str, params: Mapping[str, object]
    ) -> dict[str, list[dict[str, str]]]:
        (folder / "config.yaml").write_text(config, encoding="utf-8")
        command = [sys.executable, "-m", "impasto", "serve", "--config", "config.yaml", "--port", "0", "--no-auth"]
        log = folder / "stderr.txt"
        with (
            log.open("wb") as stderr,
            subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=stderr) as ran,
        ):
            try:
                assert ran.stdout is not None
                first = ran.stdout.readline().decode()
                if not first.startswith("RUNNING on "):
                    problem = f"impasto serve ended with {ran.wait(self.process_seconds())}: {_printed(log)}"
                    if "pip install 'impasto[" in problem:
                        pytest.skip(problem)
                    raise AssertionError(problem)
                data, headers = json.dumps(params).encode(), {"content-type": "application/json"}
                url = f"{first.split()[-1]}/v1/images/generations"
                request = urllib.request.Request(url, data, headers)  # noqa: S310 - the gateway's
                with urllib.request.urlopen(request, timeout=self.process_seconds()) as response:  # noqa: S310 - as above
                    body: dict[str, list[dict[str, str]]] = json.load(response)
                    return body
            except urllib.error.HTTPError as error:
                text = error.read().decode("utf-8", "replace").replace(KEY, "KEY")
                raise AssertionError(f"the gateway answered HTTP {error.code}: {text}\n{_printed(log)}") from None
            except (OSError, ValueError) as error:
                raise AssertionError(f"the request to the gateway ended in {error!r}: {_printed(log)}") from None
            finally:
                ran.terminate()


def _printed(log: Path) -> str:
    """Return the end of what a process printed, without the key."""
    return log.read_text(encoding="utf-8", errors="replace").replace(KEY, "KEY").strip()[-_SHOWN:]


def _post_nothing(url: str, sent: RecordedRequest) -> int:
    """Send a request without its parameters, and return the status of its answer."""
    own = ("host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect")
    headers = {name: value for name, value in sent.headers if name.lower() not in own}
    kind = sent.header("content-type")
    body = f"--{kind.partition('boundary=')[2]}--\r\n".encode() if kind.startswith("multipart/") else b"{}"
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the emulator's
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310 - as above
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
