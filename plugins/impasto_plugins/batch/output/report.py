"""``report.html``: a contact sheet of a batch, one file that opens from disk and loads nothing from anywhere."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib.resources import files
from operator import itemgetter
from pathlib import Path
from string import Template
from urllib.parse import quote

import attrs

from impasto import __version__
from impasto_plugins.batch.ledger.index import TaskIndex
from impasto_plugins.batch.ledger.log import Row
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.cli.terminal.output import count_of

from .results import A_PAGE, final_rows
from .status import BatchStatus

_MOST_FAILURES = 1_000
_SIDE = 256
_FORMATS = ("PNG", "JPEG", "WEBP")
_WORKERS = 2

_LONGEST_PROMPT = 300

Card = tuple[Row, str]
"""The last row of an image, and its prompt."""


@attrs.define
class _FirstCards:
    """The first images by their position in the manifest, up to a limit; None for all of them."""

    limit: int | None
    count: int = 0
    _cards: list[tuple[tuple[float, int], int, Card]] = attrs.field(factory=list[tuple[tuple[float, int], int, Card]])

    def add(self, place: tuple[float, int], card: Card) -> None:
        self.count += 1
        self._cards.append((place, self.count, card))
        if self.limit is not None and len(self._cards) > 2 * self.limit:
            self._cut()

    def in_order(self) -> list[Card]:
        self._cut()
        return [card for _, _, card in self._cards]

    def _cut(self) -> None:
        self._cards.sort(key=itemgetter(0, 1))
        del self._cards[self.limit if self.limit is not None else len(self._cards) :]


def write_report(layout: WorkspacePaths, images: TaskIndex, status: BatchStatus, *, every: bool = False) -> list[Path]:
    """Write the first page, or every one, in the manifest's order, and return their paths. Raises OSError."""
    sheet, failed = _FirstCards(None if every else A_PAGE), _FirstCards(_MOST_FAILURES)
    for row, intent in final_rows(layout, images):
        card = row, str((intent or {}).get("request", {}).get("prompt") or "")
        if row["row"] != "done":
            failed.add(_place(row, intent), card)
        elif row["modified"] is not None or every or (layout.root / row["path"]).is_file():
            sheet.add(_place(row, intent), card)  # of those in a bucket the first that came have a copy here
    done, failures = sheet.in_order(), failed.in_order()
    count = -(-len(done) // A_PAGE) or 1
    written = []
    with ThreadPoolExecutor(_WORKERS) as workers:
        for number in range(1, count + 1):
            page = done[(number - 1) * A_PAGE : number * A_PAGE]
            thumbnails = workers.map(lambda limit: _thumbnail(layout.root / limit[0]["path"]), page)
            cards = [_card(card, thumbnail) for card, thumbnail in zip(page, thumbnails, strict=True)]
            text = _page(
                layout, status, failures=failures, failure_count=failed.count, cards=cards, number=number, count=count
            )
            written.append(_write_page(layout, number, text))
    return written


def _place(row: Row, intent: Row | None) -> tuple[float, int]:
    """Return an image's position in the manifest: its row, its index."""
    position = intent.get("position", 0) if intent is not None else row.get("line", math.inf)
    return position, row.get("index", 0)


def _write_page(layout: WorkspacePaths, number: int, text: str) -> Path:
    path = layout.root / _name(number)
    part = layout.ledger.with_name(f"{path.name}.part")
    part.write_text(text, "utf-8", "replace")
    return part.replace(path)


def _name(number: int) -> str:
    return "report.html" if number == 1 else f"report-{number}.html"


def _page(
    layout: WorkspacePaths,
    status: BatchStatus,
    *,
    failures: Sequence[Card],
    failure_count: int,
    cards: Sequence[str],
    number: int,
    count: int,
) -> str:
    template = Template(files("impasto_plugins.batch.output").joinpath("report.html").read_text("utf-8"))
    pages = (f'<a href="{_name(each)}">{each}</a>' if each != number else str(each) for each in range(1, count + 1))
    return template.substitute(
        title=escape(layout.root.resolve().name),
        numbers="".join(f"<li><b>{value}</b>{label}</li>" for label, value in _numbers(status)),
        note=_note(status, len(cards), count),
        failures=_failures(failures, failure_count) if number == 1 else "",
        jump=f"Failures are below the images: {failure_count:,}." if failure_count and number == 1 else "",
        images="\n".join(cards),
        pages=f"Page {' '.join(pages)}" if count > 1 else "",
        version=escape(__version__),
    )


def _numbers(status: BatchStatus) -> Iterator[tuple[str, str]]:
    yield f"of {status.total:,} done", f"{status.done:,}"
    for name in ("refused", "ambiguous", "unusable", "filtered", "expired", "pending"):
        if number := getattr(status, name):
            yield name, f"{number:,}"
    if not status.unpriced or status.cost_usd:
        yield "USD", f"{status.cost_usd:,.2f}"
    if status.unpriced:
        yield "of unknown price", f"{status.unpriced:,}"


def _note(status: BatchStatus, image_count: int, count: int) -> str:
    sentences = []
    if status.charges_unknown:
        sentences.append(f"The cost includes {count_of(status.charges_unknown, 'charge')} that may not have happened.")
    if status.unfetched:
        images = count_of(status.unfetched, "image")
        sentences.append(f"{images} charged and not fetched yet; run the batch again to fetch.")
    if count == 1 and image_count < status.done:
        sentences.append(f"The first {image_count:,} images are shown; `impasto batch report --all` shows all.")
    return " ".join(sentences)


def _failures(failures: Sequence[Card], count: int) -> str:
    if not failures:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(row['id'] or ''))}</td><td>{escape(row['code'])}</td><td>{escape(row['billed'])}</td>"
        f"<td>{escape(row['message'])}</td><td>{_excerpt(prompt)}</td></tr>"
        for row, prompt in failures
    )
    more = count - len(failures)
    rest = f'<p class="note">and {more:,} more in errors.jsonl</p>' if more > 0 else ""
    heads = "".join(f"<th>{head}</th>" for head in ("id", "what", "billed", "why", "prompt"))
    return f'<h2 id="failures">Failures</h2>\n<div class="wide"><table><tr>{heads}</tr>{rows}</table></div>{rest}'


