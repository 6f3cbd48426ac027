"""The table of clients in the documentation has every client, and the lines of configuration that it needs."""

from __future__ import annotations

import re

import pytest

from tests.architecture.sources import ROOT

from .catalog import REQUESTS, Request

LINES = ("strength", "drop_params", "response_format", "default_model", "cors_origins")


KINDS = ("generate", "edit", "variation", "list models")


def table() -> dict[str, tuple[str, str]]:
    """The second and the last cell of each row by its first."""
    lines = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return {first: (second, last) for first, second, last in cells[2:]}


def works_by_default(request: Request) -> bool:
    """Return True for a call that the default configuration answers, for any model or for all but sd3."""
    return not request.lacks and not request.general and request.refused in ("", "strength")


def test_the_table_has_every_client() -> None:
    assert set(table()) == {every[0].client for every in REQUESTS.values()}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_table_has_the_lines_that_a_client_needs(name: str) -> None:
    requests = REQUESTS[name]
    _, cell = table()[requests[0].client]
    needed = {line.partition(":")[0] for each in requests for line in each.params + each.general}
    assert {word for word in LINES if f"`{word}: " in cell} == needed


@pytest.mark.parametrize("name", REQUESTS)
def test_the_table_says_which_calls_the_default_configuration_answers(name: str) -> None:
    requests = REQUESTS[name]
    claim, _ = table()[requests[0].client]
    claim = claim.partition(";")[0].partition(":")[0]
    working = [each for each in requests if works_by_default(each)]
    others = [each for each in requests if not works_by_default(each)]
    if claim == "nothing":
        assert not working
    elif claim.startswith("all calls that name a model"):
        assert {each.refused for each in others} == {"model"}
    elif claim.startswith("all calls"):
        assert not others
    else:
        match = {kind for kind in KINDS if re.search(rf"\b{kind}s?\b", claim)}
        assert match == {kind for kind in KINDS if any(each.call.startswith(kind) for each in working)}
