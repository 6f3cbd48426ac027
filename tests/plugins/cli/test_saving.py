"""Nothing is overwritten unasked, and nothing that was paid for is dropped."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impasto import Artifact, UnusableResult
from impasto_plugins.cli.calls.artifact_files import ArtifactSaver
from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.cli.conftest import Run

PICTURE = Artifact(data=b"paid for", media_type="image/png", seed=7)


def test_a_folder_that_went_away_meanwhile_costs_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    out = tmp_path / "gone" / "x.png"
    path = ArtifactSaver(model="stability/sd3", out=out).save(PICTURE).path
    assert path is not None
    assert path != out
    assert path.name == "x.png"
    assert path.read_bytes() == b"paid for"


def test_an_image_that_is_not_at_its_place_is_an_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that goes on to read the file must not see success."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Path("out").mkdir()
    wanted, open_file = Path("out/x.png"), Path.open

    def vanish(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode == "xb" and path.name == wanted.name and wanted.parent.exists():
            wanted.parent.rmdir()
        return open_file(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", vanish)
    result = run("generate", "stability/stable-image-core", "x", "-o", str(wanted))
    assert result.exit_code == 1
    reason = r"No such file or directory; the output is in (.*)\n"
    found = re.fullmatch(f"Error: 'out/x.png' could not be written: {reason}", result.stderr)
    assert found is not None, result.stderr
    assert result.stdout == f"{found[1]}\n"
    assert Path(found[1]).read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No place takes a file: neither the wanted folder, nor that for temporary files, nor the user's."""
    (tmp_path / "not-a-folder").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    (tmp_path / "working").rmdir()
    return tmp_path / "gone" / "x.png"


def test_if_no_disk_takes_it_standard_output_does(no_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out))
    saving = ArtifactSaver(model="stability/sd3", out=no_disk)
    first, second = saving.save(PICTURE), saving.save(PICTURE)
    assert (first.path, second.path) == (None, None)
    assert first.place.startswith("standard output, bytes 0 to 8 ('")
    assert "could not be saved, nor anywhere else: No such file or directory" in first.place
    assert second.place.startswith("standard output, bytes 8 to 16 ('")
    assert out.getvalue() == b"paid for" * 2


