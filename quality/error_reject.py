"""Error versus reject: how the false non-match rate falls as the images of lowest quality are left out (recognition.md §7.4, §8.7).

Sources name three conventions that cannot be compared: what is rejected (images, or pairs by the worse of the two), whether the threshold
stays, and how far the curve goes. Here all three are arguments. Axes: N images, P pairs, F fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.files import write_atomic
from ..core.seeds import numpy_rng
from ..core.stats import check_scores, fnmr_at_fmr, operating_point

UPTO = 0.95
"""The published curves end here; digitised, only this end reproduces the printed AOC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReject:
    """One curve.

    Attributes:
        fraction_F: rejected fraction, from 0, rising.
        fnmr_F: false non-match rate of what is left; where no mated pair is left, the last value again.
        threshold: of the full set, at the wanted false match rate (conservative rule).
    """

    fraction_F: np.ndarray
    fnmr_F: np.ndarray
    threshold: float

    @property
    def aoc(self) -> float:
        """See `aoc`."""
        return aoc(self.fraction_F, self.fnmr_F)


def fractions(step: float = 0.01) -> np.ndarray:
    """Return 0, step, ... up to `UPTO`."""
    return np.linspace(0.0, UPTO, round(UPTO / step) + 1)


def aoc(fraction_F: np.ndarray, fnmr_F: np.ndarray) -> float:
    """Area over the curve, 1 - ∫ FNMR(φ) / FNMR(0) dφ by the trapezoid, not divided by the length of the range; larger is better.

    This is the convention that reproduces the printed figures of SDD-FIQA (§7.4; found by digitising its curves). Rejecting at random gives
    about 1 - 0.95 = 0.05. NaN where FNMR(0) is 0: no error is left to be reduced.
    """
    fraction_F, fnmr_F = np.asarray(fraction_F, np.float64), np.asarray(fnmr_F, np.float64)
    return 1.0 - area_under(fraction_F, fnmr_F / fnmr_F[0]) if fnmr_F[0] > 0 else float("nan")


def area_under(fraction_F: np.ndarray, fnmr_F: np.ndarray) -> float:
    """Area under the curve by the trapezoid, not normalised; smaller is better (CR-FIQA's figure, with `reject_pairs`)."""
    return float(np.sum(np.diff(fraction_F) * (np.asarray(fnmr_F)[1:] + np.asarray(fnmr_F)[:-1]) / 2.0))


def reject_images(
    score_P: np.ndarray,
    same_P: np.ndarray,
    image_P2: np.ndarray,
    quality_N: np.ndarray,
    *,
    fmr: float,
    fraction_F: np.ndarray | None = None,
) -> ErrorReject:
    """Leave out images, lowest quality first, and every pair with one of them; the threshold stays that of the full set (SDD-FIQA).

    Args:
        score_P, same_P: similarities and whether the pair is mated.
        image_P2: the two images of each pair, indices into `quality_N`.
        quality_N: larger is better; equal values are ordered by chance (seeded), so that the order of the rows cannot help.
        fmr: false match rate that sets the threshold.
        fraction_F: rejected fractions; `fractions()` without.

    Raises:
        UserError: NaN quality, an image index that does not exist, or one kind of pair is missing.
    """
    score_P, same_P = check_scores(score_P, same_P)
    threshold = operating_point(score_P, same_P, fmr).threshold
    fraction_F = fractions() if fraction_F is None else np.asarray(fraction_F, np.float64)
    return ErrorReject(fraction_F=fraction_F, threshold=threshold, fnmr_F=mated_curve(score_P[same_P] < threshold, np.asarray(image_P2)[same_P], quality_N, fraction_F=fraction_F))


