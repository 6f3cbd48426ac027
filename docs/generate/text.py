"""The parts of generated pages."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def fenced(language: str, text: str) -> str:
    """Return a code block."""
    return f"```{language}\n{text.strip()}\n```"


def code(text: object) -> str:
    """Return a word as code; an empty text for None and an empty text."""
    return f"`{text}`" if text not in (None, "") else ""


def doc(thing: object) -> str:
    """Return a docstring as paragraphs of Markdown."""
    return (inspect.getdoc(thing) or "").replace("``", "`")


def page(*parts: str) -> str:
    """Return a page of the parts that are not empty."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"
