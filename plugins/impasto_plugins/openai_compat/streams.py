"""Streams of the drop-in functions: OpenAI's events, with partial images where the provider sends them."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Literal, ParamSpec, Protocol, TypeAlias, overload

import attrs

from impasto import Artifact, ClientClosedError, Cost, LoopMismatchError, Partial, Result

from .background import run
from .response import ImagesResponse, Record, TokenUsage

P = ParamSpec("P")

_NAMES = ("type", "b64_json", "created_at", "size", "quality", "background", "output_format")


@attrs.define(eq=False, repr=False)
class _Event(Record):
    type: str
    b64_json: str
    size: str
    output_format: str
    created_at: int = attrs.field(init=False, factory=lambda: int(time.time()))
    quality: str = "auto"
    background: str = "auto"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(type={self.type!r}, size={self.size!r}, output_format={self.output_format!r})"


@attrs.define(eq=False, repr=False, kw_only=True)
class PartialImageEvent(_Event):
    """A partial image: ``b64_json``, and its number from 0."""

    _names = (*_NAMES, "partial_image_index")
    partial_image_index: int


@attrs.define(eq=False, repr=False, kw_only=True)
class CompletedImageEvent(_Event):
    """The image that is paid for: ``b64_json``, and what ``ImagesResponse`` has of the call."""

    _names = (*_NAMES, "usage", "cost", "warnings")
    usage: TokenUsage
    cost: Cost | None
    warnings: list[str]


ImageEvent: TypeAlias = PartialImageEvent | CompletedImageEvent


class AsyncFunction(Protocol[P]):
    """A drop-in function whose call with ``stream=True`` returns events."""

    __name__: str

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, ImagesResponse]: ...
    @overload
    def __call__(
        self, *args: object, stream: Literal[True], **kwargs: object
    ) -> Coroutine[object, object, AsyncIterator[ImageEvent]]: ...


class BlockingFunction(Protocol[P]):
    """The blocking form of ``AsyncFunction``."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ImagesResponse: ...
    @overload
    def __call__(self, *args: object, stream: Literal[True], **kwargs: object) -> Iterator[ImageEvent]: ...


async def events_of(
    outcomes: AsyncGenerator[Partial | Result],
    kind: Literal["image_generation", "image_edit"],
    warnings: tuple[str, ...],
) -> AsyncGenerator[ImageEvent]:
    """Yield OpenAI's events of a stream. Leaving early cancels the call."""
    async with aclosing(outcomes):
        async for each in outcomes:
            if isinstance(each, Partial):
                shape = _shape(each.artifact)
                yield PartialImageEvent(type=f"{kind}.partial_image", partial_image_index=each.index, **shape)
            else:
                whole = ImagesResponse(each, "b64_json")
                for artifact in each.artifacts:
                    yield CompletedImageEvent(
                        type=f"{kind}.completed",
                        usage=whole.usage,
                        cost=whole.cost,
                        warnings=[*warnings, *whole.warnings],
                        **_shape(artifact),
                    )


def _shape(artifact: Artifact) -> dict[str, str]:
    from impasto_plugins.images.size import size_in

    try:
        width, height = size_in(io.BytesIO(artifact.data), artifact.media_type)
        size = f"{width}x{height}"
    except ValueError:  # a type that is not measured
        size = "auto"
    media_type = artifact.media_type.rpartition("/")[2]
    return {"b64_json": artifact.b64_json, "size": size, "output_format": media_type}


def iterate(events: AsyncGenerator[ImageEvent]) -> Iterator[ImageEvent]:
    """Yield the events for code without a loop. Leaving early cancels the call."""

    async def following() -> ImageEvent | None:
        return await anext(events, None)

    async def close() -> None:
        await events.aclose()

    try:
        while (event := run(following())) is not None:
            yield event
    finally:
        with suppress(ClientClosedError, LoopMismatchError):  # the process ends, which ends the call too
            run(close())
