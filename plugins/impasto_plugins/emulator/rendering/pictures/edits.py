"""What each edit makes of the pictures it is given."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from . import sizes
from .brush import paint
from .masks import edit_mask, filled, found, grown, subject, times
from .palette import Palette, mix, palette_of, rgb, words_of
from .scene import draw_scene
from .task import Task


def _rng(task: Task) -> random.Random:
    return random.Random(f"{task.seed} {task.text('prompt')}")  # noqa: S311 - a picture, no secret


def _scene(task: Task, size: sizes.Size, prompt: str = "prompt", palette: Palette | None = None) -> Image.Image:
    return draw_scene(task.text(prompt), task.seed, size, without=task.text("negative_prompt"), palette=palette)


def _painted_in(task: Task, image: Image.Image, mask: Image.Image) -> Image.Image:
    """The prompt's scene where the mask is white, and nothing else changed."""
    whole, box = image.convert("RGB"), mask.getbbox()
    if box is None:
        return whole
    patch = whole.copy()
    patch.paste(_scene(task, (box[2] - box[0], box[3] - box[1])), box)
    return Image.composite(patch, whole, mask)


def generate(task: Task, *, side: int = 1024) -> Image.Image:
    """Text to image; with a picture, image to image: ``strength`` 0 keeps it, 1 ignores it."""
    size = sizes.by_ratio(task.text("aspect_ratio") or "1:1", task.scale, side=side)
    if not task.given("image"):
        return _scene(task, size)
    image = task.image("image").convert("RGB")
    image = image.resize(sizes.by_area(image.size, side, task.scale), Image.Resampling.LANCZOS)
    strength = task.number("strength")
    return paint(Image.blend(image, _scene(task, image.size), strength), _rng(task)) if strength else image


def inpaint(task: Task) -> Image.Image:
    image = task.image("image")
    return _painted_in(task, image, edit_mask(task, image))


def erase(task: Task) -> Image.Image:
    image = task.image("image")
    mask = edit_mask(task, image)
    if mask.getbbox() is None:
        return image.convert("RGB")
    rest = filled(image, mask)
    return Image.composite(paint(rest, _rng(task), relief=0.3), image.convert("RGB"), mask)


def outpaint(task: Task) -> Image.Image:
    """The picture in its place, its surroundings grown out of it; the more ``creativity``, the more of the prompt."""
    image = task.image("image").convert("RGB")
    left, right, up, down = (round(task.number(name)) for name in ("left", "right", "up", "down"))
    size = image.width + left + right, image.height + up + down
    canvas, hole = Image.new("RGB", size), Image.new("L", size, 255)
    canvas.paste(image, (left, up))
    hole.paste(0, (left, up, left + image.width, up + image.height))
    around = filled(canvas, hole)
    if task.text("prompt"):
        fade = ImageChops.invert(hole).filter(ImageFilter.GaussianBlur(max(1, max(left, right, up, down) / 3)))
        share = 0.6 + 0.4 * task.number("creativity")
        far = times(ImageOps.invert(fade), share)
        around = Image.composite(_scene(task, size), around, far)
    around = paint(around, _rng(task))
    around.paste(image, (left, up))
    return around


def upscale_fast(task: Task) -> Image.Image:
    image = task.image("image")
    return image.resize((image.width * 4, image.height * 4), Image.Resampling.LANCZOS)


def upscale(task: Task, *, side: int) -> Image.Image:
    """To about ``side`` squared pixels; ``creativity`` is how much of the brush comes in."""
    image = task.image("image").convert("RGB")
    size = sizes.by_area(image.size, side, task.scale)
    # painted at a quarter of the size: the brush shows, and it does not take all day
    middle = image.resize(sizes.scaled(size, 0.35), Image.Resampling.LANCZOS)
    blended = Image.blend(middle, paint(middle, _rng(task), coarse=0.03), min(1.0, 2 * task.number("creativity")))
    return blended.resize(size, Image.Resampling.BICUBIC)


def search_and_replace(task: Task) -> Image.Image:
    image = task.image("image")
    return _painted_in(
        task, image, grown(found(image.size, task.text("search_prompt")), round(task.number("grow_mask")))
    )


def search_and_recolor(task: Task) -> Image.Image:
    image = task.image("image").convert("RGB")
    mask = grown(found(image.size, task.text("select_prompt")), round(task.number("grow_mask")))
    accent = palette_of(words_of(task.text("prompt")), _rng(task)).accent
    tinted = ImageOps.colorize(
        image.convert("L"), mix(accent, (0, 0, 0), 0.8), mix(accent, (255, 255, 255), 0.75), accent
    )
    return Image.composite(tinted, image, mask)


def remove_background(task: Task) -> Image.Image:
    image = task.image("image")
    alpha = subject(image.size)
    if image.mode == "RGBA":
        alpha = ImageChops.multiply(alpha, image.getchannel("A"))
    cut = image.convert("RGB")
    cut.putalpha(alpha)
    return cut


