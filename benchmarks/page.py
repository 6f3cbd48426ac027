"""The results page: ``python -m benchmarks.page RUN.jsonl ...`` draws what ``--json`` printed, and writes its tables.

A plot for each case, beside the page in ``plots/``, and the tables between two marks in RESULTS.md. A later file's
ratio replaces an earlier one's of the same case and name. Needs ``impasto[benchmarks]``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .__main__ import CASES
from .measure import Ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]  # an extra

HERE = Path(__file__).parent
PAGE, PLOTS = HERE / "RESULTS.md", HERE / "plots"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

_WIDE = 20
"""From this range on the smaller ticks' numbers would lie on one another."""

Cases = dict[str, dict[str, Ratio]]


def read(paths: Iterable[Path]) -> tuple[list[str], Cases]:
    """What was said of the machines, and the ratios by case and name."""
    abouts: list[str] = []
    cases: Cases = {name: {} for name in CASES}
    for path in paths:
        for line in path.read_text().splitlines():
            told = json.loads(line)
            if (about := told.get("about")) is not None:
                abouts.append(about)
            else:
                case = cases[told.pop("case")]
                case[told["name"]] = Ratio(**told)
    return list(dict.fromkeys(abouts)), {name: ratios for name, ratios in cases.items() if ratios}


def tables(abouts: list[str], cases: Cases) -> str:
    """The part of the page that is measured."""
    parts = [f"{BEGIN}\n", *(f"{about}\n" for about in abouts)]
    for name, ratios in cases.items():
        parts.append(f"\n### {name}: {CASES[name]}\n\n![{name}](plots/{name}.svg)\n\n")
        parts.append(
            "| case | target | ratio [quartiles] | ours | floor | pairs |\n| --- | --- | ---: | ---: | ---: | ---: |\n"
        )
        parts += [f"{_row(ratio)}\n" for ratio in ratios.values()]
    return "".join([*parts, END])


def _row(r: Ratio) -> str:
    ratio = f"{r.ratio:.2f}" if r.held else f"**{r.ratio:.2f}** missed"
    figures = f"{r.ours:,.1f} {r.unit} | {r.floor:,.1f} | {r.pairs}"
    return f"| {r.name} | {_target(r)} | {ratio} [{r.low:.2f}..{r.high:.2f}] | {figures} |"


def _target(r: Ratio) -> str:
    if r.most is not None:
        return f"at most {r.most:.3g}"
    return f"at least {r.least:g}" if r.least is not None else ""


def drawn(name: str, ratios: Mapping[str, Ratio]) -> Figure:
    """A case's ratios as bars, with their quartiles and their targets; the floor is the line at 1."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]  # an extra

    shown = list(ratios.values())[::-1]
    figure = Figure(figsize=(9, 1 + 0.38 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for at, r in enumerate(shown):
        low, high = max(r.low, r.ratio / 10), min(r.high, r.ratio * 10)  # of few pairs they may lie far out
        spread = [[max(r.ratio - low, 0)], [max(high - r.ratio, 0)]]
        axes.barh(at, r.ratio - 1, left=1, color="#3b6ea5" if r.held else "#b5443c", height=0.6)
        axes.errorbar(r.ratio, at, xerr=spread, color="black", capsize=3, linewidth=1)
        if (target := r.most if r.most is not None else r.least) is not None:
            axes.plot([target, target], [at - 0.4, at + 0.4], color="#e0a100", linewidth=3)
    axes.set_yticks(range(len(shown)), [r.name for r in shown])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    low, high = axes.get_xlim()
    axes.xaxis.set_minor_formatter("{x:g}" if high / low < _WIDE else "")
    axes.tick_params(axis="x", which="minor", labelsize="small")
    axes.axvline(1, color="grey", linewidth=1)
    axes.grid(axis="x", which="both", alpha=0.2)
    axes.set_xlabel("ours over the floor (logarithmic); yellow: the target")
    figure.suptitle(f"{name}: {CASES[name]}", x=0.01, ha="left")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.jsonl")
    import matplotlib as mpl  # pyright: ignore[reportMissingImports]  # an extra

    abouts, cases = read(parser.parse_args().runs)
    PLOTS.mkdir(exist_ok=True)
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    for name, ratios in cases.items():
        drawn(name, ratios).savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + tables(abouts, cases) + rest.partition(END)[2])


if __name__ == "__main__":
    main()
