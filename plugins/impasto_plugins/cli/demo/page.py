"""The page that `impasto try` writes: one HTML file beside its images, readable from disk, loading nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from impasto import __version__

from .tour import IMAGE_SCALE, REFUSED, FinishedStep, Step, Tour

GENERATOR = '<meta name="generator" content="impasto try">'
"""Marks the page as generated, so that a later run may replace it."""

_NOUNS = {"image": "images", "audio": "sounds", "model": "3D models"}


def write(page: Path, tour: Tour) -> None:
    """Write the page of a tour. Raises OSError."""
    template = Template(_resource("page.html"))
    usd = sum(charge.usd for charge in tour.charges)
    credits = sum(charge.credits for charge in tour.charges)
    text = template.substitute(
        generator=GENERATOR,
        version=escape(__version__),
        numbers="\n".join(f"<li><b>{number}</b>{noun}</li>" for noun, number in _numbers(tour).items()),
        counted=count_steps(tour),
        models=len({each.step.model for each in tour.steps}),
        seconds=f"{tour.seconds:.1f}",
        scale=f"{IMAGE_SCALE:g}",
        made=_cards(each for each in tour.steps if _kind(each) == "image" and not _inputs(each.step)),
        edited=_cards(each for each in tour.steps if _kind(each) == "image" and _inputs(each.step)),
        more="\n".join(_section(kind, tour) for kind in ("audio", "model")),
        refused_call=_call(REFUSED, saves=False),
        problems="\n".join(
            f"<li><b>{escape(problem.field)}</b> {escape(problem.message)}</li>" for problem in tour.refusal.problems
        ),
        charges=len(tour.charges),
        rows="\n".join(_row(each) for each in tour.steps),
        credits=f"{credits:g}",
        usd=f"{usd:.3f}",
        agreed=_facts_of_tour(tour),
    )
    page.write_text(text, "utf-8")


def count_steps(tour: Tour) -> str:
    """Return the number of results by kind: ``18 images, 3 sounds``."""
    return ", ".join(f"{number} {noun}" for noun, number in _numbers(tour).items())


def _numbers(tour: Tour) -> Mapping[str, int]:
    kinds = [_kind(each) for each in tour.steps]
    return {noun: kinds.count(kind) for kind, noun in _NOUNS.items() if kind in kinds}


def _kind(done: FinishedStep) -> str:
    return done.artifact.media_type.partition("/")[0]


def _cards(done: Iterable[FinishedStep]) -> str:
    return "\n".join(map(_card, done))


def _section(kind: str, tour: Tour) -> str:
    """Return the section of sounds, or of 3D models with their viewer's script; empty without any."""
    done = [each for each in tour.steps if _kind(each) == kind]
    if not done:
        return ""
    script = f"<script>{_resource('viewer.js')}</script>" if kind == "model" else ""
    return f'<h2>{_NOUNS[kind][0].upper()}{_NOUNS[kind][1:]}</h2>\n<div class="cards">\n{_cards(done)}\n</div>{script}'


def _resource(name: str) -> str:
    return files("impasto_plugins.cli.demo").joinpath(name).read_text("utf-8")


def _facts_of_tour(tour: Tour) -> str:
    """Return a sentence that compares the client's sum with the server's charges."""
    own_sum = round(sum(each.cost.usd for each in tour.steps if each.cost is not None), 6)
    charged = round(sum(charge.usd for charge in tour.charges), 6)
    if own_sum == charged:
        return "The client's own sum is the same."
    return f"The client's own sum is {own_sum:.3f} USD: please report this."


def _inputs(step: Step) -> Mapping[str, Path]:
    return {name: value for name, value in step.params.items() if isinstance(value, Path)}


def _card(done: FinishedStep) -> str:
    step = done.step
    inputs = "".join(
        f'<figure class="input">{_input(path)}<figcaption>{escape(name)}</figcaption></figure>'
        for name, path in _inputs(step).items()
    )
    inputs = f'<div class="inputs">{inputs}</div><span class="arrow">&rarr;</span>' if inputs else ""
    result = f'<figure class="result">{_result(done)}</figure>'
    # A player is lower than an image.
    shape = "images sounds" if _kind(done) == "audio" else "images"
    return f"""<article id="{escape(step.name)}">
<h3>{escape(step.title)}</h3>
<p class="model">{escape(step.model)}</p>
<div class="{shape}">{inputs}{result}</div>
<ul class="facts">{"".join(f"<li>{fact}</li>" for fact in _facts(done))}</ul>
<pre>{_call(step)}</pre>
<details><summary>What the server received</summary>{_wire(done)}</details>
</article>"""


def _input(path: Path) -> str:
    place = escape(str(path))
    if path.suffix == ".wav":
        return f'<audio controls preload="metadata" src="{place}"></audio>'
    return f'<img src="{place}" alt="" loading="lazy">'


def _result(done: FinishedStep) -> str:
    """Return the image, a player, or a canvas with the model's data: a page on disk may fetch nothing."""
    place, title = escape(str(done.step.file)), escape(done.step.title)
    match _kind(done):
        case "audio":
            return f'<audio controls preload="metadata" src="{place}"></audio>'
        case "model":
            canvas = (
                f'<canvas width="540" height="540" aria-label="{title}" data-glb="{done.artifact.b64_json}"></canvas>'
            )
            return f'{canvas}<a class="file" href="{place}" download>{place}</a>'
        case _:
            width, height = done.sides or (0, 0)
            image = f'<img src="{place}" width="{width}" height="{height}" alt="{title}" loading="lazy">'
            return f'<a href="{place}">{image}</a>'


def _facts(done: FinishedStep) -> Iterator[str]:
    yield done.size.replace(" x ", " &times; ")
    yield escape(done.step.file.suffix[1:].replace("jpg", "jpeg"))
    if done.artifact.seed is not None:
        yield f"seed {done.artifact.seed}"
    yield f"{done.cost.usd:.3f} USD" if done.cost is not None else "price not known"
    yield f"{done.seconds:.2f} s"
    if done.polls:
        yield f"{done.polls} polls"


def _wire(done: FinishedStep) -> str:
    """Return the fields and files of the request, as the emulator read them."""
    sent = done.sent
    rows = [("", f"{sent.method} {sent.target}"), *sent.fields.items()]
    for name, part in sent.files.items():
        sides = f", {part.width} x {part.height}" if part.width is not None else ""
        rows.append((name, f"{part.media_type}{sides}, {part.bytes:,} bytes"))
    cells = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table>{''.join(cells)}</table>"


def _call(step: Step, *, saves: bool = True) -> str:
    """Return the call as coloured Python."""
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


def _row(done: FinishedStep) -> str:
    cost = done.cost
    credits = f"{cost.credits:g}" if cost is not None and cost.credits is not None else "?"
    usd = f"{cost.usd:.3f}" if cost is not None else "?"
    return (
        f'<tr><td><a href="#{escape(done.step.name)}">{escape(done.step.title)}</a></td>'
        f"<td>{escape(done.step.model)}</td><td>{credits}</td><td>{usd}</td><td>{done.seconds:.2f}</td></tr>"
    )
