"""Configuration of the documentation: Markdown pages, and pages that ``docs/generate`` writes from the code.

sphinx-build -W --keep-going docs build/docs
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs.generate import write  # noqa: E402 - the repository is not an installed package

import impasto  # noqa: E402 - as the one above

project = "impasto"
author = "the authors of impasto"
project_copyright = "the authors of impasto"
version = release = impasto.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["generate"]
myst_heading_anchors = 3
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"impasto {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False

write(Path(__file__).parent)


def mark_examples(*arguments: list[str]) -> None:
    """Mark the examples of a docstring, which are indented paragraphs, as code."""
    lines = arguments[-1]  # of six: app, kind, name, object and options come first
    marked: list[str] = []
    indents = [0]
    for line in lines:
        if line.strip():
            indent = len(line) - len(line.lstrip())
            if marked and not marked[-1] and indent > indents[-1]:
                marked += ["::", ""]
            indents.append(indent)
        marked.append(line)
    lines[:] = marked


def setup(app: Sphinx) -> None:
    """Connect the function above to autodoc."""
    app.connect("autodoc-process-docstring", mark_examples)


html_static_path = ["static"]
html_css_files = ["site.css"]