def mated_curve(missed_P: np.ndarray, image_P2: np.ndarray, quality_N: np.ndarray, *, fraction_F: np.ndarray, times_N: np.ndarray | None = None) -> np.ndarray:
    """Return the share of missed pairs among the mated pairs that are left, (F,).

    With a fixed threshold this is all there is to a curve; `times_N` says how often each image counts in a bootstrap draw of identities
    (a mated pair counts as often as its identity).
    """
    rank_N = quality_ranks(quality_N, times_N)
    if len(image_P2) and not (0 <= np.min(image_P2) and np.max(image_P2) < len(rank_N)):
        raise UserError(f"pairs name images {np.min(image_P2)} to {np.max(image_P2)}, but there are {len(rank_N)} qualities; expected indices from 0")
    pair_rank_P = rank_N[image_P2].min(axis=1)
    weight_P = np.ones(len(image_P2)) if times_N is None else np.asarray(times_N, np.float64)[image_P2[:, 0]]
    order = np.argsort(-pair_rank_P, kind="stable")  # best first: the pairs left at a fraction are a prefix
    left_P, missed_P = np.cumsum(weight_P[order]), np.cumsum((weight_P * missed_P)[order])
    count_F = np.searchsorted(-pair_rank_P[order], -(fraction_F - 1e-12), "right")
    fnmr_F = np.full(len(fraction_F), np.nan)
    some_F = (count_F > 0) & (left_P[np.maximum(count_F, 1) - 1] > 0)
    fnmr_F[some_F] = missed_P[count_F[some_F] - 1] / left_P[count_F[some_F] - 1]
    return _carried(fnmr_F)


def quality_ranks(quality_N: np.ndarray, times_N: np.ndarray | None = None) -> np.ndarray:
    """Return the fraction of images of lower quality for each image, in [0, 1); it goes once more than that fraction is rejected."""
    quality_N = np.asarray(quality_N, np.float64)
    if np.isnan(quality_N).any():
        raise UserError(f"{int(np.isnan(quality_N).sum())} of {quality_N.size} qualities are NaN; leave those images out, or score them")
    order = np.lexsort((numpy_rng("error reject", "ties").permutation(quality_N.size), quality_N))
    times = np.ones(quality_N.size) if times_N is None else np.asarray(times_N, np.float64)[order]
    rank_N = np.empty(quality_N.size)
    rank_N[order] = (np.cumsum(times) - times) / times.sum()
    return rank_N


def reject_pairs(score_P: np.ndarray, same_P: np.ndarray, quality_P: np.ndarray, *, fmr: float, fraction_F: np.ndarray | None = None, fixed: bool = False) -> ErrorReject:
    """Leave out pairs, mated and non-mated together, lowest pair quality first: int(φ · P) of them (CR-FIQA).

    Args:
        quality_P: of the pair, usually the smaller of its two images'.
        fixed: keep the threshold of the full set; without, it is set anew from the non-mated pairs left (CR-FIQA; here by the conservative
            rule, where its script takes the nearest rate).
    """
    score_P, same_P = check_scores(score_P, same_P)
    threshold = operating_point(score_P, same_P, fmr).threshold
    fraction_F = fractions(0.05) if fraction_F is None else np.asarray(fraction_F, np.float64)
    order, fnmr_F = np.argsort(quality_ranks(quality_P), kind="stable"), np.full(len(fraction_F), np.nan)
    for place, fraction in enumerate(fraction_F):
        rows = order[int(fraction * len(order) + 1e-9) :]
        mated = same_P[rows]
        if fixed and mated.any():
            fnmr_F[place] = np.mean(score_P[rows][mated] < threshold)
        elif mated.any() and not mated.all():
            fnmr_F[place] = fnmr_at_fmr(score_P[rows], mated, fmr)
    return ErrorReject(fraction_F=fraction_F, fnmr_F=_carried(fnmr_F), threshold=threshold)


def plot_curves(path: Path, panels: Mapping[str, Mapping[str, ErrorReject]]) -> None:
    """Draw one panel for each title, with one line for each method and its AOC in the legend; .png or .svg by the name of `path`."""
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.6 * columns, 4.6 * rows), layout="constrained")
    colour_of = {name: f"C{place}" for place, name in enumerate(dict.fromkeys(name for curves in panels.values() for name in curves))}
    for axes, (title, curves) in zip(np.ravel(figure.subplots(rows, columns)), panels.items()):
        for name, curve in sorted(curves.items(), key=lambda item: -item[1].aoc):
            axes.plot(curve.fraction_F, curve.fnmr_F, linewidth=1.6, color=colour_of[name], label=f"{name} ({curve.aoc:.3f})")
        axes.set(title=title, xlabel="fraction of images rejected", ylabel="false non-match rate", xlim=(0, UPTO))
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, title="area over the curve", title_fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    write_atomic(path, lambda temporary: figure.savefig(temporary, format=path.suffix.lstrip("."), dpi=120))


def _carried(fnmr_F: np.ndarray) -> np.ndarray:
    """Replace NaN by the value before it (the sources divide by zero here)."""
    last_F = np.maximum.accumulate(np.where(np.isnan(fnmr_F), 0, np.arange(len(fnmr_F))))
    return fnmr_F[last_F]
