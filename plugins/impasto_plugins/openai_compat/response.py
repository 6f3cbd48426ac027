"""Responses of the drop-in functions: OpenAI's shape, encoded as LiteLLM's, with the provider's own facts."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Collection, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import attrs

from impasto import Cost, FailedArtifact

if TYPE_CHECKING:
    from impasto import Artifact, Result, Usage

    from .translate import Format

_MODES = ("python", "json")
_USAGE_NAMES: tuple[str, ...] = ("input_tokens", "input_tokens_details", "output_tokens", "total_tokens")


class Record:
    """A part of the response. Its names are attributes and keys alike; iteration yields pairs, as pydantic's does.

    ``dict(record)``, ``{**record}`` and encoders that ask for either (FastAPI's) work on every part.
    """

    __slots__ = ()
    _names: tuple[str, ...] = ()
    __hash__ = None  # type: ignore[assignment]  # compared by content, as pydantic's models are

    def _get(self, name: str) -> object:
        if name not in self._names:
            raise KeyError(name)
        return getattr(self, name)

    def __getitem__(self, name: str) -> object:
        return self._get(name)

    def __setitem__(self, name: str, value: object) -> None:
        if name not in self._names:
            raise KeyError(name)
        setattr(self, name, value)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[tuple[str, object]]:
        return ((name, self._get(name)) for name in self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, type(self)) else NotImplemented

    @property
    def __pydantic_serializer__(self) -> object:
        """Pydantic's way to encode an object of unknown type (a FastAPI endpoint that returns ``Any``)."""
        from pydantic_core import SchemaSerializer, core_schema  # only pydantic asks for it

        encode = core_schema.plain_serializer_function_ser_schema(lambda part: part.model_dump(mode="json"))
        return SchemaSerializer(core_schema.any_schema(serialization=encode))

    def keys(self) -> KeysView[str]:
        """Return the names, as a dict's keys."""
        return dict.fromkeys(self._names).keys()

    def values(self) -> ValuesView[object]:
        """Return the values, as a dict's."""
        return dict(self).values()

    def items(self) -> ItemsView[str, object]:
        """Return names and values, as a dict's items."""
        return dict(self).items()

    def get(self, name: str, default: object = None) -> Any:
        """Return the value of a name, or ``default`` if there is no such name."""
        return self._get(name) if name in self._names else default

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Collection[str] | None = None,
        exclude: Collection[str] | None = None,
        exclude_none: bool = False,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        **_: Any,
    ) -> dict[str, object]:
        """Return plain dicts, lists, text and numbers, ready for JSON, with pydantic's arguments.

        ``include`` and ``exclude`` name fields at the top level. A None counts as unset, and as its default.
        Raises ValueError for another ``mode``.
        """
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}")
        left_out = exclude_none or exclude_unset or exclude_defaults
        return {
            name: _dumped(value, left_out)
            for name, value in self
            if not (left_out and value is None)
            and (include is None or name in include)
            and (exclude is None or name not in exclude)
        }

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """Return ``model_dump`` as JSON text, which is compact without ``indent``."""
        separators = (",", ":") if indent is None else None
        return json.dumps(self.model_dump(**options), indent=indent, separators=separators, ensure_ascii=False)

    def json(self, **options: Any) -> dict[str, object]:
        """Return ``model_dump``: a dict, as LiteLLM's method of this name does."""
        return self.model_dump(**options)

    def dict(self, **options: Any) -> dict[str, object]:
        """Return ``model_dump``."""
        return self.model_dump(**options)

    def to_dict(self, **options: Any) -> Mapping[str, object]:
        """Return ``model_dump``, under the name that OpenAI's library has for it."""
        return self.model_dump(**options)

    def to_json(self, *, indent: int | None = 2, **options: Any) -> str:
        """Return ``model_dump_json``, under the name that OpenAI's library has for it."""
        return self.model_dump_json(indent=indent, **options)

    def model_copy(self, *, deep: bool = False) -> Self:
        """Return a copy."""
        import copy

        return copy.deepcopy(self) if deep else copy.copy(self)


