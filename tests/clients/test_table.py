"""The table of clients in the documentation has every client, and the lines of configuration that it needs."""

from __future__ import annotations

import pytest

from tests.architecture.sources import ROOT

from .catalog import REQUESTS

LINES = ("strength", "drop_params", "response_format", "default_model", "cors_origins")


def rows() -> dict[str, str]:
    """The last cell of each row by its first."""
    lines = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return {first: last for first, _, last in cells[2:]}


def test_the_table_has_every_client() -> None:
    assert set(rows()) == {every[0].client for every in REQUESTS.values()}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_table_has_the_lines_that_a_client_needs(name: str) -> None:
    requests = REQUESTS[name]
    cell = rows()[requests[0].client]
    needed = {line.partition(":")[0] for each in requests for line in each.params + each.general}
    assert {word for word in LINES if f"`{word}: " in cell} == needed
