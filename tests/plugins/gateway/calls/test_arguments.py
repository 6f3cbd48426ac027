"""A call's arguments as they came, at the edge of what is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from impasto import File, InvalidRequest, Operation, Registry
from impasto_plugins.gateway.calls.arguments import CallArguments, _read_upload
from impasto_plugins.gateway.calls.runtime import _max_body_bytes
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.http.memory_budget import MemoryBudget, MemoryReservation
from impasto_plugins.gateway.http.multipart import PartHead
from tests.images import png
from tests.plugins.gateway.conftest import Running
from tests.plugins.gateway.http.test_multipart import field, form

EDITS = "/v1/images/edits"
FORM = {"content-type": "multipart/form-data; boundary=bound"}
URI = "data:image/png;base64,AAAA"
_registry = Registry()


def model(name: str = "sd3") -> Operation:
    return _registry.operation(f"stability/{name}")


def read(body: dict[str, object], name: str = "sd3", *, of_form: bool = False) -> dict[str, object]:
    call_args = CallArguments.from_fields(body, form=True) if of_form else CallArguments.from_json(body)
    return call_args.for_operation(model(name))


@pytest.mark.parametrize(("parts", "status"), [(64, 400), (65, 413)])
async def test_a_form_may_have_64_parts(standing: Running, parts: int, status: int) -> None:
    data = form(*(field(f"nothing{number}", "x") for number in range(parts - 1)), field("model", "sd3"))
    answer = await standing.ask("POST", EDITS, data=data, headers=FORM)
    assert answer.status == status, answer.body


@pytest.mark.parametrize("files", [20, 21])
def test_a_call_may_name_20_files(files: int) -> None:
    call_args = CallArguments.from_json({"images": [{"file_id": f"file-{number}"} for number in range(files)]})
    if files == 20:
        assert call_args.uploaded_file_ids() == {f"file-{number}": "image" for number in range(20)}
    else:
        with pytest.raises(APIError, match="image: a call may name at most 20 files") as refused:
            call_args.uploaded_file_ids()
        assert (refused.value.status, refused.value.param) == (400, "image")


def test_files_take_the_places_of_their_ids_and_of_nothing_else() -> None:
    one, two = File.of(png(8, 8)), File.of(png(9, 9))
    call_args = CallArguments.from_json({"images": [{"file_id": "1"}, URI], "mask": {"file_id": "2"}, "seed": 3})
    call_args.resolve_uploads({"1": one, "2": two})
    assert call_args.params == {"image": [one, URI], "mask": two, "seed": 3}
    call_args = CallArguments.from_json({"image": {"file_id": "1", "image_url": URI}})
    assert call_args.uploaded_file_ids() == {}
    call_args = CallArguments.from_json({"image": {"file_id": 7}})
    with pytest.raises(APIError, match="file_id must be text"):
        call_args.uploaded_file_ids()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "3", 3),
        ("n", "-3", -3),
        ("n", "3.0", "3.0"),
        ("n", "03", "03"),
        ("n", "3e1", "3e1"),
        ("n", "\u0663", "\u0663"),
        ("seed", "0", 0),
        ("seed", "1.5", "1.5"),
        ("strength", "0.7", 0.7),
        ("strength", "1", 1),
        ("strength", "1.", "1."),
        ("strength", "nan", "nan"),
        ("output_compression", "100", 100),
        ("partial_images", "2", 2),
        ("prompt", "7", "7"),
        ("prompt", "null", "null"),
        ("negative_prompt", "null", "null"),
    ],
)
def test_a_forms_numbers_are_those_of_fields_that_take_numbers(name: str, text: str, value: object) -> None:
    params = read({name: text}, of_form=True)
    assert params == {name: value}
    assert type(params[name]) is type(value)
    assert read({name: text}) == {name: text}  # in JSON text is text


@pytest.mark.parametrize(
    "name", ["n", "seed", "strength", "size", "style_preset", "quality", "response_format", "nonsense"]
)
def test_null_as_a_forms_text_is_not_given(name: str) -> None:
    assert read({name: "null"}, of_form=True) == {}
    assert read({name: "null"}) == {name: "null"}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("True", "True"), ("1", "1")])
def test_a_forms_stream_is_true_or_false(text: str, value: object) -> None:
    assert CallArguments.from_fields({"stream": text}, form=True).stream == value
    assert CallArguments.from_fields({"stream": text}, form=False).stream == text


def test_image_and_images_are_one_argument() -> None:
    assert CallArguments.from_json({"images": [URI]}).params == {"image": [URI]}
    assert CallArguments.from_json({"images": [URI], "image": None}).params == {"image": [URI]}
    with pytest.raises(APIError, match="image and images have the same meaning") as refused:
        CallArguments.from_json({"images": [URI], "image": URI})
    assert refused.value.param == "images"


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "https://example.com/a.png",
        "",
        7,
        {},
        {"url": URI},
        {"image_url": "/etc/passwd"},
        {"image_url": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("word", ["image", "mask"])
def test_only_a_file_or_a_data_uri_is_an_image(word: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({word: value}, "inpaint")
    assert [problem.field for problem in refused.value.problems] == [word]


def test_an_image_is_taken_in_any_of_its_forms() -> None:
    file = File.of(png(8, 8))
    for value in (URI, "DATA:image/png;base64,AAAA", file):
        assert read({"image": value}, "inpaint") == {"image": value}
        assert read({"image": [value, None]}, "inpaint") == {"image": [value]}
    assert read({"image": {"image_url": URI, "detail": None}}, "inpaint") == {"image": URI}
    assert read({"image": [None]}, "inpaint") == {"image": []}


def test_a_list_is_no_mask() -> None:
    arguments = read({"image": URI, "mask": [URI], "prompt": "p"}, "inpaint")
    with pytest.raises(InvalidRequest, match=r"mask: must be .*, not list"):
        _registry.operation("stability/inpaint").request("inpaint", arguments)


def test_extra_body_is_merged_once() -> None:
    assert CallArguments.from_json({"extra_body": {"seed": 1, "cfg": None}, "prompt": "p"}).params == {
        "prompt": "p",
        "seed": 1,
    }
    assert CallArguments.from_fields({"extra_body": '{"seed": 1}'}, form=True).params == {"seed": 1}
    long = "x" * 70
    for name in ("prompt", long):
        with pytest.raises(APIError) as refused:
            CallArguments.from_json({"prompt": "p", long: 2, "extra_body": {name: 1}})
        assert refused.value.param == name[:60]
    wrong: tuple[object, ...] = ("no JSON", 5, [1])
    for extra in wrong:
        with pytest.raises(APIError, match="must be an object"):
            CallArguments.from_json({"extra_body": extra})


def test_a_call_reads_the_disk_if_one_of_its_files_is_there() -> None:
    in_memory, on_disk = File.of(png(8, 8)), File.of(__file__)
    assert on_disk.on_disk
    for params, reads in (
        ({"prompt": "p"}, False),
        ({"image": in_memory}, False),
        ({"image": [in_memory, on_disk]}, True),
        ({"mask": on_disk}, True),
    ):
        call_args = CallArguments(model=None, stream=None, params=dict(params), is_form=True)
        assert call_args.has_disk_files is reads
    on_disk.close()


@pytest.mark.parametrize(
    ("name", "bytes"), [("stable-image-core", 1 << 20), ("inpaint", 10 << 20), ("stable-fast-3d", 10 << 20)]
)
def test_a_body_may_be_as_large_as_its_model_takes(name: str, bytes: int) -> None:
    """The vendor's limit is 10 MiB for a request with files."""
    operation = model(name)
    if operation.max_bytes is not None:
        assert _max_body_bytes(operation) == operation.max_bytes == bytes
    else:
        assert _max_body_bytes(operation) == bytes


@pytest.mark.parametrize(("filename", "label"), [("cat.png", "cat.png"), ("", "image")])
async def test_an_upload_is_called_by_its_file_name_or_else_by_its_field(filename: str, label: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield png(8, 8)

    with ExitStack() as files:
        head = PartHead(name="image", filename=filename, charset="utf-8")
        file = await _read_upload(head, filename, body(), MemoryReservation(MemoryBudget(1 << 20)), files)
        assert file is not None
        assert (file.label, file.read()) == (label, png(8, 8))
