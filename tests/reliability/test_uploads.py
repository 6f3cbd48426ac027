"""Uploads: sent as they are read, shared, never closed, and what becomes of files that change meanwhile."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tracemalloc
from pathlib import Path

import pytest

import impasto
from impasto_plugins.stability.fields import REQUEST_BYTES
from tests.images import padded
from tests.reliability.conftest import MakeClient
from tests.reliability.servers import PICTURE, ServedRequest, Server, Wire, picture, refused

ERASE = "stability/erase"
LARGE = 9 * 2**20


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.png"
    path.write_bytes(padded(LARGE))
    return path


async def drained(request: ServedRequest, wire: Wire) -> None:
    """Reads the body away without keeping it: memory is the client's alone."""
    left = int(request.header("content-length") or 0)
    while left and (piece := await wire.reader.read(min(left, 65536))):
        left -= len(piece)
    if left:
        wire.close()
    else:
        await picture()(request, wire)


async def test_a_file_is_not_loaded_whole(server: Server, client: impasto.Client, large: Path) -> None:
    await client.run(ERASE, image=PICTURE)
    server.reads_bodies, server.posts = False, [drained]
    for value in (large, large.open("rb")):
        tracemalloc.start()
        await client.run(ERASE, image=value)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < LARGE / 2, f"{peak:,} bytes at most were in memory for a file of {LARGE:,}"
        if isinstance(value, io.BufferedReader):
            value.close()


async def test_bytes_are_not_copied_whole(server: Server, client: impasto.Client) -> None:
    data = padded(LARGE)
    await client.run(ERASE, image=PICTURE)
    server.reads_bodies, server.posts = False, [drained]
    tracemalloc.start()
    await client.run(ERASE, image=data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < LARGE / 2


async def test_one_file_object_serves_a_fan_out(server: Server, client: impasto.Client, large: Path) -> None:
    with large.open("rb") as file:
        await asyncio.wait_for(client.run(ERASE, image=file, n=3, seed=5), 60)
        assert not file.closed
    assert [padded(LARGE) in request.body for request in server.paid] == [True] * 3


async def test_calls_that_share_a_file_object_hang_in_no_case_and_send_no_part_of_it(
    server: Server, client: impasto.Client, large: Path
) -> None:
    """A file object is read once, from where it stands: what comes too late finds it at its end, and says so."""
    with large.open("rb") as file:
        calls = [client.run(ERASE, image=file) for _ in range(3)]
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        assert not file.closed
    assert {type(outcome) for outcome in outcomes} <= {impasto.Result, impasto.InvalidRequest}
    assert sum(isinstance(outcome, impasto.Result) for outcome in outcomes) == len(server.paid) >= 1
    assert all(padded(LARGE) in request.body for request in server.paid)


async def test_a_file_object_is_read_from_where_it_stands(
    server: Server, client: impasto.Client, tmp_path: Path
) -> None:
    path = tmp_path / "mixed"
    path.write_bytes(b"a header before it" + PICTURE)
    with path.open("rb") as file:
        file.seek(18)
        await client.run(ERASE, image=file)
        assert not file.closed
    memory = io.BytesIO(b"junk" + PICTURE)
    memory.seek(4)
    await client.run(ERASE, image=memory)
    assert not memory.closed
    for request in server.paid:
        assert request.body.count(PICTURE) == 1
        assert b"junk" not in request.body
        assert b"a header" not in request.body


async def test_a_retry_sends_the_file_again(server: Server, client: impasto.Client, large: Path) -> None:
    server.posts = [refused(500), picture()]
    with large.open("rb") as file:
        await client.run(ERASE, image=file)
    assert [padded(LARGE) in request.body for request in server.paid] == [True, True]


@pytest.mark.parametrize("change", ["deleted", "replaced", "shrunk", "touched"])
async def test_a_file_that_changed_between_check_and_send_is_refused_unsent(
    server: Server, make_client: MakeClient, large: Path, change: str
) -> None:
    """The first attempt is refused and the file changes before the second: nothing is sent again."""

    async def refuse(request: ServedRequest, wire: Wire) -> None:
        match change:
            case "deleted":
                large.unlink()
            case "replaced":
                large.write_bytes(PICTURE + b"more")
            case "shrunk":
                os.truncate(large, 1000)
            case _:
                os.utime(large, ns=(1, 1))
        await refused(500)(request, wire)

    server.posts = [refuse]
    with pytest.raises(impasto.InvalidRequest, match="image") as caught:
        await make_client(server.url).run(ERASE, image=large)
    assert caught.value.billed == "no"
    assert len(server.paid) == 1


async def test_a_file_that_shrinks_while_it_is_sent_ends_the_request(
    server: Server, client: impasto.Client, large: Path
) -> None:
    async def shrink(request: ServedRequest, wire: Wire) -> None:
        os.truncate(large, 2000)
        await drained(request, wire)

    server.reads_bodies, server.posts = False, [shrink]
    with pytest.raises(impasto.ChargeUnknown) as caught:
        await client.run(ERASE, image=large, timeout=60.0)
    assert "no result within" not in str(caught.value), "the end of the file was noticed, not the end of the time"
    server.reads_bodies, server.posts = True, [picture()]
    await client.run(ERASE, image=PICTURE)
    assert server.paid[1].connection != server.paid[0].connection


@pytest.mark.parametrize("beyond", [0, 1])
async def test_the_whole_request_may_have_ten_mebibytes_to_the_byte(
    server: Server, client: impasto.Client, beyond: int
) -> None:
    await client.run(ERASE, image=padded(5000))
    frame = len(server.paid[0].body) - 5000
    data = padded(REQUEST_BYTES - frame + beyond)
    if beyond:
        with pytest.raises(impasto.InvalidRequest, match="10,485,760 bytes") as caught:
            await client.run(ERASE, image=data)
        assert [problem.field for problem in caught.value.problems] == ["image"]
        assert len(server.paid) == 1
    else:
        await client.run(ERASE, image=data)
        assert len(server.paid[1].body) == REQUEST_BYTES


async def test_an_answer_before_the_upload_ended_is_taken(server: Server, client: impasto.Client, large: Path) -> None:
    """A picture that comes early is delivered, and the connection, which still owes a body, is not reused."""

    async def early(request: ServedRequest, wire: Wire) -> None:
        await picture()(request, wire)
        await asyncio.sleep(0.05)

    server.reads_bodies, server.posts = False, [early]
    assert (await client.run(ERASE, image=large)).artifacts[0].data == PICTURE
    server.reads_bodies, server.posts = True, [picture()]
    await client.run(ERASE, image=PICTURE)
    assert server.paid[-1].connection > 0


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the open sockets of the process")
async def test_the_socket_of_a_call_that_ended_is_closed_though_its_peer_reads_no_more(
    make_client: MakeClient, large: Path
) -> None:
    """Its rest of the body would be sent long after the call, or never: one socket more for each such call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client = make_client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
        before = _open_sockets()
        with pytest.raises(impasto.ChargeUnknown):
            await client.run(ERASE, image=large)
        await asyncio.sleep(0)  # asyncio closes it in its next turn
        assert _open_sockets() == before


def _open_sockets() -> int:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum("socket" in os.readlink(link) for link in links if os.path.islink(link))
