"""The picture of the honest curves: accuracy over people and over images each, one line a generator, real as a band, and every source at one size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from honest_cells import REAL, Cell

COLOURS = {"id3": "#2563eb", "uiface": "#d97706", "lcm": "#059669", "morphface": "#a21caf", "rendered": "#6b7280", REAL: "#111827"}
NAMES = {"id3": "ID³", "uiface": "UIFace", "lcm": "few-step", "morphface": "MorphFace", "rendered": "rendered", REAL: "real"}
WIDE, DEEP = 3, 300
"""Images each of the curve over people; people of the curve over images each."""

ONE_SIZE = (1000, 3)


def named(cell: Cell) -> str:
    """Return the sources of a cell for people, e.g. "½ ID³ + ½ rendered"."""
    share = "½ " if len(cell.sources) == 2 else ""
    return " + ".join(share + NAMES[source] for source in cell.sources) + (", filtered" if cell.filtered else "")


def draw(cells: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write the plot of what `honest_curves.collect` found, in per cent; deviations over seeds as bars and band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.4), layout="constrained", facecolor="white")
    over_people, over_images, sources = figure.subplots(1, 3, width_ratios=(1.25, 1, 1.1))
    found = {Cell.parse(text): row for text, row in cells.items()}
    lines(over_people, {cell: row for cell, row in found.items() if cell.per_identity == WIDE}, "identities")
    over_people.set(xlabel=f"people, {WIDE} images each", ylabel="accuracy on LFW folds 7-8, %", title="More people")
    lines(over_images, {cell: row for cell, row in found.items() if cell.identities == DEEP}, "per_identity")
    over_images.set(xlabel=f"images each, {DEEP} people", title="More images of each")
    bars(sources, {cell: row for cell, row in found.items() if (cell.identities, cell.per_identity) == ONE_SIZE})
    sources.set(xlabel="accuracy, %", title=f"Every source: {ONE_SIZE[0]:,} people × {ONE_SIZE[1]}")
    named_once = {label: handle for axes in (over_people, over_images) for handle, label in zip(*axes.get_legend_handles_labels())}
    if named_once:
        figure.legend(named_once.values(), named_once, loc="outside lower center", ncols=len(named_once), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def lines(axes: Any, found: Mapping[Cell, Mapping[str, Any]], place: str) -> None:
    """One line for each single source with its deviation, real as a band; filtered sets as open marks."""
    for source in COLOURS:
        points = sorted((getattr(cell, place), *accuracy(row)) for cell, row in found.items() if cell.sources == (source,) and not cell.filtered)
        if not points:
            continue
        at, mean, spread = zip(*points)
        if source == REAL:
            axes.fill_between(at, [m - s for m, s in zip(mean, spread)], [m + s for m, s in zip(mean, spread)], color=COLOURS[source], alpha=0.15, linewidth=0)
            axes.plot(at, mean, color=COLOURS[source], linewidth=2, marker="o", markersize=4, label=f"{NAMES[source]} (± sd)")
        else:
            axes.errorbar(at, mean, yerr=spread, color=COLOURS[source], linewidth=1.8, marker="o", markersize=4, capsize=3, label=NAMES[source])
        for cell, row in found.items():
            if cell.filtered and cell.sources == (source,):
                value, deviation = accuracy(row)
                axes.errorbar([getattr(cell, place) * 1.06], [value], yerr=[deviation], color=COLOURS[source], marker="D", markerfacecolor="white", capsize=3, linestyle="none", label=named(cell))
    ticks = sorted({getattr(cell, place) for cell in found})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def bars(axes: Any, found: Mapping[Cell, Mapping[str, Any]]) -> None:
    """Accuracy of every source at one size, the best on top, real's as a line across."""
    ranked = sorted(found, key=lambda cell: accuracy(found[cell])[0])
    for row, cell in enumerate(ranked):
        value, deviation = accuracy(found[cell])
        colour = COLOURS[cell.sources[0]] if len(cell.sources) == 1 else "#94a3b8"
        axes.errorbar([value], [row], xerr=[deviation], color=colour, marker="o", markersize=6, capsize=3, linestyle="none")
        axes.annotate(f"{value:.1f}", (value, row), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8, color=colour)
        if cell.sources == (REAL,):
            axes.axvline(value, color=COLOURS[REAL], linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(ranked)), [named(cell) for cell in ranked])
    axes.set_ylim(-0.6, len(ranked) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def accuracy(row: Mapping[str, Any]) -> tuple[float, float]:
    """Mean and deviation in per cent; one seed has no deviation."""
    return 100 * row["mean"]["accuracy"], 100 * (row["sd"]["accuracy"] or 0.0)
