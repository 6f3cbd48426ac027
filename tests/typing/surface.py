"""Code as users write it. mypy checks it with every expression that is Any refused; it is not run."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, assert_type

import attrs

import impasto
from impasto import Artifact, ChargeUnknown, ContentFiltered, InvalidRequest, Result


async def generates() -> list[Path]:
    """Most of a client's surface."""
    async with impasto.Client(
        api_key="sk-...",
        timeout=120,
        retry=impasto.Retry(attempts=2),
        rate_limit=impasto.RateLimit(150, 10.0),
        providers={"acme": {"api_key": "acme-..."}},
        middleware=["log"],
        ssl=Path("ca.pem"),
    ) as client:
        assert_type(client, impasto.Client)
        result = await client.run("stability/sd3.5-large", n=2, prompt="a lighthouse", seed=7, aspect_ratio="16:9")
        assert_type(result, Result)
        assert_type(result.artifacts, tuple[Artifact, ...])
        assert_type(result.artifacts[0].data, bytes)
        assert_type(result.artifacts[0].seed, int | None)
        assert_type(result.artifacts[0].b64_json, str)
        assert_type(result.warnings, tuple[str, ...])
        assert_type({failure.index: failure.error for failure in result.errors}, dict[int, impasto.ImpastoError])
        if result.cost is not None:
            assert_type(result.cost.usd, float)
            assert_type(result.cost.credits, float | None)
        await client.warm("stability/erase", "stability/inpaint")
        resumed = await client.with_options(timeout=600).resume("stability/upscale-creative", "a1" * 32)
        about = client.describe("stability/sd3")
        assert_type(about.usd, float | None)
        assert_type([(field.name, field.takes) for field in about.fields], list[tuple[str, str]])
        assert_type(client.models(), list[str])
        return [artifact.save("lighthouse.png") for artifact in resumed.artifacts]


async def edits(client: impasto.Client, path: Path) -> None:
    """Every form of a file, and the errors with what they tell."""
    images: Sequence[object] = [b"...", path, str(path), BytesIO(), ("a.png", b"..."), impasto.File.of(path)]
    for image in images:
        try:
            await client.run("stability/upscale-fast", image=image, output_format="webp", timeout=60)
        except InvalidRequest as error:
            assert_type([(problem.field, problem.message) for problem in error.problems], list[tuple[str, str]])
        except ContentFiltered as error:
            assert_type(error.artifacts, tuple[Artifact, ...])
        except ChargeUnknown as error:
            assert_type(error.id, str | None)
            assert_type(error.raw, bytes)
        except impasto.RateLimited as error:
            assert_type(error.retry_after, float | None)
        except impasto.ImpastoError as error:
            assert_type(error.retryable, bool)
            assert_type(error.errors, tuple[impasto.ImpastoError, ...])


def drops_in() -> str:
    """The functions for code written for LiteLLM."""
    response = impasto.image_generation("a lighthouse", "stability/sd3.5-large", size="1792x1024", n=2)
    assert_type(response.data[0].b64_json, str | None)
    assert_type(response.created, int)
    assert_type(response["created"], int)
    assert_type(response["data"][0]["b64_json"], str | None)
    assert_type(response["data"][0]["seed"], int | None)
    assert_type(response["usage"]["total_tokens"], int)
    assert_type(response["usage"]["input_tokens_details"]["text_tokens"], int)
    assert_type(response["cost"], impasto.Cost | None)
    assert_type(response["warnings"], list[str])
    assert_type(response["errors"], list[impasto.FailedArtifact])
    assert_type(response.model_dump(), dict[str, object])
    for event in impasto.image_generation("a lighthouse", "acme/paint", stream=True, partial_images=2):
        assert_type(event.b64_json, str)
        assert_type(event.type, str)
    edited = impasto.image_edit(b"...", "a boat", "stability/inpaint", b"...", seed=7)
    return edited.data[0].url or ""


async def drops_in_with_every_kind_of_file(path: Path, file: IO[bytes]) -> None:
    """Whatever can be read, alone, in a list, with a name."""
    with tempfile.NamedTemporaryFile() as temporary, zipfile.ZipFile(path) as archive, archive.open("a.png") as member:
        for picture in (b"...", bytearray(), path, str(path), file, temporary, member, BytesIO(), ("a.png", file)):
            await impasto.aimage_edit(picture, "stability/erase", mask=picture)
        await impasto.aimage_edit([file, member], "stability/style-transfer")
    with path.open("rb") as image, path.open("rb") as mask:
        await impasto.aimage_edit([image], "stability/inpaint", "a boat", mask, grow_mask=5, size="auto", n=2)


async def a_plugin(wire: impasto.WireRequest, next: impasto.Handler) -> impasto.WireResponse:
    """A middleware."""
    response = await next(wire)
    assert_type(response.status, int)
    assert_type(response.headers.get("seed"), str | None)
    return response


class Ink:
    """A dialect, and a price, as a plugin of one's own has them."""

    cost = None

    def transform_request(
        self, operation: impasto.Operation, request: impasto.Request, account: impasto.Account
    ) -> impasto.WireRequest:
        return impasto.WireRequest(target=request.target)

    def classify_error(
        self, operation: impasto.Operation, response: impasto.WireResponse
    ) -> impasto.ImpastoError | None:
        return None

    def normalize_response(
        self, operation: impasto.Operation, request: impasto.Request, response: impasto.WireResponse
    ) -> Result:
        return Result(artifacts=(Artifact(data=response.body, media_type=response.media_type),))

    def quote(self, params: object) -> impasto.Cost:
        return impasto.Cost(usd=0.02, as_of="2026-01-01")


dialect: impasto.Dialect = Ink()
price: impasto.Price = Ink()


@attrs.frozen(kw_only=True)
class PaintParams:
    """A model's own parameters, which its price reads."""

    prompt: str
    steps: int = 20


class PriceOfSteps:
    """A price that depends on typed parameters."""

    def quote(self, params: PaintParams) -> impasto.Cost:
        return impasto.Cost(usd=0.001 * params.steps, as_of="2026-01-01")


price_of_steps: impasto.Price = PriceOfSteps()
size: impasto.WidthHeight = impasto.WidthHeight(minimum=256, maximum=1440, multiple=32)
