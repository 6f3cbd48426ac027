"""What generated pages are made of."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def fenced(language: str, text: str) -> str:
    """A code block."""
    return f"```{language}\n{text.strip()}\n```"


def code(text: object) -> str:
    """A word in code's letters; nothing of nothing."""
    return f"`{text}`" if text not in (None, "") else ""


def doc(thing: object) -> str:
    """A docstring, as paragraphs of Markdown."""
    return (inspect.getdoc(thing) or "").replace("``", "`")


def page(*parts: str) -> str:
    """A page of those of its parts that are not empty."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"
