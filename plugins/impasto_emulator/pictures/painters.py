"""Which painter draws which operation."""

from __future__ import annotations

import random
from collections.abc import Callable

from PIL import Image

from impasto import Operation

from . import sizes
from .task import Task

Painter = Callable[[Task], Image.Image]


def painter_of(operation: Operation) -> Painter:
    return _plain


def _plain(task: Task) -> Image.Image:
    size = sizes.by_ratio(task.text("aspect_ratio") or "1:1", task.scale)
    for name, field in task.operation.fields.items():
        if field.kind == "file" and task.given(name):
            size = task.image(name).size
            break
    colour = random.Random(f"{task.seed} {task.text('prompt')}").randrange(1 << 24)
    return Image.new("RGB", size, (colour >> 16, colour >> 8 & 255, colour & 255))
