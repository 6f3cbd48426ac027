"""Pictures kept for URLs: in a folder, under names that nobody guesses, until they expire."""

import asyncio
import base64
import os
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from impasto import Artifact, File
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.storage.contents import StoreError
from impasto_plugins.gateway.storage.local import LocalStore
from tests.descriptors import open_descriptors
from tests.images import drawn
from tests.plugins.gateway.conftest import MASTER, Start, config

PICTURE = drawn("PNG", size=(128, 128))


async def test_a_kept_picture_expires(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path / "files", 60)
    name = await folder.save(Artifact(data=PICTURE, media_type="image/png"))
    assert len(name.partition(".")[0]) == 43  # 256 bits
    saved_path = folder.path / name
    assert [each.stat().st_mode & 0o777 for each in (folder.path, saved_path)] == [0o700, 0o600]
    found = await folder.find(name)
    assert found is not None
    with found.source as source:
        assert source.read() == PICTURE
    await asyncio.to_thread(folder.remove_expired)
    assert saved_path.exists()
    (folder.path / "of somebody else").touch()
    then = time.time() - 61
    for path in folder.path.iterdir():
        os.utime(path, (then, then))
    assert await folder.find(name) is None
    await asyncio.to_thread(folder.remove_expired)
    assert [each.name for each in folder.path.iterdir()] == ["of somebody else"]


async def test_looking_for_an_image_leaves_no_descriptor_open(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path, 60)
    name = await folder.save(Artifact(data=PICTURE, media_type="image/png"))
    assert await folder.exists(name)
    assert not await folder.exists(f"{'A' * 43}.png")
    assert open_descriptors(tmp_path / name) == 0


async def test_of_an_image_that_can_not_be_stored_no_part_is_left(tmp_path: Path) -> None:
    def opener() -> BinaryIO:
        raise OSError(5, "Input/output error")

    source = File(label="f", size=9, media_type="image/png", opener=opener, on_disk=True)
    with pytest.raises(StoreError, match=r"files\.folder: Input/output error"):
        await LocalStore(tmp_path, 60).save(Artifact(file=source, media_type="image/png"))
    assert list(tmp_path.iterdir()) == []


async def test_a_picture_of_the_future_is_one_of_now(tmp_path: Path) -> None:
    """The clock was set back: its URL is good for as long as any other's."""
    folder = LocalStore(tmp_path, 60)
    name = await folder.save(Artifact(data=PICTURE, media_type="image/png"))
    then = time.time() + 86_400
    os.utime(tmp_path / name, (then, then))
    found = await folder.find(name)
    assert found is not None
    found.source.close()
    assert found.seconds_left <= 60


async def test_a_file_that_is_not_an_image_is_not_delivered(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="text/html is not a media type"):
        await LocalStore(tmp_path, 60).save(Artifact(data=b"<script>", media_type="text/html"))


async def test_nothing_but_its_own_pictures_is_served(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, 60)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    planted, folder = "L" * 43 + ".png", "D" * 43 + ".png"
    (tmp_path / planted).symlink_to(secret)
    (tmp_path / folder).mkdir()
    for name in (
        planted,
        folder,
        "secret",
        "../secret",
        "",
        ".",
        "L" * 43,
        "L" * 43 + ".svg",
        "L" * 43 + ".png\n",
        "\0",
    ):
        assert await store.find(name) is None, name
    os.mkfifo(tmp_path / ("F" * 43 + ".png"))
    began = time.monotonic()
    assert await store.find("F" * 43 + ".png") is None
    assert time.monotonic() - began < 1


async def test_a_picture_that_can_not_be_kept_is_delivered(
    start: Start, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    gateway = await start(config(impasto_emulator.url, more=f"files:\n  folder: {tmp_path / 'file'}\n"))
    answer = await gateway.generate(response_format="url")
    assert answer.status == 200
    assert base64.b64decode(answer.json["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert "could not be stored" in answer.json["warnings"][0]


async def test_a_url_is_the_public_one(start: Start, impasto_emulator: Emulator, tmp_path: Path) -> None:
    general, more = "  public_url: https://images.example\n", f"files:\n  folder: {tmp_path / 'files'}\n"
    gateway = await start(config(impasto_emulator.url, general=general, more=more))
    answer = await gateway.ask(
        "POST",
        "/v1/images/generations",
        json={"model": "sd3", "prompt": "p", "response_format": "url"},
        headers={"host": "localhost:1", "authorization": f"Bearer {MASTER}"},
    )
    assert answer.json["data"][0]["url"].startswith("https://images.example/v1/images/files/")
