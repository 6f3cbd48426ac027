"""Everything a caller may give as a file, and everything that is refused, in the words that the caller sees."""

from __future__ import annotations

import base64
import bz2
import errno
import gzip
import io
import os
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from impasto import File
from impasto.files import media_type_of
from tests.descriptors import open_descriptors
from tests.images import png

PNG = png(64, 64)
URI = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "picture.png"
    target.write_bytes(PNG)
    return target


def refused(value: object) -> str:
    with pytest.raises(ValueError) as caught:
        File.of(value)
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        memoryview(PNG + b"x")[:-1],
        io.BytesIO(PNG),
        ("a.png", PNG),
        ("a.png", PNG, "image/jpeg"),
        (None, PNG),
        ("a.png", io.BytesIO(PNG)),
        URI,
        URI.replace("data:image/png", "DATA:IMAGE/PNG").replace(";base64", ";BASE64"),
        "data:;base64," + base64.b64encode(PNG).decode().replace("+", "%2B"),
        "data:application/octet-stream," + "".join(f"%{byte:02x}" for byte in PNG),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_form_gives_the_bytes_and_the_type_of_the_content(value: object) -> None:
    with_bytes = File.of(value)
    assert (with_bytes.read(), with_bytes.size, with_bytes.media_type) == (PNG, len(PNG), "image/png")
    assert with_bytes.read() == PNG, "a second reader starts at the beginning too"


@pytest.mark.parametrize("make", [Path, str, lambda path: ("other.jpg", path)], ids=["Path", "text", "in a tuple"])
def test_a_path(path: Path, make: Any) -> None:
    file = File.of(make(path))
    assert (file.read(), file.size, file.media_type) == (PNG, len(PNG), "image/png")


@pytest.mark.parametrize("buffering", [-1, 0])
def test_an_open_file_is_read_from_where_it_stands_to_its_end_and_never_closed(path: Path, buffering: int) -> None:
    path.write_bytes(b"before" + PNG)
    with path.open("rb", buffering=buffering) as source:
        source.seek(6)
        file = File.of(source)
        assert file.read() == PNG == file.read()
        assert source.tell() == 6 + len(PNG), "as if it had been read"
        file.close()
        file.close()
        assert not source.closed
        source.seek(0)
        assert source.read(6) == b"before"


def test_an_open_file_may_be_moved_and_closed_by_its_owner(path: Path) -> None:
    with path.open("rb") as source:
        file = File.of(source)
        source.seek(3)
    assert file.read() == PNG
    file.close()


def test_readers_are_independent(path: Path) -> None:
    with path.open("rb") as source:
        file = File.of(source)
    with file.open() as one, file.open() as two:
        assert one.read(10) == PNG[:10]
        assert two.read() == PNG
        assert one.read() == PNG[10:]
        one.seek(-4, os.SEEK_END)
        assert one.read() == PNG[-4:]
    file.close()


def test_a_file_that_was_just_written(tmp_path: Path) -> None:
    with (tmp_path / "new").open("w+b") as source:
        source.write(PNG)
        source.seek(0)
        file = File.of(source)
        assert file.read() == PNG
        file.close()


def test_temporary_files() -> None:
    with tempfile.NamedTemporaryFile() as temporary, tempfile.SpooledTemporaryFile() as spooled:
        for source in (temporary, spooled):
            source.write(PNG)
            source.seek(0)
            file = File.of(source)
            assert file.read() == PNG
            file.close()


@pytest.mark.parametrize("opener", [gzip.open, bz2.open], ids=["gzip", "bz2"])
def test_a_compressed_file_gives_what_reading_it_gives(tmp_path: Path, opener: Any) -> None:
    with opener(tmp_path / "packed", "wb") as packed:
        packed.write(PNG)
    with opener(tmp_path / "packed", "rb") as source:
        assert File.of(source).read() == PNG


def test_a_member_of_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", PNG)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.png") as source:
        assert File.of(source).read() == PNG


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as source:
        with open(writing, "wb") as sink:
            sink.write(PNG)
        assert File.of(source).read() == PNG


def test_descriptors_are_let_go(path: Path) -> None:
    for _ in range(5):
        with path.open("rb") as source:
            File.of(source).close()
        with path.open("rb") as source:
            File.of(source)  # nobody closes it: it goes with the last reference
        File.of(path).read()
    assert open_descriptors(path) == 0


def test_a_file_made_by_the_caller_stays_the_callers_to_close(path: Path) -> None:
    with path.open("rb") as source:
        mine = File.of(source)
    File.of(mine).close()
    assert mine.read() == PNG
    mine.close()
    with pytest.raises(OSError) as caught:
        mine.read()
    assert caught.value.errno == errno.EBADF


