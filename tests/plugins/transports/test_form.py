"""Files of the disk go out without holding the loop up, and a cancelled opening leaks none."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest

import impasto
from impasto import File, WireRequest
from impasto_plugins.transports.form import open_form
from tests.images import png
from tests.recorder import Recorder


async def test_a_file_on_disk_is_sent_without_blocking_the_loop(
    client: impasto.Client, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "in.png"
    await asyncio.to_thread(path.write_bytes, png(96, 96))
    await client.run("stability/erase", image=path)  # the suite's guard raises where the loop's thread opens it
    assert recorder.posts[0].files["image"].data == png(96, 96)


@pytest.mark.parametrize("times", [1, 3])
async def test_readers_are_closed_if_opening_is_cancelled(tmp_path: Path, times: int) -> None:
    """The thread opens the file after its caller was told to go, and perhaps told again."""
    path = tmp_path / "in.png"
    await asyncio.to_thread(path.write_bytes, png(96, 96))
    file = await asyncio.to_thread(File.of, path)
    opens = []

    may_open = threading.Event()

    def note() -> BinaryIO:
        may_open.wait(5)
        opens.append(file.open())
        return opens[-1]

    noted = File(label="in.png", size=file.size, media_type=file.media_type, opener=note, on_disk=True)
    with ExitStack() as files:
        opening = asyncio.create_task(open_form(WireRequest(target="/", files=[("image", noted)]), files))
        for _ in range(times):
            await asyncio.sleep(0.01)
            opening.cancel()
        await asyncio.sleep(0.01)
        may_open.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert len(opens) == 1
    assert opens[0].closed


async def _written(wire: WireRequest) -> list[bytes]:
    """Return what is written at once: each is a system call."""
    writes: list[bytes] = []

    async def send(data: bytes | memoryview) -> None:
        writes.append(bytes(data))

    with ExitStack() as files:
        form = await open_form(wire, files)
        await form.write(send)
    assert form.size == sum(map(len, writes))
    return writes


async def test_a_form_without_files_is_one_write() -> None:
    writes = await _written(WireRequest(target="/", fields={"prompt": "a", "seed": 7, "strength": 1e-07}))
    assert len(writes) == 1
    assert b'name="strength"\r\n\r\n0.0000001\r\n' in writes[0]


async def test_text_around_a_file_is_one_write_each() -> None:
    writes = await _written(WireRequest(target="/", fields={"prompt": "a"}, files=[("image", File.of(png(64, 64)))]))
    assert len(writes) == 3
    assert writes[1] == png(64, 64)


async def test_a_name_can_not_end_its_part() -> None:
    (form,) = await _written(WireRequest(target="/", fields={'a"\r\n\r\nb: c': "value"}))
    assert b'name="a%22%0D%0A%0D%0Ab: c"\r\n\r\nvalue' in form
