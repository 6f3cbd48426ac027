"""Pictures of every operation, from prompt and seed alone."""

from __future__ import annotations

from PIL import ImageFilter

from .painters import find_painter
from .task import Generated, RenderTask, UnreadableImage, encode

__all__ = ["Generated", "RenderTask", "UnreadableImage", "draw"]


def draw(task: RenderTask, mark: str, *, blurred: bool = False) -> Generated:
    """Draw and encode a picture. Slow, so run it in a thread. Raises UnreadableImage."""
    image = find_painter(task.operation)(task)
    if blurred:
        image = image.filter(ImageFilter.GaussianBlur(max(8, min(image.size) / 12)))
    format = task.text("output_format") or str(task.operation.fields["output_format"].default or "png")
    return encode(image, format, mark)