def test_if_nothing_takes_it_the_seed_is_reported(no_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        saved = ArtifactSaver(model="stability/sd3", out=no_disk).save(PICTURE)
        monkeypatch.undo()
    assert saved.place.startswith("no file ('")
    assert saved.place.endswith("its seed was 7)")


def test_a_file_that_came_up_meanwhile_stays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    out, open_file = Path("x.png"), Path.open

    def create(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode == "xb" and path == out:
            out.write_text("precious")
        return open_file(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", create)
    result = run("generate", "stability/stable-image-core", "x", "-o", "x.png")
    assert result.exit_code == 1
    assert result.stderr == "Error: 'x.png' was created during the call; the output is in x-2.png\n"
    assert result.stdout == "x-2.png\n"
    assert out.read_text() == "precious"
    assert Path("x-2.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("model", "name"),
    [("stability/stable-image-inpaint-v1:0", "stable-image-inpaint-v1-0-7.png"), ("stability/sd3", "sd3-7.png")],
)
def test_a_name_of_its_own(model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ArtifactSaver(model=model, out=None).save(PICTURE).path == Path(name)


def test_every_numbered_file_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "x-2.png").touch()
    saving = ArtifactSaver(model="stability/sd3", out=tmp_path / "x.png", n=3)
    (problem,) = saving.problems()
    assert "x-2.png" in problem.message


@pytest.mark.parametrize("out", [[], ["-o", "x.png"], ["-o", "x.png", "-f"]])
@pytest.mark.parametrize("command", ["generate", "edit", "audio", "model3d"])
def test_a_disk_without_room_is_found_before_the_call(
    run: Run, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, command: str, out: list[str]
) -> None:
    """As /dev/full answers, and a disk at its quota."""

    def full(number: int, offset: int, length: int) -> None:
        assert length >= 1 << 20
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    Path("in.png").write_bytes(png(128, 96))
    words = {
        "generate": ["stability/stable-image-core", "x"],
        "edit": ["stability/upscale-fast", "in.png"],
        "audio": ["stability/stable-audio-2.5/text-to-audio", "rain"],
        "model3d": ["stability/stable-fast-3d", "in.png"],
    }[command]
    out = [word.replace(".png", ".glb" if command == "model3d" else ".wav" if command == "audio" else ".png")
           for word in out]  # fmt: skip
    result = run(command, *words, *out)
    assert result.exit_code == 2
    assert "can't be written to: No space left on device; give another place" in result.stderr
    assert impasto_emulator.requests == []
    assert [path.name for path in Path().iterdir()] == ["in.png"]


@pytest.mark.parametrize("name", ["missing/x.png", "in.png/x.png", "folder", "/dev/full", "pipe", "x" * 300 + ".png"])
@pytest.mark.parametrize("force", [[], ["-f"]])
def test_a_target_that_can_not_be_written_is_found_before_the_call(
    run: Run, impasto_emulator: Emulator, name: str, force: list[str]
) -> None:
    Path("in.png").write_bytes(png(128, 96))
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for words in (
        ["generate", "stability/stable-image-core", "x"],
        ["edit", "stability/upscale-fast", "in.png"],
        ["resume", "stability/upscale-creative", "a" * 64],
    ):
        result = run(*words, "-o", name, *force)
        assert result.exit_code == 2, result.output
        assert "-o: " in result.stderr
    assert impasto_emulator.requests == []
    assert Path("/dev/full").is_char_device()


def test_a_name_as_long_as_the_disk_takes_can_be_overwritten(run: Run) -> None:
    name = "x" * 251 + ".png"
    Path(name).write_text("old")
    assert run("generate", "stability/stable-image-core", "x", "-o", name, "-f").exit_code == 0
    assert Path(name).read_bytes().startswith(b"\x89PNG")
    assert os.listdir() == [name]


def test_a_link_to_nowhere_is_not_written_through(run: Run, impasto_emulator: Emulator) -> None:
    Path("x.png").symlink_to("elsewhere.png")
    result = run("generate", "stability/stable-image-core", "x", "-o", "x.png")
    assert result.exit_code == 2
    assert "already exists; use -f to overwrite it" in result.stderr
    assert impasto_emulator.requests == []
    assert not Path("elsewhere.png").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_an_image_that_no_disk_takes_after_the_call_is_on_standard_output(
    run: Run, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """The disk fills up while the image is made."""
    open_file = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode == "xb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_file(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    words = ["generate", "stability/stable-image-core", "x", "-n", "2", "-p", "seed=7"]
    result = run(*words, *["--json"] * as_json)
    assert result.exit_code == 1
    if as_json:
        files = json.loads(result.stdout)["files"]
        data = [base64.b64decode(each["b64_json"]) for each in files]
        assert [each["path"] for each in files] == [None, None]
    else:
        sizes = [int(size) for size in re.findall(r"standard output, bytes \d+ to (\d+)", result.stderr)]
        data = [result.stdout_bytes[: sizes[0]], result.stdout_bytes[sizes[0] : sizes[1]]]
        assert len(result.stdout_bytes) == sizes[1]
    for each in data:
        with Image.open(io.BytesIO(each)) as image:
            image.load()
    assert "No space left on device" in result.stderr


def test_more_images_than_asked_for_get_names_and_take_no_other_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("old")
    (tmp_path / "x-2.png").write_text("precious")
    saving = ArtifactSaver(model="acme/four", out=tmp_path / "x.png", force=True)
    assert list(saving.problems()) == []
    names = [saved.path.name for i in range(3) if (saved := saving.save(PICTURE, i)).path is not None]
    assert names == ["x.png", "x-2-2.png", "x-3.png"]
    assert (tmp_path / "x-2.png").read_text() == "precious"


def test_overwriting_is_all_or_nothing(tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    out.write_text("old")
    assert ArtifactSaver(model="stability/sd3", out=out, force=True).save(PICTURE).path == out
    assert out.read_bytes() == b"paid for"
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_one_answer_that_lacks_several_images_is_saved_once(tmp_path: Path) -> None:
    saving = ArtifactSaver(model="acme/four", out=tmp_path / "x.png", n=4)
    errors = [UnusableResult(f"image {index} is damaged", raw=b'{"data": [...]}') for index in range(3)]
    for index, error in enumerate(errors):
        saving.keep(error, index)
    (path,) = tmp_path.iterdir()
    assert [error.__notes__ for error in errors] == [[f"the output was saved in {path}"]] * 3
