"""The steps of `impasto try`: images generated and edited through a local HTTP server, one refusal, the account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
from PIL import Image, ImageDraw

from impasto import Artifact, Client, Cost, InvalidRequest
from impasto.ext import Options
from impasto_plugins.emulator.state.charges import Charge, LogEntry
from impasto_plugins.emulator.transport import EmulatorTransport
from impasto_plugins.media.limits import length_of

IMAGE_SCALE = 0.5
"""Half the vendor's side lengths, so that the page is small and quick to make."""

POLL_SECONDS = 0.25
MASK, SKETCH, THUMBNAIL = Path("mask.png"), Path("sketch.png"), Path("thumbnail.png")


@attrs.frozen
class Step:
    """One call. A path among ``params`` is a file beside the page; ``name`` names the step's own file."""

    title: str
    name: str
    model: str
    params: Mapping[str, object]
    ending: str = "png"

    @property
    def file(self) -> Path:
        """The file of the result."""
        ending = str(self.params.get("output_format", self.ending)).replace("jpeg", "jpg")
        return Path(f"{self.name}.{ending}")


LIGHTHOUSE, FOX = Path("lighthouse.png"), Path("fox.png")

STEPS = (
    Step(
        "Text to image",
        "lighthouse",
        "stability/stable-image-core",
        {"prompt": "a lighthouse on a cliff at dusk", "aspect_ratio": "3:2", "seed": 20},
    ),
    Step(
        "Another model, square",
        "fox",
        "stability/sd3.5-large",
        {"prompt": "a fox in a meadow", "cfg_scale": 5.5, "seed": 11},
    ),
    Step(
        "Very wide, as jpeg",
        "mountains",
        "stability/stable-image-ultra",
        {
            "prompt": "mountains above a lake in the morning mist",
            "aspect_ratio": "21:9",
            "seed": 3,
            "output_format": "jpeg",
        },
    ),
    Step(
        "Upright, in a style",
        "city",
        "stability/sd3.5-flash",
        {"prompt": "a city at night", "aspect_ratio": "9:16", "style_preset": "neon-punk", "seed": 5},
    ),
    Step(
        "Image to image",
        "lighthouse-night",
        "stability/sd3.5-medium",
        {"prompt": "the same lighthouse at night", "image": LIGHTHOUSE, "strength": 0.6, "seed": 21},
    ),
    Step(
        "Inpaint under a mask",
        "inpaint",
        "stability/inpaint",
        {"image": LIGHTHOUSE, "mask": MASK, "prompt": "a hot-air balloon", "grow_mask": 8, "seed": 22},
    ),
    Step("Erase under a mask", "erase", "stability/erase", {"image": LIGHTHOUSE, "mask": MASK, "seed": 23}),
    Step(
        "Outpaint",
        "outpaint",
        "stability/outpaint",
        {"image": LIGHTHOUSE, "left": 160, "right": 160, "down": 80, "creativity": 0.4, "seed": 24},
    ),
    Step(
        "Search and replace",
        "search-and-replace",
        "stability/search-and-replace",
        {"image": FOX, "search_prompt": "fox", "prompt": "a cat", "seed": 25},
    ),
    Step(
        "Search and recolor",
        "search-and-recolor",
        "stability/search-and-recolor",
        {"image": FOX, "select_prompt": "meadow", "prompt": "golden autumn grass", "seed": 26},
    ),
    Step("Remove the background", "cut-out", "stability/remove-background", {"image": FOX}),
    Step(
        "New background and light (asynchronous job)",
        "relight",
        "stability/replace-background-and-relight",
        {
            "subject_image": FOX,
            "background_prompt": "a forest at sunset",
            "light_source_direction": "left",
            "light_source_strength": 0.6,
            "seed": 27,
        },
    ),
    Step(
        "From a sketch",
        "from-sketch",
        "stability/control-sketch",
        {"image": SKETCH, "prompt": "a cottage on a hill", "control_strength": 0.8, "seed": 28},
    ),
    Step(
        "Keep the structure",
        "structure",
        "stability/control-structure",
        {"image": LIGHTHOUSE, "prompt": "a castle by the sea", "seed": 29},
    ),
    Step(
        "In the style of an image",
        "style-guide",
        "stability/style-guide",
        {"image": Path("mountains.jpg"), "prompt": "boats in a harbour", "aspect_ratio": "16:9", "seed": 30},
    ),
    Step(
        "Transfer a style",
        "style-transfer",
        "stability/style-transfer",
        {"init_image": LIGHTHOUSE, "style_image": Path("city.png"), "style_strength": 0.8, "seed": 31},
    ),
    Step(
        "Fast upscale, four times each side",
        "upscale-fast",
        "stability/upscale-fast",
        {"image": THUMBNAIL, "output_format": "webp"},
    ),
    Step(
        "Creative upscale (asynchronous job)",
        "upscale-creative",
        "stability/upscale-creative",
        {"image": THUMBNAIL, "prompt": "a lighthouse on a cliff", "seed": 32, "output_format": "jpeg"},
    ),
)

