"""Rendering of a task: an image, audio or a 3D model."""

from __future__ import annotations

from . import audio, models_3d
from .pictures import draw
from .pictures.task import Generated, RenderTask


def render(task: RenderTask, mark: str, *, blurred: bool = False) -> Generated:
    """Render the output of the task's operation. Slow, so run it in a thread. Raises UnreadableImage."""
    match task.operation.output:
        case "audio":
            return audio.render_audio(task)
        case "3d":
            return models_3d.render_model(task)
        case "image":
            return draw(task, mark, blurred=blurred)
