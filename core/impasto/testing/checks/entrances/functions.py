"""Checks of functions: several images, batches, the drop-in function and its sizes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest

import impasto
from impasto import Result, WidthHeight
from impasto.fields import Field, format_bound
from impasto.sizes import Size, size_of_fields
from impasto.testing.checks.exchange import ExchangeChecks
from impasto.testing.checks.wire import describe_outcome, summarize
from impasto.testing.places import Content, SentPart, all_fields, on_disk
from impasto.testing.subject import KEY, call_outcome
from impasto.testing.watch import check, run

_MAX_N = 10
POLL_INTERVAL = "0.02"


class FunctionChecks(ExchangeChecks):
    """Checks of functions."""

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
            run(batch({"id": "one", "model": self.model, **on_disk(self.operation(), Path(folder), self.minimal)}))

    @check
    def test_the_drop_in_function_calls_it(self) -> None:
        """Check ``aimage_generation``, for a model that takes text alone."""
        params = self.text_params()

        async def call() -> None:
            async with self.recording() as recorder:
                function = cast("Callable[..., Awaitable[Any]]", impasto.aimage_generation)  # which has overloads
                settings = self.drop_in_settings(recorder.url)
                response = await function(model=self.model, **params, **settings)
                assert response.data, "the response has no image"
                assert response.data[0].b64_json, "the response's image is empty"
                assert len(recorder.posts) == 1, f"one call made {len(recorder.posts)} paid requests"

        with patch.dict(os.environ, {"IMPASTO_POLL_INTERVAL": POLL_INTERVAL}):
            run(call())

    @check
    def test_a_size_of_openai_is_translated(self) -> None:
        """Check ``size`` of the drop-in function: a size that the model has arrives as its own fields would."""
        size = self.operation().size
        if size is None:
            fields = self.operation().fields
            unused = [name for name in fields if name != "size" and any(map(_is_size, fields[name].choices))]
            assert not unused, f"{unused[0]} is a size, and Operation.size is None: Sizes(...), AspectRatios(...)"
            groups = [name for name in fields if isinstance(size_of_fields(fields[name].fields), WidthHeight)]
            assert not groups, (
                f"Operation.size is None, and {groups[0]} has a width and a height: "
                f"WidthHeight(width='{groups[0]}.width', ...)"
            )
            pytest.skip("the operation has size=None")
        if not isinstance(size, WidthHeight):
            choices = [each for name in size.names for each in dict(all_fields(self.operation().fields))[name].choices]
            assert any(map(_is_size, choices)), f"Operation.size names {size.names[0]}, which has no size: {choices}"
        text = {name: value for name, value in self.text_params().items() if name not in size.names}
        with patch.dict(os.environ, {"IMPASTO_POLL_INTERVAL": POLL_INTERVAL}):
            wrong = run(self._wrong_sizes(text))
        wrong += _wrong_limits(size, dict(all_fields(self.operation().fields)))
        if isinstance(size, WidthHeight) and ("height" in size.width.lower() or "width" in size.height.lower()):
            wrong.append(f"Operation.size takes the field {size.width} for the width: width and height are swapped")
        assert not wrong, "\n".join(wrong)

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

    async def _wrong_sizes(self, text: Mapping[str, object]) -> list[str]:
        """Return the sizes that the drop-in function sends in another way than the model's own fields."""
        function = cast("Callable[..., Awaitable[Any]]", impasto.aimage_generation)  # which has overloads
        prompt = {name: value for name, value in self.minimal.items() if self.operation().fields[name].role == "prompt"}
        others = {name: value for name, value in text.items() if name != "prompt"}
        wrong: list[str] = []
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for size, own in self._sizes():
                recorder.requests.clear()
                exact = own and isinstance(await call_outcome(client, self.model, {**prompt, **others, **own}), Result)
                try:
                    await function(model=self.model, **text, size=size, **self.drop_in_settings(recorder.url))
                except impasto.ImpastoError as error:
                    wrong.append(f"size={size} ended in {describe_outcome(error)}: see Operation.size")
                    continue
                if exact and Content(recorder.posts[0]).body != Content(recorder.posts[1]).body:
                    sent = Content(recorder.posts[1])
                    found = ", ".join(summarize(sent.at(self.names.get(name, name))) for name in own)
                    wrong.append(f"size={size} is not sent as {_in_words(own)}, which the model takes, but as {found}")
        return wrong

    def _sizes(self) -> Iterator[tuple[str, dict[str, object]]]:
        """Yield sizes, and the fields of the model that mean the same, or none for a size that it lacks."""
        size, fields = self.operation().size, self.operation().fields
        if isinstance(size, WidthHeight):
            width, height = (self.others.get(name, self.minimal.get(name)) for name in size.names)
            if isinstance(width, int) and isinstance(height, int):
                yield f"{width}x{height}", {size.width: width, size.height: height}
                yield f"{width + 21}x{height + 13}", {}
            yield "64x64", {}
            return
        choices = [text for name in (size.names if size else ()) for text in fields[name].choices if name in fields]
        for choice in choices:
            separator = "x" if "x" in choice else ":"
            sides = choice.split(separator)
            if size is not None and len(sides) == 2 and all(side.isdecimal() for side in sides):
                width, height = (int(side) * (100 if separator == ":" else 1) for side in sides)
                yield f"{width}x{height}", {size.names[0]: choice}

    def text_params(self) -> dict[str, object]:
        """Return the minimal parameters of a drop-in function. Skips if the model takes more than text."""
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


def _in_words(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def _is_size(choice: str) -> bool:
    """Return True for a choice such as ``1024x1024`` or ``16:9``."""
    return re.fullmatch(r"[1-9][0-9]*[x:][1-9][0-9]*", choice) is not None


def _count(found: object) -> object:
    """Return a number of images as it was sent: a form has it as text."""
    text = found.content.decode("utf-8", "replace") if isinstance(found, SentPart) else ""
    return int(text) if text.isdecimal() else found


def _wrong_limits(size: Size, fields: Mapping[str, Field]) -> Iterator[str]:
    """Yield the difference between the limits of ``size`` and those of both its fields."""
    if isinstance(size, WidthHeight):
        limits = {(fields[name].minimum, fields[name].maximum) for name in size.names}
        low, high = limits.pop()
        if not limits and (low or size.minimum, high or size.maximum) != (size.minimum, size.maximum):
            yield (
                f"Operation.size takes {size.minimum} to {size.maximum} pixels, {size.width} "
                f"{format_bound(low)} to {format_bound(high)}"
            )
