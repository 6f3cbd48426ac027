"""``report.html``: a contact sheet of a batch, one file that opens from disk and loads nothing from anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

from impasto import __version__
from impasto_plugins.batch.ledger.index import Pictures
from impasto_plugins.batch.ledger.log import Row
from impasto_plugins.batch.ledger.workspace import Layout

from .results import A_PAGE, last_words
from .status import Status

_MOST_FAILURES = 1_000
_SIDE = 256
_FORMATS = ("PNG", "JPEG", "WEBP")
_WORKERS = 2

Shown = tuple[Row, str]
"""A picture's last row, and its prompt."""


def write_report(layout: Layout, pictures: Pictures, status: Status, *, every: bool = False) -> list[Path]:
    """Writes the first page, or every one, and returns their paths. Raises OSError."""
    done: list[Shown] = []
    failures: list[Shown] = []
    for row, request in last_words(layout, pictures):
        shown = row, str((request or {}).get("prompt") or "")
        if row["row"] != "done":
            failures.append(shown)
        elif every or len(done) < A_PAGE:
            done.append(shown)
    count = -(-(len(done) if every else min(status.done, A_PAGE)) // A_PAGE) or 1
    written = []
    with ThreadPoolExecutor(_WORKERS) as workers:
        for number in range(1, count + 1):
            page = done[(number - 1) * A_PAGE : number * A_PAGE]
            thumbnails = workers.map(lambda shown: _thumbnail(layout.root / shown[0]["path"]), page)
            cards = [_card(shown, thumbnail) for shown, thumbnail in zip(page, thumbnails, strict=True)]
            told = failures if number == 1 else ()
            text = _page(layout, status, failures=told, cards=cards, number=number, count=count)
            written.append(_written(layout, number, text))
    return written


def _written(layout: Layout, number: int, text: str) -> Path:
    path = layout.root / _name(number)
    part = layout.ledger.with_name(f"{path.name}.part")
    part.write_text(text, "utf-8", "replace")
    return part.replace(path)


def _name(number: int) -> str:
    return "report.html" if number == 1 else f"report-{number}.html"


def _page(
    layout: Layout, status: Status, *, failures: Sequence[Shown], cards: Sequence[str], number: int, count: int
) -> str:
    template = Template(files("impasto_plugins.batch.output").joinpath("report.html").read_text("utf-8"))
    pages = (f'<a href="{_name(each)}">{each}</a>' if each != number else str(each) for each in range(1, count + 1))
    return template.substitute(
        title=escape(layout.root.resolve().name),
        numbers="".join(f"<li><b>{value}</b>{label}</li>" for label, value in _numbers(status)),
        note=_note(status, len(cards), count),
        failures=_failures(failures),
        pictures="\n".join(cards),
        pages=f"Page {' '.join(pages)}" if count > 1 else "",
        version=escape(__version__),
    )


def _numbers(status: Status) -> Iterator[tuple[str, str]]:
    yield f"of {status.total:,} done", f"{status.done:,}"
    for name in ("refused", "ambiguous", "unusable", "filtered", "expired", "pending"):
        if number := getattr(status, name):
            yield name, f"{number:,}"
    yield "USD", f"{status.cost_usd:,.2f}"


def _note(status: Status, shown: int, count: int) -> str:
    said = []
    if status.charges_unknown:
        said.append(f"{status.charges_unknown:,} charges are not known for certain; they are in the cost.")
    if count == 1 and shown < status.done:
        said.append(f"The first {shown:,} pictures are shown; impasto batch report --all shows every one.")
    return " ".join(said)


def _failures(failures: Sequence[Shown]) -> str:
    if not failures:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(row['id'] or ''))}</td><td>{escape(row['code'])}</td><td>{escape(row['billed'])}</td>"
        f"<td>{escape(row['message'])}</td><td>{escape(prompt[:300])}</td></tr>"
        for row, prompt in failures[:_MOST_FAILURES]
    )
    more = len(failures) - _MOST_FAILURES
    rest = f'<p class="note">and {more:,} more in errors.jsonl</p>' if more > 0 else ""
    heads = "".join(f"<th>{head}</th>" for head in ("id", "what", "billed", "why", "prompt"))
    return f"<h2>Failures</h2>\n<table><tr>{heads}</tr>{rows}</table>{rest}"


def _card(shown: Shown, thumbnail: str | None) -> str:
    row, prompt = shown
    facts = [row["model"], f"seed {row['seed']}" if row["seed"] is not None else ""]
    facts.append(f"{row['usd']:.4g} USD" if row["usd"] is not None else "price not known")
    name = row["id"] if row["n"] == 1 else f"{row['id']} ({row['index']})"
    image = f'<img src="{thumbnail}" alt="" loading="lazy">' if thumbnail is not None else escape(row["media_type"])
    return (
        f'<figure><a href="{escape(quote(row["path"]))}">{image}</a><figcaption><b>{escape(name)}</b>'
        f'<p>{escape(prompt)}</p><span class="facts">{escape(" · ".join(filter(None, facts)))}</span>'
        "</figcaption></figure>"
    )


def _thumbnail(path: Path) -> str | None:
    """A small copy of a picture as a ``data:`` URI; None for what can't be shown."""
    from PIL import Image  # 40 ms: only where a report is made

    try:
        with Image.open(path, formats=_FORMATS) as picture, io.BytesIO() as small:
            picture.draft("RGB", (_SIDE, _SIDE))
            picture.thumbnail((_SIDE, _SIDE))
            picture.save(small, "WEBP", quality=70)
            return f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