REFUSED = Step(
    "Rejected before anything is sent",
    "refused",
    "stability/inpaint",
    {
        "image": LIGHTHOUSE,
        "prompt": "a red balloon",
        "grow_mask": 500,
        "seed": 2.5,
        "negativ_prompt": "rain",
    },
)


@attrs.frozen(kw_only=True)
class FinishedStep:
    """A finished step. ``sent`` and ``polls`` come from the server's log; an image's sides are in pixels."""

    step: Step
    artifact: Artifact
    sides: tuple[int, int] | None
    cost: Cost | None
    seconds: float
    sent: LogEntry
    polls: int

    @property
    def size(self) -> str:
        """The size as text: of an image in pixels, of a sound in seconds, of anything else in bytes."""
        if self.sides is not None:
            return f"{self.sides[0]} x {self.sides[1]}"
        if self.artifact.media_type.startswith("audio/"):
            return f"{length_of(self.artifact.content)[1]:.1f} seconds"
        return f"{len(self.artifact.data) / 1024:,.0f} KiB"


@attrs.frozen(kw_only=True)
class Tour:
    """The results of all steps. ``charges`` are the server's own."""

    steps: Sequence[FinishedStep]
    refusal: InvalidRequest
    charges: Sequence[Charge]
    seconds: float


async def run_tour(out: Path, report: Callable[[FinishedStep], None], more: Sequence[Step] = ()) -> Tour:
    """Run all steps and some ``more`` in an existing folder; ``report`` is called after each."""
    started = time.monotonic()
    transport = EmulatorTransport(Options(providers={"emulator": {"image_scale": IMAGE_SCALE, "seed": 1}}))
    await transport.open()
    try:
        async with Client(transport=transport, poll_interval=POLL_SECONDS) as client:
            await asyncio.to_thread(draw_sketch, out / SKETCH)
            done = []
            for step in (*STEPS, *more):
                done.append(await _do(client, transport, step, out))
                report(done[-1])
                if step.file == LIGHTHOUSE:
                    await asyncio.to_thread(_draw_mask, out)
            refusal = await _show_refusal(client, out)
        return Tour(
            steps=done,
            refusal=refusal,
            charges=transport.emulator.charges,
            seconds=time.monotonic() - started,
        )
    finally:
        await transport.aclose()


async def _do(client: Client, transport: EmulatorTransport, step: Step, out: Path) -> FinishedStep:
    before = len(transport.emulator.requests)
    started = time.monotonic()
    result = await client.invoke(step.model, _resolve_files(step, out))
    seconds = time.monotonic() - started
    (artifact,) = result.artifacts
    path = await asyncio.to_thread(artifact.save, out / step.file)
    sides = await asyncio.to_thread(_sides, path) if artifact.media_type.startswith("image/") else None
    sent, *polls = transport.emulator.requests[before:]
    return FinishedStep(
        step=step,
        artifact=artifact,
        sides=sides,
        cost=result.cost,
        seconds=seconds,
        sent=sent,
        polls=len(polls),
    )


async def _show_refusal(client: Client, out: Path) -> InvalidRequest:
    try:
        await client.invoke(REFUSED.model, _resolve_files(REFUSED, out))
    except InvalidRequest as refusal:
        return refusal
    raise RuntimeError("wrong parameters were not refused")


def _resolve_files(step: Step, out: Path) -> dict[str, object]:
    return {name: out / value if isinstance(value, Path) else value for name, value in step.params.items()}


def _sides(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _draw_mask(out: Path) -> None:
    """Draw a mask of the lighthouse's size, white where it is edited, and a thumbnail of it."""
    with Image.open(out / LIGHTHOUSE) as image:
        width, height = image.size
        image.resize((width // 2, height // 2)).save(out / THUMBNAIL)
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).ellipse((width * 0.58, height * 0.08, width * 0.86, height * 0.52), fill=255)
    mask.save(out / MASK)


def draw_sketch(path: Path) -> None:
    """Draw a house on a hill, and the sun."""
    sketch = Image.new("L", (768, 512), 255)
    draw = ImageDraw.Draw(sketch)
    draw.arc((-160, 300, 928, 900), 180, 360, fill=0, width=6)
    draw.line((290, 320, 290, 200, 390, 120, 490, 200, 490, 320), fill=0, width=6, joint="curve")
    draw.line((270, 216, 390, 120, 510, 216), fill=0, width=6, joint="curve")
    draw.rectangle((360, 240, 420, 306), outline=0, width=6)
    draw.ellipse((600, 50, 690, 140), outline=0, width=6)
    sketch.save(path)
