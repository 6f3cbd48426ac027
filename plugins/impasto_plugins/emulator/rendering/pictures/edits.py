"""The pictures that each edit makes of its inputs."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from . import sizes
from .brush import paint
from .masks import edit_mask, fill, grow, locate, scale_strength, subject
from .palette import Palette, choose_palette, mix, rgb, split_words
from .scene import draw_scene
from .task import RenderTask


def _rng(task: RenderTask) -> random.Random:
    return random.Random(f"{task.seed} {task.text('prompt')}")  # noqa: S311 - a picture, no secret


def _scene(task: RenderTask, size: sizes.Size, prompt: str = "prompt", palette: Palette | None = None) -> Image.Image:
    return draw_scene(task.text(prompt), task.seed, size, without=task.text("negative_prompt"), palette=palette)


def _paint_into(task: RenderTask, image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the picture with the prompt's scene where the mask is white."""
    whole, box = image.convert("RGB"), mask.getbbox()
    if box is None:
        return whole
    patch = whole.copy()
    patch.paste(_scene(task, (box[2] - box[0], box[3] - box[1])), box)
    return Image.composite(patch, whole, mask)


def generate(task: RenderTask, *, side: int = 1024) -> Image.Image:
    """Text to image; with a picture, image to image: ``strength`` 0 keeps it, 1 ignores it."""
    size = sizes.size_by_ratio(task.text("aspect_ratio") or "1:1", task.scale, side=side)
    if not task.has("image"):
        return _scene(task, size)
    image = task.image("image").convert("RGB")
    image = image.resize(sizes.size_by_area(image.size, side, task.scale), Image.Resampling.LANCZOS)
    strength = task.number("strength")
    return paint(Image.blend(image, _scene(task, image.size), strength), _rng(task)) if strength else image


def inpaint(task: RenderTask) -> Image.Image:
    """Paint the prompt into the masked area."""
    image = task.image("image")
    return _paint_into(task, image, edit_mask(task, image))


def erase(task: RenderTask) -> Image.Image:
    """Fill the masked area from its surroundings."""
    image = task.image("image")
    mask = edit_mask(task, image)
    if mask.getbbox() is None:
        return image.convert("RGB")
    rest = fill(image, mask)
    return Image.composite(paint(rest, _rng(task), relief=0.3), image.convert("RGB"), mask)


def outpaint(task: RenderTask) -> Image.Image:
    """Extend the picture: its surroundings grow out of it; with more ``creativity``, more of the prompt."""
    image = task.image("image").convert("RGB")
    left, right, up, down = (round(task.number(name)) for name in ("left", "right", "up", "down"))
    size = image.width + left + right, image.height + up + down
    canvas, hole = Image.new("RGB", size), Image.new("L", size, 255)
    canvas.paste(image, (left, up))
    hole.paste(0, (left, up, left + image.width, up + image.height))
    around = fill(canvas, hole)
    if task.text("prompt"):
        fade = ImageChops.invert(hole).filter(ImageFilter.GaussianBlur(max(1, max(left, right, up, down) / 3)))
        share = 0.6 + 0.4 * task.number("creativity")
        far = scale_strength(ImageOps.invert(fade), share)
        around = Image.composite(_scene(task, size), around, far)
    around = paint(around, _rng(task))
    around.paste(image, (left, up))
    return around


def upscale_fast(task: RenderTask) -> Image.Image:
    """Enlarge each side four times."""
    image = task.image("image")
    return image.resize((image.width * 4, image.height * 4), Image.Resampling.LANCZOS)


def upscale(task: RenderTask, *, side: int) -> Image.Image:
    """Enlarge to about ``side`` squared pixels; ``creativity`` is the share of the brush."""
    image = task.image("image").convert("RGB")
    size = sizes.size_by_area(image.size, side, task.scale)
    # painted at a quarter of the size: the brush shows, and it does not take all day
    middle = image.resize(sizes.scale_size(size, 0.35), Image.Resampling.LANCZOS)
    blended = Image.blend(middle, paint(middle, _rng(task), coarse=0.03), min(1.0, 2 * task.number("creativity")))
    return blended.resize(size, Image.Resampling.BICUBIC)


def search_and_replace(task: RenderTask) -> Image.Image:
    """Paint the prompt into the area of the object."""
    image = task.image("image")
    return _paint_into(
        task, image, grow(locate(image.size, task.text("search_prompt")), round(task.number("grow_mask")))
    )


def search_and_recolor(task: RenderTask) -> Image.Image:
    """Tint the area of the object."""
    image = task.image("image").convert("RGB")
    mask = grow(locate(image.size, task.text("select_prompt")), round(task.number("grow_mask")))
    accent = choose_palette(split_words(task.text("prompt")), _rng(task)).accent
    tinted = ImageOps.colorize(
        image.convert("L"), mix(accent, (0, 0, 0), 0.8), mix(accent, (255, 255, 255), 0.75), accent
    )
    return Image.composite(tinted, image, mask)


def remove_background(task: RenderTask) -> Image.Image:
    """Make everything around the subject transparent."""
    image = task.image("image")
    alpha = subject(image.size)
    if image.mode == "RGBA":
        alpha = ImageChops.multiply(alpha, image.getchannel("A"))
    cut = image.convert("RGB")
    cut.putalpha(alpha)
    return cut