# A FastAPI endpoint that declares a dict takes a mapping.
Mapping.register(Record)  # pyright: ignore[reportAttributeAccessIssue]  # an ABC: typeshed has it as a protocol


class Image(Record):
    """One image. Its base64 text is encoded at first use.

    ``b64_json``, or ``url`` if that was requested: a ``data:`` URI. ``seed`` is the one that was used,
    ``finish_reason`` the provider's word, ``revised_prompt`` the prompt that the provider made of the caller's.
    """

    _names = ("b64_json", "url", "revised_prompt", "seed", "finish_reason")

    def __init__(self, artifact: Artifact, form: Format) -> None:
        self._artifact = artifact
        self._form = form
        self.seed = artifact.seed
        self.finish_reason = artifact.finish_reason
        self.revised_prompt = artifact.revised_prompt

    @overload
    def __getitem__(self, name: Literal["b64_json", "url", "revised_prompt", "finish_reason"]) -> str | None: ...
    @overload
    def __getitem__(self, name: Literal["seed"]) -> int | None: ...
    @overload
    def __getitem__(self, name: str) -> object: ...
    def __getitem__(self, name: str) -> object:
        return self._get(name)

    @cached_property
    def _text(self) -> str:
        base64 = b64encode(self._artifact.data).decode("ascii")
        return base64 if self._form == "b64_json" else f"data:{self._artifact.media_type};base64,{base64}"

    @property
    def b64_json(self) -> str | None:
        """The image as base64 text, or None if a URL was requested."""
        return self._text if self._form == "b64_json" else None

    @property
    def url(self) -> str | None:
        """The image as a ``data:`` URI if ``response_format="url"`` was requested, or None."""
        return self._text if self._form == "url" else None

    def __repr__(self) -> str:
        artifact = self._artifact
        return f"Image({artifact.media_type}, {len(artifact.data):,} bytes, seed={self.seed})"


@attrs.define(eq=False)
class TokenDetails(Record):
    """Tokens by kind."""

    _names = ("image_tokens", "text_tokens")
    image_tokens: int = 0
    text_tokens: int = 0

    @overload
    def __getitem__(self, name: Literal["image_tokens", "text_tokens"]) -> int: ...
    @overload
    def __getitem__(self, name: str) -> object: ...
    def __getitem__(self, name: str) -> object:
        return self._get(name)


@attrs.define(eq=False)
class TokenUsage(Record):
    """OpenAI's count of tokens: 0 if the provider counts none; the response's ``cost`` has the price of the call.

    ``output_tokens_details`` is None, and not encoded, if the provider does not count the output by kind.
    """

    _names = _USAGE_NAMES
    input_tokens: int = 0
    input_tokens_details: TokenDetails = attrs.field(factory=TokenDetails)
    output_tokens: int = 0
    total_tokens: int = 0
    output_tokens_details: TokenDetails | None = None

    @classmethod
    def of(cls, usage: Usage | None) -> TokenUsage:
        """Return a provider's count in this form."""
        if usage is None:
            return cls()
        text, images = usage.output_text_tokens, usage.output_image_tokens
        details = None
        if text is not None or images is not None:
            details = TokenDetails(image_tokens=images or 0, text_tokens=text or 0)
        return (cls if details is None else _DetailedTokenUsage)(
            input_tokens=usage.input_tokens,
            input_tokens_details=TokenDetails(
                image_tokens=usage.input_image_tokens or 0,
                text_tokens=usage.input_tokens if usage.input_text_tokens is None else usage.input_text_tokens,
            ),
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            output_tokens_details=details,
        )

    @overload
    def __getitem__(self, name: Literal["input_tokens", "output_tokens", "total_tokens"]) -> int: ...
    @overload
    def __getitem__(self, name: Literal["input_tokens_details"]) -> TokenDetails: ...
    @overload
    def __getitem__(self, name: str) -> object: ...
    def __getitem__(self, name: str) -> object:
        return self._get(name)


