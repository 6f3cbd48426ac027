"""A translation is finished without a loop too, as a batch's manifest is: opened, checked, renamed."""

import gc
from pathlib import Path

import pytest

from impasto import File, InvalidRequest, Registry, Request
from impasto_plugins.openai_compat.check import checked_request
from impasto_plugins.openai_compat.translate import translate
from impasto_plugins.stability import inpaint
from tests.descriptors import open_descriptors
from tests.pictures import png

_registry = Registry()


def checked(name: str, **arguments: object) -> tuple[Request, tuple[str, ...]]:
    model = f"stability/{name}"
    operation = _registry.operation(model)
    return checked_request(operation, model, translate(operation, arguments, edit=True))


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
        ("inpaint", {"image": png(64, 64), "prompt": 7, "mask": b"x"}, {"prompt": "text", "mask": "no png"}),
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
    told = {problem.field: problem.message for problem in caught.value.problems}
    assert list(told) == list(problems)
    for word, said in problems.items():
        assert said in told[word]


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