def relight(task: Task) -> Image.Image:
    """The subject before a new background, in light from a side or of a reference's colour."""
    image = task.image("subject_image").convert("RGB")
    if task.text("keep_original_background") == "true":
        background = image
    elif task.given("background_reference"):
        background = ImageOps.fit(task.image("background_reference").convert("RGB"), image.size)
        background = paint(background, _rng(task))
    else:
        background = _scene(task, image.size, "background_prompt")
    whole = Image.composite(image, background, subject(image.size))
    tone = background.resize((1, 1), Image.Resampling.BOX).resize(image.size)
    share = 0.35 * (1 - task.number("preserve_original_subject"))
    return _illuminated(
        task, Image.blend(whole, ImageChops.multiply(whole, ImageEnhance.Brightness(tone).enhance(1.6)), share)
    )


def _illuminated(task: Task, image: Image.Image) -> Image.Image:
    direction = task.text("light_source_direction")
    colour = rgb("#fff1cf")
    if task.given("light_reference"):
        reference = task.image("light_reference").convert("RGB").resize((1, 1), Image.Resampling.BOX)
        red, green, blue = reference.tobytes()
        colour = red, green, blue
    elif not direction:
        return image
    ramp = Image.linear_gradient("L")  # dark above, light below
    turn = {"above": 180, "left": 270, "right": 90}.get(direction, 0)
    strength = 0.3 + 0.7 * task.number("light_source_strength")
    falling = times(ramp.rotate(turn).resize(image.size), strength)
    bright = ImageChops.screen(image, Image.new("RGB", image.size, mix(colour, (0, 0, 0), 0.35)))
    shade = ImageEnhance.Brightness(image).enhance(0.55)
    return Image.composite(bright, Image.blend(image, shade, strength * 0.6), falling)


def sketch(task: Task) -> Image.Image:
    """The scene of the prompt on the drawing's lines."""
    return _controlled(task, lines=True)


def structure(task: Task) -> Image.Image:
    """The scene of the prompt in the picture's light and shade."""
    return _controlled(task, lines=False)


def _controlled(task: Task, *, lines: bool) -> Image.Image:
    image = task.image("image").convert("RGB")
    grey = ImageOps.autocontrast(image.convert("L"), cutoff=1)
    strength = task.number("control_strength")
    palette = palette_of(words_of(task.text("prompt")), _rng(task))
    tones = ImageOps.colorize(
        grey, mix(palette.near, (0, 0, 0), 0.4), palette.sky[2], palette.sky[1] if lines else palette.accent
    )
    mixed = Image.blend(_scene(task, image.size), tones, strength * (0.35 if lines else 0.75))
    edges = times(grey.filter(ImageFilter.FIND_EDGES), 2)
    edges = times(edges.filter(ImageFilter.MaxFilter(3)), strength if lines else strength / 2)
    painted = paint(mixed, _rng(task), coarse=0.035)
    return Image.composite(Image.new("RGB", image.size, mix(palette.near, (0, 0, 0), 0.7)), painted, edges)


def style_guide(task: Task) -> Image.Image:
    """The prompt's scene in the colours of a picture."""
    ratio = task.text("aspect_ratio") or "1:1"
    size = sizes.by_ratio(ratio, task.scale, step=1)
    own = palette_of(words_of(task.text("prompt")), _rng(task))
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


def style_transfer(task: Task) -> Image.Image:
    """``init_image`` in the colours and strokes of ``style_image``."""
    image = task.image("init_image").convert("RGB")
    image = image.resize(sizes.by_area(image.size, 1024, task.scale), Image.Resampling.LANCZOS)
    style = _colours_of(task.image("style_image").convert("RGB"))
    grey = ImageOps.autocontrast(image.convert("L"))
    toned = ImageOps.colorize(grey, style.near, style.light, style.accent)
    share = task.number("style_strength") * task.number("change_strength")
    kept = Image.blend(image, toned, 0.85 * share)
    coarse = 0.03 + 0.05 * (1 - task.number("composition_fidelity"))
    return Image.blend(kept, paint(kept, _rng(task), coarse=coarse), share)


def _colours_of(image: Image.Image) -> Palette:
    """A picture's own colours, from dark to light."""
    few = image.resize((64, 64), Image.Resampling.BOX).quantize(7).convert("RGB").getcolors(64 * 64) or []
    colours = [colour for _, colour in few if isinstance(colour, tuple)]
    colours.sort(key=sum)
    dark_to_light = [colours[min(len(colours) - 1, i * len(colours) // 7)] for i in range(7)]
    near, top, far, middle, accent, low, light = ((c[0], c[1], c[2]) for c in dark_to_light)
    vivid = max(colours, key=lambda colour: max(colour) - min(colour))
    return Palette((top, middle, low), far, near, light, mix(accent, (vivid[0], vivid[1], vivid[2]), 0.8))


def restyle(task: Task) -> Image.Image:
    """What an operation without a painter of its own makes: its first picture painted anew, or its prompt's scene."""
    for name, field in task.operation.fields.items():
        if field.kind == "file" and task.given(name):
            return paint(task.image(name).convert("RGB"), _rng(task))
    return generate(task)
