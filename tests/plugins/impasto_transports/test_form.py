"""Files of the disk go out without holding the loop up, and a cancelled opening leaks none."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest

import impasto
from impasto import File, WireRequest
from impasto_transports.form import opened_form
from tests.pictures import png
from tests.recorder import Recorder


async def test_a_file_of_the_disk_is_sent_without_blocking_the_loop(
    client: impasto.Client, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "in.png"
    await asyncio.to_thread(path.write_bytes, png(96, 96))
    await client.run("stability/erase", image=path)  # the suite's guard raises where the loop's thread opens it
    assert recorder.posts[0].files["image"].data == png(96, 96)


async def test_a_cancelled_opening_leaves_its_readers_to_be_closed(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    await asyncio.to_thread(path.write_bytes, png(96, 96))
    file = await asyncio.to_thread(File.of, path)
    opened = []

    def note() -> BinaryIO:
        opened.append(file.open())
        return opened[-1]

    noted = File(label="in.png", size=file.size, media_type=file.media_type, opener=note, on_disk=True)
    with ExitStack() as files:
        opening = asyncio.create_task(opened_form(WireRequest(target="/", files={"image": noted}), files))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert len(opened) == 1
    assert opened[0].closed
