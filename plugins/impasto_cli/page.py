"""The page that `impasto try` leaves: one HTML file beside its pictures, readable from disk, loading nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from impasto import __version__

from .tour import PICTURE_SCALE, REFUSED, Done, Step, Tour

GENERATOR = '<meta name="generator" content="impasto try">'
"""By which a later run knows that it may replace the page."""


def write(page: Path, tour: Tour) -> None:
    """Writes the page of a tour. Raises OSError."""
    template = Template(files("impasto_cli").joinpath("page.html").read_text("utf-8"))
    usd = sum(charge.usd for charge in tour.charges)
    credits = sum(charge.credits for charge in tour.charges)
    text = template.substitute(
        generator=GENERATOR,
        version=escape(__version__),
        pictures=len(tour.done),
        models=len({each.step.model for each in tour.done}),
        seconds=f"{tour.seconds:.1f}",
        scale=f"{PICTURE_SCALE:g}",
        made="\n".join(_card(each) for each in tour.done if not _inputs(each.step)),
        edited="\n".join(_card(each) for each in tour.done if _inputs(each.step)),
        refused_call=_call(REFUSED, saves=False),
        problems="\n".join(
            f"<li><b>{escape(problem.field)}</b> {escape(problem.message)}</li>" for problem in tour.refusal.problems
        ),
        charges=len(tour.charges),
        rows="\n".join(_row(each) for each in tour.done),
        credits=f"{credits:g}",
        usd=f"{usd:.3f}",
        agreed=_agreed(tour),
    )
    page.write_text(text, "utf-8")


def _agreed(tour: Tour) -> str:
    """Whether what the client reckoned is what the server charged."""
    reckoned = round(sum(each.cost.usd for each in tour.done if each.cost is not None), 6)
    charged = round(sum(charge.usd for charge in tour.charges), 6)
    if reckoned == charged:
        return "The client's own reckoning says the same."
    return f"The client reckoned {reckoned:.3f} USD: please report this."


def _inputs(step: Step) -> Mapping[str, Path]:
    return {name: value for name, value in step.params.items() if isinstance(value, Path)}


def _card(done: Done) -> str:
    step = done.step
    inputs = "".join(
        f'<figure class="input"><img src="{escape(str(path))}" alt="" loading="lazy">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, path in _inputs(step).items()
    )
    inputs = f'<div class="inputs">{inputs}</div><span class="arrow">&rarr;</span>' if inputs else ""
    result = (
        f'<figure class="result"><a href="{escape(str(step.file))}">'
        f'<img src="{escape(str(step.file))}" width="{done.width}" height="{done.height}"'
        f' alt="{escape(step.title)}" loading="lazy"></a></figure>'
    )
    return f"""<article id="{escape(step.name)}">
<h3>{escape(step.title)}</h3>
<p class="model">{escape(step.model)}</p>
<div class="pictures">{inputs}{result}</div>
<ul class="facts">{"".join(f"<li>{fact}</li>" for fact in _facts(done))}</ul>
<pre>{_call(step)}</pre>
<details><summary>What the server received</summary>{_wire(done)}</details>
</article>"""


def _facts(done: Done) -> Iterator[str]:
    yield f"{done.width} &times; {done.height}"
    yield escape(done.artifact.media_type.removeprefix("image/"))
    if done.artifact.seed is not None:
        yield f"seed {done.artifact.seed}"
    yield f"{done.cost.usd:.3f} USD" if done.cost is not None else "price not known"
    yield f"{done.seconds:.2f} s"
    if done.polls:
        yield f"{done.polls} polls"


def _wire(done: Done) -> str:
    """The fields and files of the request, as the emulator read them."""
    sent = done.sent
    rows = [("", f"{sent.method} {sent.target}"), *sent.fields.items()]
    for name, part in sent.files.items():
        rows.append((name, f"{part.media_type}, {part.width} x {part.height}, {part.bytes:,} bytes"))
    cells = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table>{''.join(cells)}</table>"


def _call(step: Step, *, saves: bool = True) -> str:
    """The call as Python, coloured."""
    lines = ["result = <b>await</b> client.run(", f"    {_literal(step.model)},"]
    lines += [f"    {escape(name)}={_literal(value)}," for name, value in step.params.items()]
    lines.append(")")
    if saves:
        lines.append(f"result.artifacts[0].save({_literal(step.file)})")
    return "\n".join(lines)


def _literal(value: object) -> str:
    if isinstance(value, int | float):
        return f"<i>{value}</i>"
    return f"<q>{escape(json.dumps(str(value), ensure_ascii=False))}</q>"


def _row(done: Done) -> str:
    cost = done.cost
    credits = f"{cost.credits:g}" if cost is not None and cost.credits is not None else "?"
    usd = f"{cost.usd:.3f}" if cost is not None else "?"
    return (
        f'<tr><td><a href="#{escape(done.step.name)}">{escape(done.step.title)}</a></td>'
        f"<td>{escape(done.step.model)}</td><td>{credits}</td><td>{usd}</td><td>{done.seconds:.2f}</td></tr>"
    )
