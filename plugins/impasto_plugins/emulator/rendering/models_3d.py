"""3D models: a cushion with the picture on both its sides, as one GLB file."""

from __future__ import annotations

import io
import json
import math
import random
import struct
from array import array
from collections.abc import Sequence

from PIL import Image

from .pictures.task import Generated, RenderTask

GRID_POINTS = 64
"""Points along a side, unless fewer are requested."""

_FLOATS, _SHORTS = 5126, 5123
_VERTICES, _INDICES = 34962, 34963
_DEPTH, _RELIEF = 0.35, 0.12

Vector = tuple[float, float, float]


def render_model(task: RenderTask) -> Generated:
    """Build a model of the task's picture. Slow, so run it in a thread. Raises UnreadableImage."""
    picture = task.image("image").convert("RGB")
    side = max(16, round(int(task.text("texture_resolution") or 1024) * task.scale))
    points, places, faces = _cushion(picture, _grid(task), _size(task), random.Random(task.seed))  # noqa: S311 - no secret
    return Generated(_glb(points, places, faces, _texture(picture, side)), "model/gltf-binary")


def _grid(task: RenderTask) -> int:
    """Return the points along a side for at most the requested vertices or faces."""
    maximum = task.number("vertex_count") if "vertex_count" in task.operation.fields else -1
    match task.text("target_type"):
        case "vertex":
            maximum = task.number("target_count")
        case "face":
            maximum = task.number("target_count") / 2  # a closed surface of triangles has twice as many faces
    if maximum < 0:
        return GRID_POINTS
    return max(3, min(GRID_POINTS, int(math.sqrt(max(maximum - 2, 0) / 2)) + 1))  # two sides that share their border


def _size(task: RenderTask) -> float:
    """Return the object's size in its frame: one operation gives the share it fills, the other the margin."""
    ratio = task.number("foreground_ratio")
    return ratio if ratio <= 1 else 1 / ratio


def _cushion(
    picture: Image.Image, grid: int, size: float, random: random.Random
) -> tuple[list[Vector], list[tuple[float, float]], list[int]]:
    """Return points, their places in the picture, and triangles. Light parts of the picture stand out."""
    heights = picture.convert("L").resize((grid, grid)).tobytes()
    longer = max(picture.size)
    wide, high = size * picture.width / longer, size * picture.height / longer
    depth = _DEPTH * size * random.uniform(0.8, 1.2)
    points: list[Vector] = []
    places: list[tuple[float, float]] = []
    numbers: dict[tuple[int, int, int], int] = {}
    for front in (1, -1):
        for row in range(grid):
            for column in range(grid):
                u, v = column / (grid - 1), row / (grid - 1)
                rise = math.sqrt(max(math.sin(math.pi * u) * math.sin(math.pi * v), 0.0))
                on_border = row in (0, grid - 1) or column in (0, grid - 1)
                if on_border and front < 0:
                    numbers[front, row, column] = numbers[1, row, column]
                    continue
                z = 0.0 if on_border else front * rise * (depth + _RELIEF * size * heights[row * grid + column] / 255)
                numbers[front, row, column] = len(points)
                points.append(((u - 0.5) * wide, (0.5 - v) * high, z))
                places.append((u, v))
    faces: list[int] = []
    for front in (1, -1):
        for row in range(grid - 1):
            for column in range(grid - 1):
                a, b = numbers[front, row, column], numbers[front, row, column + 1]
                c, d = numbers[front, row + 1, column], numbers[front, row + 1, column + 1]
                # Cut so that no cut joins two points of the border: both sides would share it.
                cut = (a, c, d, a, d, b) if (row < grid // 2) == (column < grid // 2) else (a, c, b, b, c, d)
                faces += cut if front > 0 else reversed(cut)
    return points, places, faces


def _texture(picture: Image.Image, side: int) -> bytes:
    out = io.BytesIO()
    picture.resize((side, side)).save(out, "JPEG", quality=88)
    return out.getvalue()


def _normals(points: Sequence[Vector], faces: Sequence[int]) -> list[Vector]:
    """Return each point's normal: the mean of its triangles."""
    sums = [[0.0, 0.0, 0.0] for _ in points]
    for at in range(0, len(faces), 3):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (points[number] for number in faces[at : at + 3])
        ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
        normal = (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)
        for number in faces[at : at + 3]:
            for axis in range(3):
                sums[number][axis] += normal[axis]
    return [(x / length, y / length, z / length) for x, y, z in sums for length in (math.hypot(x, y, z) or 1.0,)]


def _glb(
    points: Sequence[Vector], places: Sequence[tuple[float, float]], faces: Sequence[int], texture: bytes
) -> bytes:
    """Return the file: a header, its structure as JSON, and the numbers and the picture."""
    parts = (
        (array("f", (n for point in points for n in point)).tobytes(), _VERTICES),
        (array("f", (n for normal in _normals(points, faces) for n in normal)).tobytes(), _VERTICES),
        (array("f", (n for place in places for n in place)).tobytes(), _VERTICES),
        (array("H", faces).tobytes(), _INDICES),
        (texture, None),
    )
    binary, views = b"", []
    for data, target in parts:
        view = {"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)}
        views.append(view | ({"target": target} if target is not None else {}))
        binary += data + bytes(-len(data) % 4)
    low, high = ([pick(point[axis] for point in points) for axis in range(3)] for pick in (min, max))
    kinds = (
        {"componentType": _FLOATS, "count": len(points), "type": "VEC3", "min": low, "max": high},
        {"componentType": _FLOATS, "count": len(points), "type": "VEC3"},
        {"componentType": _FLOATS, "count": len(points), "type": "VEC2"},
        {"componentType": _SHORTS, "count": len(faces), "type": "SCALAR"},
    )
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}
    surface = {"baseColorTexture": {"index": 0}, "metallicFactor": 0, "roughnessFactor": 0.9}
    document = {
        "asset": {"version": "2.0", "generator": "impasto emulator"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": surface}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 4, "mimeType": "image/jpeg"}],
        "accessors": [{"bufferView": view, **kind} for view, kind in enumerate(kinds)],
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body
