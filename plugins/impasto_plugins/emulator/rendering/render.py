"""Makes what was ordered: a picture, a sound or a 3D model."""

from __future__ import annotations

from . import audio, models_3d
from .pictures import draw
from .pictures.task import Made, Task


def make(task: Task, mark: str, *, blurred: bool = False) -> Made:
    """What the task's operation makes. Takes long: not for the loop's thread. Raises Unreadable."""
    match task.operation.makes:
        case "audio":
            return audio.play(task)
        case "3d":
            return models_3d.build(task)
        case "image":
            return draw(task, mark, blurred=blurred)
