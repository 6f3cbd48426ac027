"""What is kept: on a disk that is full or broken, and until it has expired."""

import os
from pathlib import Path

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import Running, Start

from .test_repeats import ask, idle, leave, replayed


async def test_where_it_can_not_be_written_down_no_promise_is_made(
    start: Start, impasto_emulator: Emulator, state: Path
) -> None:
    state.parent.mkdir()
    state.touch()  # a file where the folder should be
    gateway = await start()
    refused = await ask(gateway, key="k")
    assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
    assert "nothing was sent" in (refused.error["message"] or "")
    assert str(state) not in (refused.error["message"] or "")
    assert not impasto_emulator.requests
    assert (await ask(gateway)).status == 200
    await leave(gateway, impasto_emulator, count=0)
    await idle(gateway)
    told = await ask(gateway, count=1)
    assert told.status in (502, 503)  # it is lost, and not paid for again
    assert len(impasto_emulator.charges) == 2
    state.unlink()
    assert (await ask(gateway, key="k")).status == 200


async def test_a_disk_that_fails_after_the_call_holds_nothing_back(
    gateway: Running, impasto_emulator: Emulator, state: Path
) -> None:
    (state / "pictures").touch()  # a file where the folder should be
    assert (await ask(gateway, key="k")).status == 200
    await leave(gateway, impasto_emulator, count=0)
    await idle(gateway)
    for told in (await ask(gateway, key="k"), await ask(gateway, count=1)):
        assert (told.status, told.error["code"], told.headers["x-should-retry"]) == (502, "charge_unknown", "false")
    assert len(impasto_emulator.charges) == 2


async def test_what_has_expired_is_removed(gateway: Running, impasto_emulator: Emulator, state: Path) -> None:
    await ask(gateway, key="k", n=2)
    data, kept = gateway.gateway._data, gateway.gateway._repeats.kept
    stray = state / "pictures" / "stray.0"
    stray.touch()
    for each in (state / "pictures").iterdir():
        os.utime(each, (0, 0))
    await data.write(kept.remove_expired)
    assert len(list((state / "pictures").iterdir())) == 2
    assert replayed(await ask(gateway, key="k", n=2))
    now = data.clock()
    data.clock = lambda: now + 25 * 3600
    await data.write(kept.remove_expired)
    assert list((state / "pictures").iterdir()) == []
