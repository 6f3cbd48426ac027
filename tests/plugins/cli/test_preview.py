"""Pictures in the terminal."""

from __future__ import annotations

import io
import re
from base64 import b64decode

import pytest
from PIL import Image

from impasto_plugins.cli.terminal.preview import drawn, way_of
from tests import images

TRUE = {"COLORTERM": "truecolor"}


@pytest.mark.parametrize(
    ("environ", "way"),
    [
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm", **TRUE}, "iterm"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"KITTY_WINDOW_ID": "1", "TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        (TRUE, "blocks"),
        ({"TMUX": "x", "TERM_PROGRAM": "WezTerm", **TRUE}, "blocks"),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({**TRUE, "NO_COLOR": "1"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_the_environment_tells_how(environ: dict[str, str], way: str | None) -> None:
    assert way_of(environ) == way


def two_colours() -> bytes:
    picture = Image.new("RGB", (64, 64), "red")
    picture.paste("blue", (0, 32, 64, 64))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_blocks_show_the_picture_in_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    lines = drawn(two_colours(), "blocks").splitlines()
    assert len(lines) == 10
    cells = [re.findall(r"\033\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", line) for line in lines]
    assert {len(row) for row in cells} == {20}
    assert cells[0][0] == ("255", "0", "0") * 2
    assert cells[9][19] == ("0", "0", "255") * 2
    assert all(line.endswith("\033[0m") for line in lines)


def test_iterm_gets_the_file_itself() -> None:
    data = two_colours()
    found = re.fullmatch(r"\033\]1337;File=inline=1;[^:]*:([A-Za-z0-9+/=]+)\a", drawn(data, "iterm"))
    assert found is not None
    assert b64decode(found[1]) == data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_kitty_gets_a_png_in_pieces(kind: str) -> None:
    noise = Image.effect_noise((200, 200), 90)
    out = io.BytesIO()
    noise.save(out, kind)
    pieces = re.findall(r"\033_G([^;]*);([^\033]*)\033\\", drawn(out.getvalue(), "kitty"))
    assert all(len(text) <= 4096 for _, text in pieces)
    assert [head[-3:] for head, _ in pieces] == ["m=1"] * (len(pieces) - 1) + ["m=0"]
    png = b64decode("".join(text for _, text in pieces))
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.size) == ("PNG", (200, 200))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "CMYK", "I;16", "1"])
def test_blocks_take_every_kind_of_picture(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert "▀" in drawn(images.drawn(kind, mode), "blocks")
