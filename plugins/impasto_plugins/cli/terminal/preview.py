"""Image previews in terminals that support them. The file is saved already; a preview never fails a command."""

from __future__ import annotations

import io
import os
import shutil
from base64 import b64encode
from collections.abc import Mapping
from typing import Literal

from .output import echo

Way = Literal["iterm", "kitty", "blocks"]

_COLUMNS = 48
_KITTY_PIECE = 4096


def show(data: bytes, media_type: str) -> None:
    """Print the image in the terminal's own protocol, or nothing."""
    way = way_of(os.environ) if media_type.startswith("image/") else None
    if way is None:
        return
    try:
        echo(drawn(data, way))
    except (OSError, ValueError, SyntaxError, MemoryError):  # an image that Pillow can't read, or a narrow encoding
        return


def way_of(environ: Mapping[str, str]) -> Way | None:
    """Return the terminal's image protocol, as far as its environment shows it."""
    program = environ.get("LC_TERMINAL") or environ.get("TERM_PROGRAM", "")
    if "TMUX" not in environ and not environ.get("TERM", "").startswith(("screen", "tmux")):
        if program in ("iTerm2", "iTerm.app", "WezTerm"):
            return "iterm"
        if "KITTY_WINDOW_ID" in environ or environ.get("TERM") in ("xterm-kitty", "xterm-ghostty"):
            return "kitty"
    if environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") and "NO_COLOR" not in environ:
        return "blocks"
    return None


def drawn(data: bytes, way: Way) -> str:
    """Return the image as text and escape sequences. Raises OSError or ValueError if it can't be read."""
    columns = min(_COLUMNS, shutil.get_terminal_size().columns)
    if way == "iterm":
        text = b64encode(data).decode()
        return f"\033]1337;File=inline=1;width={columns};preserveAspectRatio=1;size={len(data)}:{text}\a"
    return _kitty(data, columns) if way == "kitty" else _blocks(data, columns)


def _kitty(data: bytes, columns: int) -> str:
    """Return the image in the kitty graphics protocol, which takes PNG in pieces of base64."""
    from PIL import Image  # 40 ms: only if an image is shown

    with Image.open(io.BytesIO(data)) as image, io.BytesIO() as png:
        image.thumbnail((1024, 1024))
        image.save(png, "PNG")
        text = b64encode(png.getvalue()).decode()
    pieces = [text[at : at + _KITTY_PIECE] for at in range(0, len(text), _KITTY_PIECE)]
    heads = [f"a=T,f=100,c={columns},", *[""] * (len(pieces) - 1)]
    more = [1] * (len(pieces) - 1) + [0]
    return "".join(f"\033_G{head}m={m};{piece}\033\\" for head, m, piece in zip(heads, more, pieces, strict=True))


def _blocks(data: bytes, columns: int) -> str:
    """Return two pixels a character: the upper half block in the upper pixel's colour on the lower one's."""
    from PIL import Image  # 40 ms: only if an image is shown

    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (columns * 4, columns * 4))
        scale = columns / image.width
        size = (columns, max(2, round(image.height * scale / 2) * 2))
        small = image.convert("RGBA").resize(size, Image.Resampling.BOX)
    backdrop = Image.new("RGBA", small.size, "black")
    pixels = Image.alpha_composite(backdrop, small).convert("RGB")
    lines = []
    for y in range(0, size[1], 2):
        cells = []
        for x in range(columns):
            r, g, b = _rgb(pixels.getpixel((x, y)))
            R, G, B = _rgb(pixels.getpixel((x, y + 1)))  # noqa: N806 - the lower pixel's
            cells.append(f"\033[38;2;{r};{g};{b};48;2;{R};{G};{B}m▀")
        lines.append("".join(cells) + "\033[0m")
    return "\n".join(lines)


def _rgb(pixel: object) -> tuple[int, int, int]:
    if not isinstance(pixel, tuple) or len(pixel) < 3:
        raise ValueError("not an RGB image")
    return int(pixel[0]), int(pixel[1]), int(pixel[2])
