"""Each operation's whole request as it goes out, every field given, and its fields in words, kept in ``golden/``.

``pytest tests/plugins/stability/test_golden.py --update-golden`` writes them again; the diff is for review
against the vendor's document.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import impasto
from impasto import Operation
from impasto.fields import Field
from impasto.testing.golden import operation_text
from tests.conftest import KEY
from tests.images import flat_jpeg, padded, webp_header
from tests.media import wav
from tests.plugins.stability.cases import BY_NAME, JOBS, on_the_wire, tail
from tests.recorder import JOB, ReceivedRequest, Recorder

GOLDEN = Path(__file__).parent / "golden"

VALUES: Mapping[str, object] = {
    "prompt": "a lighthouse, (stormy:1.2) \N{WATER WAVE}",
    "negative_prompt": "people",
    "search_prompt": "the boat",
    "select_prompt": "the sail",
    "background_prompt": "a beach at dusk",
    "foreground_prompt": "a wooden chair",
    "mode": "image-to-image",
    "aspect_ratio": "21:9",
    "seed": 4_294_967_294,
    "strength": 0.75,
    "cfg_scale": 4.5,
    "creativity": 0.3,
    "control_strength": 0.6,
    "fidelity": 0.5,
    "style_strength": 1,
    "composition_fidelity": 0.9,
    "change_strength": 0.1,
    "grow_mask": 12.5,
    "left": 0,
    "right": 2000,
    "up": 1,
    "down": 64,
    "preserve_original_subject": 0.6,
    "original_background_depth": 0.5,
    "keep_original_background": "true",
    "light_source_direction": "above",
    "light_source_strength": 0.3,
    "style_preset": "analog-film",
    "duration": 12.5,
    "mask_start": 0,
    "mask_end": 12.5,
    "texture_resolution": "2048",
    "foreground_ratio": 1,
    "remesh": "quad",
    "vertex_count": -1,
    "target_type": "face",
    "target_count": 20_000,
    "guidance_scale": 2.5,
    # of sizes that hang on no library: they are in Content-Length
    "image": padded(1000, 128, 96),
    "mask": padded(500, 128, 96),
    "subject_image": webp_header(128, 96),
    "background_reference": flat_jpeg(128, 96),
    "light_reference": padded(600, 96, 96),
    "init_image": padded(700, 160, 64),
    "style_image": flat_jpeg(64, 64),
    "audio": wav(10),
}


def value(name: str, field: Field) -> object:
    """A field's value; the last or largest that it takes, where operations have no value in common."""
    match name:
        case "output_format":
            return field.choices[-1]
        case "steps":
            assert field.maximum is not None
            return int(field.maximum)
        case _:
            return VALUES[name]


def requests(operation: Operation) -> list[dict[str, object]]:
    """Every field at once; where two shut each other out, one request with either."""
    everything = {name: value(name, field) for name, field in operation.fields.items()}
    if tail(operation) != "generate/sd3":
        return [everything]
    to_image = {name: value for name, value in everything.items() if name != "aspect_ratio"}
    from_text = {name: value for name, value in everything.items() if name not in ("mode", "image", "strength")}
    return [from_text | {"mode": "text-to-image"}, to_image]


def written(request: ReceivedRequest, recorder: Recorder) -> str:
    """A request as text, files by their size."""
    lines = [f"{request.method} {request.path}"]
    boundary = request.boundary if request.body else "none"
    for name, value in request.headers:
        output = value.replace(boundary, "BOUNDARY").replace(KEY, "KEY")
        lines.append(f"{name}: {output.replace(recorder.url.removeprefix('http://'), 'HOST')}")
    lines.append("")
    if request.body:
        text = request.body
        for part in request.files.values():
            text = text.replace(part.data, f"<{len(part.data)} bytes>".encode())
        lines.append(text.decode().replace(boundary, "BOUNDARY").replace("\r\n", "\n"))
    return "\n".join(lines)


def path_of(operation: Operation) -> Path:
    return GOLDEN / f"{operation.id.removeprefix('stability/').replace(':', '-').replace('/', '-')}.txt"


@pytest.mark.parametrize("operation", BY_NAME.values(), ids=BY_NAME)
async def test_the_whole_request_is_as_it_was_reviewed(
    client: impasto.Client, recorder: Recorder, operation: Operation, request: pytest.FixtureRequest
) -> None:
    recorder.jobs = JOBS
    for arguments in requests(operation):
        await client.invoke(operation.id, arguments, user="user-7")
        post = recorder.posts[-1]
        expected = on_the_wire(operation, arguments)
        assert {*post.fields, *post.files} == set(expected)
        assert all(part.data == expected[name] for name, part in post.files.items())
    now = "\n".join([operation_text(operation), *(written(received, recorder) for received in recorder.requests)])
    path = path_of(operation)
    if request.config.getoption("--update-golden"):
        path.write_text(now)
    assert now == path.read_text(), f"run pytest with --update-golden and review the diff of {path.name}"


def test_there_is_one_golden_file_for_each_operation_and_no_other() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {path_of(operation).name for operation in BY_NAME.values()}


def test_the_job_of_an_asynchronous_operation_is_fetched() -> None:
    images = {path.name for path in GOLDEN.iterdir() if f"GET /v2beta/results/{JOB}" in path.read_text()}
    assert images == {"stable-creative-upscale-v1-0.txt", "replace-background-and-relight.txt"}
    sounds = {path.name for path in GOLDEN.iterdir() if f"GET /v2beta/audio/results/{JOB}" in path.read_text()}
    assert sounds == {f"stable-audio-3-{name}.txt" for name in ("text-to-audio", "audio-to-audio", "inpaint")}
