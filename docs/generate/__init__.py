"""Pages that are made of the code at each build, so that no fact of it is written down twice."""

from __future__ import annotations

from pathlib import Path

from . import commands, errors, hooks, models, settings, surface


def pages() -> dict[str, str]:
    """The generated pages: their place below ``docs``, and their text."""
    made = dict(models.pages())
    for module in (surface, hooks, errors, commands, settings):
        made |= module.pages()
    return made


def write(docs: Path) -> None:
    """Writes what changed, and removes what is no page any more."""
    made = pages()
    for folder in sorted({Path(name).parts[0] for name in made}):
        for old in (docs / folder).rglob("*.md"):
            if old.relative_to(docs).as_posix() not in made:
                old.unlink()
    for name, text in made.items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
