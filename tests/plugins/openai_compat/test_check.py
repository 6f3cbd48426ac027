"""A translation is finished without a loop too, as a batch's manifest is: opened, checked, renamed."""

import asyncio
import gc
import time
from pathlib import Path

import pytest

from impasto import File, InvalidRequest, Registry, Request
from impasto_plugins.openai_compat.check import bytes_to_decode, check, check_request
from impasto_plugins.openai_compat.translate import translate
from impasto_plugins.stability import inpaint
from tests.descriptors import open_descriptors
from tests.images import png

_registry = Registry()


def checked(name: str, **arguments: object) -> tuple[Request, tuple[str, ...]]:
    model = f"stability/{name}"
    operation = _registry.operation(model)
    return check_request(operation, model, translate(operation, arguments, edit=True))


def test_a_request_and_all_warnings(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png(100, 100))
    request, warnings = checked("inpaint", image=path, mask=png(50, 60), prompt="a", size="1024x1024", user="ann")
    assert (request.operation, request.user) == ("stability/inpaint", "ann")
    assert isinstance(request.params, inpaint.Params)
    assert request.params.image.read() == png(100, 100)
    assert [warning.split()[:2] for warning in warnings] == [["size", "1024x1024"], ["the", "mask"]]


@pytest.mark.parametrize(
    ("name", "arguments", "problems"),
    [
        ("style-transfer", {}, {"image": "required", "style_image": "required"}),
        ("style-transfer", {"image": png(64, 64)}, {"style_image": "required"}),
        ("style-transfer", {"init_image": png(9, 9), "style_image": png(64, 64)}, {"init_image": "9x9"}),
        ("style-transfer", {"image": [png(64, 64), png(9, 9)]}, {"image": "style_image"}),
        ("style-transfer", {"image": [b"x"] * 3}, {"image": "at most 2"}),
        ("replace-background-and-relight", {"image": png(64, 64)}, {"prompt": "background_prompt"}),
        ("inpaint", {"image": png(64, 64), "prompt": 7, "mask": b"x"}, {"prompt": "text", "mask": "not a PNG"}),
        ("outpaint", {"image": png(64, 64)}, {"left": "above 0"}),
        (
            "stable-image-ultra",
            {"image": png(64, 64), "prompt": "a", "size": "x"},
            {"size": "WIDTH", "strength": "image"},
        ),
    ],
)
def test_problems_bear_the_names_that_the_caller_used(
    name: str, arguments: dict[str, object], problems: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked(name, **arguments)
    messages = {problem.field: problem.message for problem in caught.value.problems}
    assert list(messages) == list(problems)
    for word, message in problems.items():
        assert message in messages[word]


def test_a_refused_call_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png(100, 100))
    with path.open("rb") as image, path.open("rb") as mask:
        for style in (None, "natural"):
            with pytest.raises(InvalidRequest):
                checked("inpaint", image=image, mask=mask, style=style)
        gc.collect()
        assert open_descriptors(path) == 2


def test_a_callers_own_file_is_not_closed() -> None:
    closed: list[bool] = []
    file = File.of(png(64, 64))
    mine = File(
        label="mine", size=file.size, media_type=file.media_type, opener=file.open, closer=lambda: closed.append(True)
    )
    checked("erase", image=png(64, 64), mask=mine)
    assert not closed


async def test_at_most_two_calls_decode_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take as much memory as its pixels are many."""
    running: list[int] = []
    now = 0

    def decoded(mask: File, **_: object) -> File:
        nonlocal now
        now += 1
        running.append(now)
        time.sleep(0.02)
        now -= 1
        return mask

    monkeypatch.setattr("impasto_plugins.images.masks.to_provider", decoded)
    operation = _registry.operation("stability/inpaint")
    translation = translate(operation, {"image": png(64, 64), "mask": png(64, 64), "prompt": "a"}, edit=True)
    await asyncio.gather(*(check(operation, "stability/inpaint", translation) for _ in range(4)))
    assert len(running) == 4
    assert max(running) <= 2


@pytest.mark.parametrize("name", ["image", "style_image", "init_image"])
async def test_one_of_two_files_is_read_beside_the_loop_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png(100, 100))
    operation = _registry.operation("stability/style-transfer")
    with pytest.raises(InvalidRequest, match="required"):  # and no BlockingError
        await check(operation, "stability/style-transfer", translate(operation, {name: path}, edit=True))


@pytest.mark.parametrize(("mask", "warns"), [((64, 64), False), ((64, 65), True), ((65, 64), True)])
def test_a_mask_of_another_size_than_its_image_is_told(mask: tuple[int, int], warns: bool) -> None:
    _, warnings = checked("inpaint", image=png(64, 64), mask=png(*mask), prompt="a")
    assert len(warnings) == warns
    if warns:
        assert warnings[0].startswith(f"the mask is {mask[0]}x{mask[1]} pixels and the image 64x64")


async def test_the_memory_of_a_mask_is_known_before_it_is_decoded(tmp_path: Path) -> None:
    operation = _registry.operation("stability/inpaint")

    async def size(**fields: object) -> int:
        return await bytes_to_decode(operation, translate(operation, {"image": png(64, 64), **fields}))

    path = tmp_path / "mask.png"
    path.write_bytes(png(64, 64))
    assert await size() == 0
    assert await size(mask=path) == await size(mask=png(64, 64)) > 0
    assert await size(mask=tmp_path / "none.png") == 0
    assert open_descriptors(path) == 0


def test_a_mask_is_measured_and_a_callers_open_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png(64, 64))
    operation = _registry.operation("stability/inpaint")
    with path.open("rb") as file:
        for mask in (path, str(path), File.of(path), file):
            translation = translate(operation, {"image": png(64, 64), "mask": mask, "prompt": "a"}, edit=True)
            asyncio.run(bytes_to_decode(operation, translation))
        assert not file.closed
    assert open_descriptors(path) == 0


def test_a_refused_mask_leaves_the_checked_image_closed(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png(100, 100))
    gc.disable()  # the garbage collector would close it too, some time later
    try:
        with path.open("rb") as image:
            with pytest.raises(InvalidRequest) as caught:
                checked("inpaint", image=image, style="natural")
            assert open_descriptors(path) == 1
            assert caught.value.problems
    finally:
        gc.enable()
