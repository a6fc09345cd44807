"""Charts as inline SVG with a clear background and grey ink: they stand on light and dark paper alike. Axes: C bins of `identity.pairs`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..identity.pairs import BINS, PairHistogram, edges
from ..quality.pair_figures import error_rates
from .contact_sheet import PAPER

BLUE, AMBER, INK = "#2563eb", "#d97706", "#808894"
_COARSE = 64


def pair_charts(histogram: PairHistogram | None) -> dict[str, str]:
    """Return the two score distributions and the DET curve; empty where a set has no such pairs."""
    if histogram is None or not histogram.genuine_C.any() or not histogram.impostor_C.any():
        return {}
    return {"histogram": _distributions(histogram), "det": _det(histogram)}


def curve(points: list[tuple[int, int, int]]) -> str:
    """Return the chart of (identities, literally unique, greedily unique)."""
    figure, axes = chart_axes()
    count, literal, greedy = zip(*points)
    axes.plot(count, count, color=INK, linewidth=0.8, linestyle=":", label="all")
    axes.plot(count, greedy, color=BLUE, linewidth=2, marker="o", markersize=3, label="greedy")
    axes.plot(count, literal, color=AMBER, linewidth=2, marker="o", markersize=3, label="literal")
    axes.set(xlabel="identities", ylabel="unique identities", xlim=(0, None), ylim=(0, None))
    return chart_svg(figure, axes)


def profile(cos_N: np.ndarray) -> str:
    """Return the histogram of the cosines of images to the centre of their identity."""
    figure, axes = chart_axes()
    counts, places = np.histogram(cos_N, np.linspace(min(0.0, float(cos_N.min())), 1.0, 61))
    axes.stairs(counts, places, fill=True, color=BLUE, alpha=0.7)
    axes.set(xlabel="cosine to the centre of the identity", ylabel="images")
    return chart_svg(figure, axes)


def _distributions(histogram: PairHistogram) -> str:
    figure, axes = chart_axes()
    places = edges()[:: BINS // _COARSE]
    for counts_C, colour, label in ((histogram.impostor_C, AMBER, "different identities"), (histogram.genuine_C, BLUE, "same identity")):
        share = counts_C.reshape(_COARSE, -1).sum(axis=1) / counts_C.sum() * _COARSE / 2
        axes.stairs(share, places, fill=True, alpha=0.7, color=colour, label=f"{label} ({int(counts_C.sum()):,} pairs)")
    lowest = places[int(np.argmax(histogram.all_C.reshape(_COARSE, -1).any(axis=1)))]
    axes.set(xlabel="cosine by the judge", ylabel="density", xlim=(min(-0.5, lowest), 1.0))
    return chart_svg(figure, axes)


def _det(histogram: PairHistogram) -> str:
    figure, axes = chart_axes()
    fmr, fnmr = error_rates(histogram.genuine_C, histogram.impostor_C)
    seen = (fmr > 0) & (fnmr > 0)  # a log axis has no zero: rates below one pair are not resolved
    axes.plot(fmr[seen], fnmr[seen], color=BLUE, linewidth=2)
    axes.plot([1e-9, 1], [1e-9, 1], color=INK, linewidth=0.8, linestyle=":")
    least = max(1e-8, 1 / histogram.impostor_C.sum()), max(1e-6, 1 / histogram.genuine_C.sum())
    axes.set(xscale="log", yscale="log", xlim=(least[0], 1), ylim=(least[1], 1), xlabel="false match rate", ylabel="false non-match rate")
    return chart_svg(figure, axes)


def chart_axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    return figure, figure.subplots()


def chart_svg(figure: Any, axes: Any) -> str:
    text = chart_bytes(figure, axes, ".svg").decode()
    return text[text.index("<svg") :]


def chart_bytes(figure: Any, axes: Any, ending: str) -> bytes:
    """Return a finished chart as a file: ".svg" with a clear background, ".png" on the light paper of the picture sheets.

    Raises:
        UserError: another ending.
    """
    from matplotlib import rc_context

    if ending not in (".svg", ".png"):
        raise UserError(f"a chart ending in '{ending}': expected .svg or .png")
    axes.set_facecolor("none")
    axes.tick_params(colors=INK, which="both")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for name, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(name in ("left", "bottom"))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    buffer = io.BytesIO()
    if ending == ".png":
        figure.savefig(buffer, format="png", dpi=150, facecolor=(PAPER / 255,) * 3)
        return buffer.getvalue()
    with rc_context({"svg.hashsalt": "facefoundry", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