def relight(task: RenderTask) -> Image.Image:
    """Put the subject before a new background, in light from a side or of a reference's colour."""
    image = task.image("subject_image").convert("RGB")
    if task.text("keep_original_background") == "true":
        background = image
    elif task.has("background_reference"):
        background = ImageOps.fit(task.image("background_reference").convert("RGB"), image.size)
        background = paint(background, _rng(task))
    else:
        background = _scene(task, image.size, "background_prompt")
    whole = Image.composite(image, background, subject(image.size))
    tone = background.resize((1, 1), Image.Resampling.BOX).resize(image.size)
    share = 0.35 * (1 - task.number("preserve_original_subject"))
    return _illuminate(
        task, Image.blend(whole, ImageChops.multiply(whole, ImageEnhance.Brightness(tone).enhance(1.6)), share)
    )


def _illuminate(task: RenderTask, image: Image.Image) -> Image.Image:
    direction = task.text("light_source_direction")
    colour = rgb("#fff1cf")
    if task.has("light_reference"):
        reference = task.image("light_reference").convert("RGB").resize((1, 1), Image.Resampling.BOX)
        red, green, blue = reference.tobytes()
        colour = red, green, blue
    elif not direction:
        return image
    ramp = Image.linear_gradient("L")  # dark above, light below
    turn = {"above": 180, "left": 270, "right": 90}.get(direction, 0)
    strength = 0.3 + 0.7 * task.number("light_source_strength")
    falling = scale_strength(ramp.rotate(turn).resize(image.size), strength)
    bright = ImageChops.screen(image, Image.new("RGB", image.size, mix(colour, (0, 0, 0), 0.35)))
    shade = ImageEnhance.Brightness(image).enhance(0.55)
    return Image.composite(bright, Image.blend(image, shade, strength * 0.6), falling)


def sketch(task: RenderTask) -> Image.Image:
    """Paint the prompt's scene on the drawing's lines."""
    return _apply_control(task, lines=True)


def structure(task: RenderTask) -> Image.Image:
    """Paint the prompt's scene in the picture's light and shade."""
    return _apply_control(task, lines=False)


def _apply_control(task: RenderTask, *, lines: bool) -> Image.Image:
    image = task.image("image").convert("RGB")
    grey = ImageOps.autocontrast(image.convert("L"), cutoff=1)
    strength = task.number("control_strength")
    palette = choose_palette(split_words(task.text("prompt")), _rng(task))
    tones = ImageOps.colorize(
        grey, mix(palette.near, (0, 0, 0), 0.4), palette.sky[2], palette.sky[1] if lines else palette.accent
    )
    mixed = Image.blend(_scene(task, image.size), tones, strength * (0.35 if lines else 0.75))
    edges = scale_strength(grey.filter(ImageFilter.FIND_EDGES), 2)
    edges = scale_strength(edges.filter(ImageFilter.MaxFilter(3)), strength if lines else strength / 2)
    painted = paint(mixed, _rng(task), coarse=0.035)
    return Image.composite(Image.new("RGB", image.size, mix(palette.near, (0, 0, 0), 0.7)), painted, edges)


def style_guide(task: RenderTask) -> Image.Image:
    """Paint the prompt's scene in the colours of a picture."""
    ratio = task.text("aspect_ratio") or "1:1"
    size = sizes.size_by_ratio(ratio, task.scale, step=1)
    own = choose_palette(split_words(task.text("prompt")), _rng(task))
    other = _colours_of(task.image("image").convert("RGB"))
    share = 0.25 + 0.75 * task.number("fidelity")
    palette = Palette(
        (
            mix(own.sky[0], other.sky[0], share),
            mix(own.sky[1], other.sky[1], share),
            mix(own.sky[2], other.sky[2], share),
        ),
        mix(own.far, other.far, share),
        mix(own.near, other.near, share),
        mix(own.light, other.light, share),
        mix(own.accent, other.accent, share),
    )
    return _scene(task, size, palette=palette)


def style_transfer(task: RenderTask) -> Image.Image:
    """Paint ``init_image`` in the colours and strokes of ``style_image``."""
    image = task.image("init_image").convert("RGB")
    image = image.resize(sizes.size_by_area(image.size, 1024, task.scale), Image.Resampling.LANCZOS)
    style = _colours_of(task.image("style_image").convert("RGB"))
    grey = ImageOps.autocontrast(image.convert("L"))
    toned = ImageOps.colorize(grey, style.near, style.light, style.accent)
    share = task.number("style_strength") * task.number("change_strength")
    styled = Image.blend(image, toned, 0.85 * share)
    coarse = 0.03 + 0.05 * (1 - task.number("composition_fidelity"))
    return Image.blend(styled, paint(styled, _rng(task), coarse=coarse), share)


def _colours_of(image: Image.Image) -> Palette:
    """Return a picture's own colours, from dark to light."""
    few = image.resize((64, 64), Image.Resampling.BOX).quantize(7).convert("RGB").getcolors(64 * 64) or []
    colours = [colour for _, colour in few if isinstance(colour, tuple)]
    colours.sort(key=sum)
    dark_to_light = [colours[min(len(colours) - 1, i * len(colours) // 7)] for i in range(7)]
    near, top, far, middle, accent, low, light = ((c[0], c[1], c[2]) for c in dark_to_light)
    vivid = max(colours, key=lambda colour: max(colour) - min(colour))
    return Palette((top, middle, low), far, near, light, mix(accent, (vivid[0], vivid[1], vivid[2]), 0.8))


def restyle(task: RenderTask) -> Image.Image:
    """Draw for an operation without a painter: its first picture repainted, or its prompt's scene."""
    for name, field in task.operation.fields.items():
        if field.kind == "file" and task.has(name):
            return paint(task.image(name).convert("RGB"), _rng(task))
    return generate(task)
