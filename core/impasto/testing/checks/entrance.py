"""Checks of the ways to a model: several images, the drop-in functions, batches, the command line and the gateway."""

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
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast
from unittest.mock import patch

import pytest

import impasto
from impasto import Result
from impasto.testing.places import Content, SentPart
from impasto.testing.subject import KEY
from impasto.testing.watch import check, run

from .exchange import ExchangeChecks
from .wire import describe_outcome, summarize

_MAX_N = 10
_SHOWN = 1_500
"""Characters of what a process printed."""
_POLL_INTERVAL = "0.02"
_GATEWAY = """
model_list:
  - model_name: {model}
    provider_params: {params}
"""


class EntranceChecks(ExchangeChecks):
    """Checks of the ways to a model."""

    entrances: ClassVar[bool] = True
    """False to skip the checks that start processes, which take a second each."""

    @check
    def test_n_images_are_requested(self) -> None:
        """Check ``client.run(n=...)``: the requests, the native count of each, and the images."""
        native = self.operation().native_n
        assert native == self.native_n, f"the operation has native_n={native}, declared is {self.native_n}"
        per_request = 1 if native is None else native[1]
        n = min(per_request + 1, _MAX_N)
        sizes = [min(per_request, n - first) for first in range(0, n, per_request)]
        came, counts = run(self._n_images(n))
        assert isinstance(came, Result), f"n={n} ended in {describe_outcome(came)}"
        assert len(counts) == len(sizes), f"n={n} made {len(counts)} paid requests, not {len(sizes)}"
        if native is not None:
            assert sorted(map(repr, counts)) == sorted(map(repr, sizes)), (
                f"n={n} sent {native[0]}={', '.join(map(summarize, counts))}, not {', '.join(map(str, sizes))}"
            )

    @check
    def test_a_batch_runs_it(self) -> None:
        """Check ``client.batch`` with the minimal call."""

        async def batch(row: Mapping[str, object]) -> None:
            async with self.recording() as recorder, self.client(recorder.url) as client:
                outcomes = [outcome async for outcome in client.batch([row])]
                assert len(outcomes) == 1, f"one row became {len(outcomes)} outcomes"
                error = outcomes[0].error
                assert error is None, f"the row ended in {describe_outcome(error)}"
                assert len(recorder.posts) == 1, f"one row made {len(recorder.posts)} paid requests"

        with tempfile.TemporaryDirectory() as folder:
            run(batch({"id": "one", "model": self.model, **self._with_paths(Path(folder), self.minimal)}))

    @check
    def test_the_drop_in_function_calls_it(self) -> None:
        """Check ``aimage_generation``, for a model that takes text alone."""
        params = self._text_params()

        async def call() -> None:
            async with self.recording() as recorder:
                function = cast("Callable[..., Awaitable[Any]]", impasto.aimage_generation)  # which has overloads
                settings = self.drop_in_settings(recorder.url)
                response = await function(model=self.model, **params, **settings)
                assert response.data, "the response has no image"
                assert response.data[0].b64_json, "the response's image is empty"
                assert len(recorder.posts) == 1, f"one call made {len(recorder.posts)} paid requests"

        with patch.dict(os.environ, {"IMPASTO_POLL_INTERVAL": _POLL_INTERVAL}):
            run(call())

    @check
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
                done = await self._run_command(words, folder, {**names, "IMPASTO_POLL_INTERVAL": _POLL_INTERVAL})
                assert done.returncode == 0, f"impasto generate ended with {done.returncode}: {done.stderr[-500:]}"
                json.loads(done.stdout)
                assert len(recorder.posts) == 1, f"one command made {len(recorder.posts)} paid requests"
                assert KEY not in done.stdout + done.stderr, "the command printed the key"

        with tempfile.TemporaryDirectory() as folder:
            run(call(folder))

    @check
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

    def drop_in_settings(self, url: str) -> dict[str, object]:
        """Return the arguments of a drop-in function, and of a gateway, that lead them to an address."""
        return {"api_base": url, "api_key": KEY}

    async def _n_images(self, n: int) -> tuple[object, list[object]]:
        async with self.recording() as recorder, self.client(recorder.url) as client:
            try:
                came: object = await client.invoke(self.model, self.minimal, n=n)
            except impasto.ImpastoError as error:
                came = error
            place = self.names.get(self.native_n[0], self.native_n[0]) if self.native_n is not None else ""
            found = [Content(post).at(place) if place else 1 for post in recorder.posts]
            return came, [_count(each) for each in found]

    def _text_params(self) -> dict[str, object]:
        params = dict(self.minimal)
        fields = self.operation().fields
        if self.operation().output != "image" or not all(
            isinstance(value, str | int | float) for value in params.values()
        ):
            pytest.skip("the minimal call has files, or makes no image")
        prompts = [name for name in params if fields[name].role == "prompt"]
        if not prompts:
            pytest.skip("the model takes no prompt")
        return {"prompt": params.pop(prompts[0]), **params}

    def _process_params(self) -> dict[str, object]:
        if not self.entrances:
            pytest.skip("entrances = False")
        return self._text_params()

    def _with_paths(self, folder: Path, params: Mapping[str, object]) -> dict[str, object]:
        fields = self.operation().file_fields
        return {name: self.on_disk(folder, name, value) if name in fields else value for name, value in params.items()}

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
            timeout=self.seconds,
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
                    problem = f"impasto serve ended with {ran.wait(self.seconds)}: {_printed(log)}"
                    if "pip install 'impasto[" in problem:
                        pytest.skip(problem)
                    raise AssertionError(problem)
                data, headers = json.dumps(params).encode(), {"content-type": "application/json"}
                url = f"{first.split()[-1]}/v1/images/generations"
                request = urllib.request.Request(url, data, headers)  # noqa: S310 - the gateway's
                with urllib.request.urlopen(request, timeout=self.seconds) as response:  # noqa: S310 - as above
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


def _count(found: object) -> object:
    """Return a number of images as it was sent: a form has it as text."""
    text = found.content.decode("utf-8", "replace") if isinstance(found, SentPart) else ""
    return int(text) if text.isdecimal() else found