def test_a_huge_file_is_not_loaded(tmp_path: Path) -> None:
    import tracemalloc

    huge = tmp_path / "huge.png"
    with huge.open("wb") as sink:
        sink.write(PNG)
        sink.truncate(8 * 2**30)
    tracemalloc.start()
    by_path = File.of(huge)
    with huge.open("rb") as source:
        by_object = File.of(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert by_path.size == by_object.size == 8 * 2**30
    assert by_path.media_type == by_object.media_type == "image/png"
    assert peak < 2**20
    by_object.close()


def test_a_file_that_changed_on_disk_is_not_sent(path: Path) -> None:
    by_path = File.of(path)
    with path.open("rb") as source:
        by_object = File.of(source)
    path.write_bytes(PNG + b"more")
    for file in (by_path, by_object):
        with pytest.raises(ValueError, match=r"picture\.png' changed after it was checked"):
            file.open()
    by_object.close()


def test_a_file_that_vanished(path: Path) -> None:
    file = File.of(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        file.open()


def test_a_path_that_can_not_be_read_is_shown_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("missing.png") == "can't read 'missing.png': No such file or directory"
    assert refused("./a/../missing.png") == "can't read './a/../missing.png': No such file or directory"
    assert refused(Path("missing.png")) == "can't read 'missing.png': No such file or directory"
    assert refused("~/missing.png") == "can't read '~/missing.png': No such file or directory"
    assert refused("") == "can't read '': No such file or directory"
    assert refused("line\nbreak") == "can't read 'line\\nbreak': No such file or directory"
    assert refused("nul\x00") == "can't read 'nul\\x00': embedded null byte"
    assert refused(".") == "can't read '.': Is a directory"
    assert refused("x." * 200) == f"can't read '{'x.' * 200}': File name too long"


def test_a_name_of_bytes() -> None:
    class Odd:
        def __fspath__(self) -> bytes:
            return b"a.png"

    assert refused(Odd()) == "a path must be text, not bytes"


@pytest.mark.parametrize("data", [bytes(9000), PNG, b"\xff\xd8\xff" + bytes(60), b"GIF89a" + bytes(60)])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
def test_base64_without_its_prefix_is_not_repeated(data: bytes, encode: Any) -> None:
    text = encode(data).decode()
    message = f"text of {len(text):,} characters is not the path of a file; give base64 as a data: URI"
    assert refused(text) == message


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    messages: list[str] = []
    looking = threading.Thread(target=lambda: messages.append(refused(pipe)), daemon=True)
    looking.start()
    looking.join(5)
    assert messages == [f"{str(pipe)!r} is not a regular file"]


def test_devices_are_refused() -> None:
    assert refused("/dev/zero") == "'/dev/zero' is not a regular file"
    with open("/dev/zero", "rb") as source:
        assert refused(source) == "'/dev/zero' is a device, which may be endless; give a regular file"


@pytest.mark.parametrize("url", ["https://example.com/a.png", "http://127.0.0.1/", "file:///etc/passwd", "s3://b/k"])
def test_urls_are_never_fetched(url: str) -> None:
    assert refused(url) == "URLs are not fetched; download it and give the bytes or a path"


DAMAGED = "invalid data: URI; its base64 must be complete, without spaces or line breaks"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("data:image/png;base64", "invalid data: URI without a comma; give data:image/png;base64,..."),
        ("data:image/png;base64,a", DAMAGED),
        ("data:image/png;base64,####", DAMAGED),
        ("data:image/png;base64,aGk=\n", DAMAGED),
        ("data:image/png;base64,\ud800", DAMAGED),
    ],
)
def test_malformed_data_uris(uri: str, message: str) -> None:
    assert refused(uri) == message


def test_an_open_file_that_gives_no_bytes(path: Path) -> None:
    for encoding in ("latin-1", "utf-8"):  # the one makes text of anything, the other, the usual one, of no picture
        with path.open("r", encoding=encoding) as text:
            assert refused(text) == f"{str(path)!r} is open as text; open it with mode 'rb'"
    with tempfile.NamedTemporaryFile("w+") as text:
        assert refused(text).endswith("is open as text; open it with mode 'rb'")
    with path.open("ab") as writing:
        assert refused(writing).endswith("is open for writing only; open it with mode 'rb'")
    assert writing.closed
    assert refused(writing) == f"{str(path)!r} is closed"


@pytest.mark.parametrize(
    "value",
    [
        5,
        5.0,
        True,
        None,
        [PNG],
        ["a", PNG],
        {"data": PNG},
        (),
        (PNG,),
        ("a", PNG, "b", "c"),
        (1, PNG),
        ("a", ("b", PNG)),
    ],
)
def test_other_things_are_refused_by_their_type(value: object) -> None:
    assert refused(value) == f"must be bytes, a path, an open binary file or a data: URI, not {type(value).__name__}"


def test_a_reader_that_gives_something_else() -> None:
    class Odd:
        def read(self) -> int:
            return 5

    assert refused(Odd()) == "'file' returns int when read; read it and give the bytes"


def test_the_repr_is_short() -> None:
    assert repr(File.of(bytes(10**6))).startswith("File(label='bytes', size=1000000, media_type=")
    assert len(repr(File.of(bytes(10**6)))) < 120


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (PNG[:16], "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"JUNK\x00\x00\x00\x00WEBPVP8 ", None),
        (b"ID3\x04", "audio/mpeg"),
        (b"glTF\x02\x00\x00\x00", "model/gltf-binary"),
        (b"GIF89a", "image/gif"),
        (b"", None),
    ],
)
def test_the_content_decides_the_type(head: bytes, media_type: str | None) -> None:
    assert media_type_of(head) == media_type


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (EOFError("the end came early"), "the end came early"),
        (TimeoutError(), "TimeoutError"),
        (RuntimeError("whatever"), "whatever"),
    ],
)
def test_a_reader_that_fails_is_named_whatever_it_raises(error: Exception, message: str) -> None:
    class Failing:
        name = "socket"

        def read(self) -> bytes:
            raise error

    assert refused(Failing()) == f"can't read 'socket': {message}"


def test_a_name_is_shown_as_far_as_a_file_can_have_it() -> None:
    assert File.of(("n" * 10_000, PNG)).label == "n" * 255