def _excerpt(text: str) -> str:
    """Return the beginning of a text, cut between words, as HTML with the whole text as its title."""
    if len(text) <= _LONGEST_PROMPT:
        return escape(text)
    begin = text[:_LONGEST_PROMPT]
    begin = begin.rsplit(maxsplit=1)[0] if any(map(str.isspace, begin)) else begin
    return f'<span title="{escape(text)}">{escape(begin)} …</span>'


def _card(card: Card, thumbnail: str | None) -> str:
    row, prompt = card
    facts = [row["model"], f"seed {row['seed']}" if row["seed"] is not None else ""]
    facts.append(f"{row['usd']:.4g} USD" if row["usd"] is not None else "price unknown")
    name = row["id"] if row["n"] == 1 else f"{row['id']} ({row['index']})"
    image = f'<img src="{thumbnail}" alt="" loading="lazy">' if thumbnail is not None else escape(row["media_type"])
    return (
        f'<figure><a href="{escape(quote(row["path"]))}">{image}</a><figcaption><b>{escape(name)}</b>'
        f'<p>{_excerpt(prompt)}</p><span class="facts">{escape(" · ".join(filter(None, facts)))}</span>'
        "</figcaption></figure>"
    )


def _thumbnail(path: Path) -> str | None:
    """Return a small copy of an image as a ``data:`` URI; None if it can't be shown."""
    from PIL import Image  # 40 ms: only where a report is made

    try:
        with Image.open(path, formats=_FORMATS) as image, io.BytesIO() as small:
            image.draft("RGB", (_SIDE, _SIDE))
            image.thumbnail((_SIDE, _SIDE))
            image.save(small, "WEBP", quality=70)
            return f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
