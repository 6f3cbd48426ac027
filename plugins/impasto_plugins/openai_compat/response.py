"""What the drop-in functions answer: OpenAI's shape, with what the provider told besides."""

from __future__ import annotations

import time
from base64 import b64encode
from functools import cached_property
from typing import TYPE_CHECKING, Literal, overload

import attrs

if TYPE_CHECKING:
    from impasto import Artifact, Cost, Lost, Result

    from .translate import Format


class Record:
    """An answer's part: its names are attributes and keys alike."""

    _names: tuple[str, ...] = ()

    def _named(self, name: str) -> object:
        if name not in self._names:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def model_dump(self) -> dict[str, object]:
        """Plain dicts, lists, text and numbers, ready for JSON; what is None is left out."""
        return {name: _dumped(value) for name in self._names if (value := self._named(name)) is not None}


class Image(Record):
    """One picture. Its base64 text is made at first use.

    ``b64_json``, or ``url`` where that was asked for: a ``data:`` URI. ``seed`` is the one that was used,
    ``finish_reason`` the provider's word; ``revised_prompt`` is always None: nobody revises prompts here.
    """

    _names = ("b64_json", "url", "revised_prompt", "seed", "finish_reason")
    revised_prompt: str | None = None

    def __init__(self, artifact: Artifact, form: Format) -> None:
        self._artifact = artifact
        self._form = form
        self.seed = artifact.seed
        self.finish_reason = artifact.finish_reason

    @overload
    def __getitem__(self, name: Literal["b64_json", "url", "revised_prompt", "finish_reason"]) -> str | None: ...
    @overload
    def __getitem__(self, name: Literal["seed"]) -> int | None: ...
    @overload
    def __getitem__(self, name: str) -> object: ...
    def __getitem__(self, name: str) -> object:
        return self._named(name)

    @cached_property
    def _text(self) -> str:
        base64 = b64encode(self._artifact.data).decode("ascii")
        return base64 if self._form == "b64_json" else f"data:{self._artifact.media_type};base64,{base64}"

    @property
    def b64_json(self) -> str | None:
        """The picture as base64 text, None where a URL was asked for."""
        return self._text if self._form == "b64_json" else None

    @property
    def url(self) -> str | None:
        """The picture as a ``data:`` URI, where ``response_format="url"`` asked for it."""
        return self._text if self._form == "url" else None

    def __repr__(self) -> str:
        artifact = self._artifact
        return f"Image({artifact.media_type}, {len(artifact.data):,} bytes, seed={self.seed})"


@attrs.define
class TokenDetails(Record):
    """Input tokens by kind."""

    _names = ("image_tokens", "text_tokens")
    image_tokens: int = 0
    text_tokens: int = 0

    @overload
    def __getitem__(self, name: Literal["image_tokens", "text_tokens"]) -> int: ...
    @overload
    def __getitem__(self, name: str) -> object: ...
    def __getitem__(self, name: str) -> object:
        return self._named(name)


@attrs.define
class Usage(Record):
    """OpenAI's count of tokens. The providers here count none, so all are 0; what a call cost is in ``cost``."""

    _names = ("input_tokens", "input_tokens_details", "output_tokens", "total_tokens")
    input_tokens: int = 0
    input_tokens_details: TokenDetails = attrs.field(factory=TokenDetails)
    output_tokens: int = 0
    total_tokens: int = 0

    @overload
    def __getitem__(self, name: Literal["input_tokens", "output_tokens", "total_tokens"]) -> int: ...
    @overload
    def __getitem__(self, name: Literal["input_tokens_details"]) -> TokenDetails: ...
    @overload
    def __getitem__(self, name: str) -> object: ...
    def __getitem__(self, name: str) -> object:
        return self._named(name)


class ImagesResponse(Record):
    """The answer. ``created`` is in seconds since 1970; ``errors`` are the pictures of ``n`` that did not come."""

    _names = ("created", "data", "usage", "cost", "warnings", "errors")

    def __init__(self, result: Result, form: Format, warnings: tuple[str, ...] = ()) -> None:
        self.created = int(time.time())
        self.data: list[Image] = [Image(artifact, form) for artifact in result.artifacts]
        self.usage = Usage()
        self.cost: Cost | None = result.cost
        self.warnings: list[str] = [*warnings, *result.warnings]
        self.errors: list[Lost] = list(result.errors)

    @overload
    def __getitem__(self, name: Literal["created"]) -> int: ...
    @overload
    def __getitem__(self, name: Literal["data"]) -> list[Image]: ...
    @overload
    def __getitem__(self, name: Literal["usage"]) -> Usage: ...
    @overload
    def __getitem__(self, name: Literal["cost"]) -> Cost | None: ...
    @overload
    def __getitem__(self, name: Literal["warnings"]) -> list[str]: ...
    @overload
    def __getitem__(self, name: Literal["errors"]) -> list[Lost]: ...
    @overload
    def __getitem__(self, name: str) -> object: ...
    def __getitem__(self, name: str) -> object:
        return self._named(name)

    def __repr__(self) -> str:
        shown = [f"created={self.created}", f"data={self.data}"]
        shown += [f"{name}={value}" for name in ("cost", "warnings", "errors") if (value := getattr(self, name))]
        return f"ImagesResponse({', '.join(shown)})"


def _dumped(value: object) -> object:
    from impasto import Cost, Lost

    match value:
        case Record():
            return value.model_dump()
        case list():
            return [_dumped(each) for each in value]
        case Cost():
            return {name: each for name, each in attrs.asdict(value).items() if each is not None}
        case Lost():
            error = value.error
            told = {"index": value.index, "type": type(error).__name__, "message": str(error), "billed": error.billed}
            return told | ({"id": error.id} if error.id else {})
        case _:
            return value
