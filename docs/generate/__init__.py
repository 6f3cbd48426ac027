"""Pages that each build generates from the code, so that no fact is written twice."""

from __future__ import annotations

from pathlib import Path

from . import commands, errors, hooks, models, plugin_modules, settings, surface


def pages() -> dict[str, str]:
    """Return the text of each generated page by its path below ``docs``."""
    texts = dict(models.pages())
    for module in (surface, plugin_modules, hooks, errors, commands, settings):
        texts |= module.pages()
    return texts


def write(docs: Path) -> None:
    """Write changed pages, and remove files that are not generated any more."""
    texts = pages()
    for folder in sorted({Path(name).parts[0] for name in texts}):
        for old in (docs / folder).rglob("*.md"):
            if old.relative_to(docs).as_posix() not in texts:
                old.unlink()
    for name, text in texts.items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
