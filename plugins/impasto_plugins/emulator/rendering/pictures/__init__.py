"""Draws what an operation would: real pictures, made of prompt and seed alone."""

from __future__ import annotations

from PIL import ImageFilter

from .painters import painter_of
from .task import Made, Task, Unreadable, encode

__all__ = ["Made", "Task", "Unreadable", "draw"]


def draw(task: Task, mark: str, *, blurred: bool = False) -> Made:
    """Draws and encodes a picture. Takes long: not for the loop's thread. Raises Unreadable."""
    image = painter_of(task.operation)(task)
    if blurred:
        image = image.filter(ImageFilter.GaussianBlur(max(8, min(image.size) / 12)))
    format = task.text("output_format") or str(task.operation.fields["output_format"].default or "png")
    return encode(image, format, mark)