@attrs.define(eq=False)
class _DetailedTokenUsage(TokenUsage):
    """A count of a provider that counts the output by kind."""

    _names = (*_USAGE_NAMES, "output_tokens_details")


@attrs.frozen(eq=False, slots=False)
class ResponseCost(Record, Cost):
    """The cost of a response: the core's record, which encodes too."""

    _names = ("usd", "credits", "as_of")

    def __eq__(self, other: object) -> bool:
        return attrs.astuple(self) == attrs.astuple(other) if isinstance(other, Cost) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as every Record


@attrs.frozen(eq=False, slots=False)
class FailedImage(Record, FailedArtifact):
    """An image that did not arrive: ``index`` and ``error``, encoded as its type, message and ``billed``."""

    _names = ("index", "type", "message", "billed", "id")

    def _get(self, name: str) -> object:
        values = {
            "index": self.index,
            "type": type(self.error).__name__,
            "message": str(self.error),
            "billed": self.error.billed,
            "id": self.error.id or None,
        }
        return values[name]


class ImagesResponse(Record):
    """The response. ``created`` is in seconds since 1970; ``errors`` are the images of ``n`` that did not arrive.

    ``background``, ``output_format``, ``quality`` and ``size`` are fields that only OpenAI's models report: None.
    """

    _names = (
        *("created", "data", "background", "output_format", "quality", "size", "usage"),
        *("cost", "warnings", "errors"),
    )
    background: str | None = None
    output_format: str | None = None
    quality: str | None = None
    size: str | None = None

    def __init__(
        self,
        result: Result,
        form: Format,
        warnings: tuple[str, ...] = (),
        hidden_params: Mapping[str, object] | None = None,
    ) -> None:
        self.created = int(time.time())
        self.data: list[Image] = [Image(artifact, form) for artifact in result.artifacts]
        self.usage = TokenUsage.of(result.usage)
        cost = result.cost
        self.cost: Cost | None = None if cost is None else ResponseCost(**attrs.asdict(cost))
        self.warnings: list[str] = [*warnings, *result.warnings]
        self.errors: list[FailedArtifact] = [FailedImage(index=each.index, error=each.error) for each in result.errors]
        self._hidden_params: dict[str, Any] = {
            "response_cost": None if cost is None else cost.usd,
            **(hidden_params or {}),
        }

    @property
    def hidden_params(self) -> dict[str, Any]:
        """The part that is not encoded: ``response_cost`` in USD, ``model``, ``metadata`` and the like."""
        return self._hidden_params

    @overload
    def __getitem__(self, name: Literal["created"]) -> int: ...
    @overload
    def __getitem__(self, name: Literal["data"]) -> list[Image]: ...
    @overload
    def __getitem__(self, name: Literal["usage"]) -> TokenUsage: ...
    @overload
    def __getitem__(self, name: Literal["cost"]) -> Cost | None: ...
    @overload
    def __getitem__(self, name: Literal["warnings"]) -> list[str]: ...
    @overload
    def __getitem__(self, name: Literal["errors"]) -> list[FailedArtifact]: ...
    @overload
    def __getitem__(self, name: str) -> object: ...
    def __getitem__(self, name: str) -> object:
        return self._get(name)

    def __repr__(self) -> str:
        parts = [f"created={self.created}", f"data={self.data}"]
        parts += [f"{name}={value}" for name in ("cost", "warnings", "errors") if (value := getattr(self, name))]
        return f"ImagesResponse({', '.join(parts)})"


def _dumped(value: object, left_out: bool) -> object:
    match value:
        case Record():
            return value.model_dump(exclude_none=left_out)
        case list():
            return [_dumped(each, left_out) for each in value]
        case _:
            return value
