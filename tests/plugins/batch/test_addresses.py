"""One folder has the images of one address of each provider: an emulator's images never pass for the provider's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

import impasto
from impasto import ConfigError, Outcome
from impasto_plugins.batch.ledger.log import ReadPosition, rows
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.plugins.batch.conftest import Run, Write, ledger_rows, many

RUN = ("run", "manifest.jsonl", "--out", "out", "--no-report")
OUT = Path("out")


def refused(batch: Run, *more: str, **variables: str | None) -> str:
    """Return the refusal of a run, which changes nothing."""
    before = ledger_rows(OUT)
    for words in ((*RUN, "--dry-run", *more), (*RUN, *more)):
        done = batch(*words, **variables)
        assert done.exit_code == 2, done.output
        assert "nothing was sent" in done.stderr
    assert ledger_rows(OUT) == before
    return done.stderr


@pytest.mark.parametrize(("number", "key"), [(1, None), (2, KEY)])
def test_images_of_the_emulator_do_not_count_as_the_providers(
    batch: Run, manifest: Write, impasto_emulator: Emulator, number: int, key: str | None
) -> None:
    manifest(*many(1))
    assert batch(*RUN, "--emulator").exit_code == 0
    manifest(*many(number))
    message = refused(batch, STABILITY_API_KEY=key)
    assert "came from stability at emulator" in message
    assert "--emulator" in message
    assert "another folder" in message
    assert impasto_emulator.requests == []
    done = batch(*RUN, "--emulator")
    assert done.exit_code == 0, "the emulator has another port each time"
    assert f"{number} of {number} done" in done.stdout


def test_the_providers_images_do_not_mix_with_those_of_the_emulator(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(2))
    assert batch(*RUN).exit_code == 0
    assert f"came from stability at {impasto_emulator.url}" in refused(batch, "--emulator")
    assert batch(*RUN).exit_code == 0


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"])
def test_images_of_an_own_bedrock_endpoint_do_not_count_as_amazons(
    batch: Run, manifest: Write, impasto_emulator: Emulator, variable: str
) -> None:
    manifest({"id": "a", "model": "bedrock/stability.sd3-5-large-v1:0", "prompt": "x"})
    aws: dict[str, str | None] = {
        "AWS_ACCESS_KEY_ID": "emulator",
        "AWS_SECRET_ACCESS_KEY": "emulator",
        "AWS_REGION": "us-west-2",
    }
    assert batch(*RUN, **aws, **{variable: impasto_emulator.url}).exit_code == 0
    assert f"came from bedrock at {impasto_emulator.url}" in refused(batch, **aws)
    assert len(impasto_emulator.charges) == 1


def other(emulator: Emulator) -> str:
    """Return another address of the same emulator."""
    return emulator.url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("number", [2, 3])
def test_another_api_base_is_refused(batch: Run, manifest: Write, impasto_emulator: Emulator, number: int) -> None:
    manifest(*many(2))
    assert batch(*RUN, "--api-base", impasto_emulator.url).exit_code == 0
    manifest(*many(number))
    requests = len(impasto_emulator.requests)
    message = refused(batch, "--api-base", other(impasto_emulator))
    assert f"came from stability at {impasto_emulator.url}, and this run is for {other(impasto_emulator)}" in message
    refused(batch, STABILITY_API_BASE=other(impasto_emulator))
    assert len(impasto_emulator.requests) == requests
    assert batch(*RUN, "--api-base", impasto_emulator.url, STABILITY_API_BASE=None).exit_code == 0
    assert len(impasto_emulator.charges) == number


def test_another_key_is_no_other_address(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(2))
    assert batch(*RUN).exit_code == 0
    manifest(*many(3))
    assert batch(*RUN, STABILITY_API_KEY="sk-" + "another-" * 5).exit_code == 0
    assert len(impasto_emulator.charges) == 3


def test_an_address_that_gave_nothing_binds_nobody(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(2))
    impasto_emulator.fault("status", status=401)
    assert batch(*RUN, "--api-base", other(impasto_emulator)).exit_code == 1
    impasto_emulator.clear_faults()
    assert batch(*RUN).exit_code == 0
    refused(batch, "--api-base", other(impasto_emulator))


def test_an_image_that_may_have_been_charged_binds(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(1))
    impasto_emulator.fault("reset", charged=True, times=1)
    assert batch(*RUN, "--api-base", other(impasto_emulator)).exit_code == 1
    refused(batch)


def rewrite(*without: str) -> None:
    """Write the ledger again as an earlier version did, whose rows of runs lack these names."""
    layout, chain, lines = WorkspacePaths(OUT), 0, list[bytes]()
    for _, row in list(rows(layout.ledger, ReadPosition())):
        row = {name: value for name, value in row.items() if name not in without}
        body = json.dumps(row, separators=(",", ":")).encode()
        chain = crc32(body, chain)
        lines.append(b"%08x %08x %b\n" % (crc32(body), chain, body))
    layout.ledger.write_bytes(b"".join(lines))
    layout.high_water.unlink()


def test_a_ledger_without_an_address_goes_on_and_has_it_from_then(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(2))
    assert batch(*RUN).exit_code == 0
    rewrite("addresses")
    manifest(*many(3))
    assert batch(*RUN).exit_code == 0
    assert len(impasto_emulator.charges) == 3
    refused(batch, "--emulator")


async def outcomes_of(client: impasto.Client, requests: list[dict[str, Any]], out: Path) -> list[Outcome]:
    return [outcome async for outcome in client.batch(requests, out=out)]


@pytest.mark.parametrize("number", [1, 2])
async def test_a_program_meets_another_address_with_its_first_request(
    impasto_emulator: Emulator, tmp_path: Path, number: int
) -> None:
    async with impasto.Client(transport="emulator") as client:
        assert [each.state for each in await outcomes_of(client, many(1), tmp_path / "out")] == ["done"]
    for base in (impasto_emulator.url, other(impasto_emulator)):
        async with impasto.Client(api_key=KEY, api_base=base) as client:
            with pytest.raises(ConfigError, match="came from stability at emulator"):
                await outcomes_of(client, many(number), tmp_path / "out")
    assert impasto_emulator.requests == []
    async with impasto.Client(transport="emulator") as client:
        assert [each.state for each in await outcomes_of(client, many(number), tmp_path / "out")] == ["done"] * number


async def test_a_program_that_was_left_early_had_written_its_address(
    impasto_emulator: Emulator, tmp_path: Path
) -> None:
    async with impasto.Client(api_key=KEY, api_base=impasto_emulator.url) as client:
        outcomes = client.batch(many(3), out=tmp_path / "out", concurrency=1)
        await anext(outcomes)
        await outcomes.aclose()
    async with impasto.Client(api_key=KEY, api_base=other(impasto_emulator)) as client:
        with pytest.raises(ConfigError, match=f"came from stability at {impasto_emulator.url}"):
            await outcomes_of(client, many(3), tmp_path / "out")
