"""The pages that a user reads, the generated ones too, and the code blocks in them."""

from __future__ import annotations

import re

import attrs
from docs.generate import pages as generated

from tests.architecture.sources import ROOT, name_of

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_DIRECTIVE = "{"

GENERATED = generated()
WRITTEN = {name_of(path): path.read_text("utf-8") for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))}
PAGES = {**WRITTEN, **{f"docs/{name}": text for name, text in GENERATED.items()}}
_RECIPES = "tests/plugins/batch/engines/test_recipes.py"
OWN_TESTS = {
    "docs/ray.md": "tests/plugins/batch/engines/test_ray.py",
    **{f"docs/{name}.md": _RECIPES for name in ("celery", "dask", "kubernetes")},
}
"""Pages whose blocks need more than an emulator, and the tests that run them."""

MODELS = [name for name in PAGES if name.startswith("docs/models/")]


@attrs.frozen
class Block:
    """A code block: its language, as its fence says it, and its text."""

    language: str
    text: str

    @property
    def begins(self) -> str:
        """Its first line, by which a list can name it."""
        return self.text.partition("\n")[0]


def blocks(page: str, *languages: str) -> list[Block]:
    """The code blocks of a page, of these languages or of all."""
    found = [Block(*each.groups()) for each in _FENCE.finditer(PAGES[page])]
    return [
        each
        for each in found
        if not each.language.startswith(_DIRECTIVE) and each.language in (languages or [each.language])
    ]
