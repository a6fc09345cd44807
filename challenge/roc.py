"""TAR@FAR at many rates from one sort: for lists of millions of pairs, where sorting anew for each rate is most of the time.

The two rules are those of `core.stats.operating_point`, and the figures are equal (recognition.md §8.2). Axes: P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.errors import UserError
from ..core.stats import FarRule, OperatingPoint

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class Roc:
    """The counts of accepted pairs at every distinct score.

    Args:
        score_P: similarities; float32 stays float32.
        same_P: True for mated pairs.

    Raises:
        UserError: scores that are not finite, or no mated or no non-mated pairs.
    """

    def __init__(self, score_P: np.ndarray, same_P: np.ndarray) -> None:
        same_P = np.asarray(same_P, bool)
        if score_P.shape != same_P.shape or not np.isfinite(score_P).all():
            raise UserError(f"{score_P.shape} scores, {int((~np.isfinite(score_P)).sum())} of them not finite, for {same_P.shape} labels; expected one finite score for every pair")
        self.mated, self.non_mated = np.sort(score_P[same_P]), np.sort(score_P[~same_P])
        if not self.mated.size or not self.non_mated.size:
            raise UserError(f"{self.mated.size} mated and {self.non_mated.size} non-mated pairs; expected at least one of each")

    def points(self, fars: Sequence[float] = IJB_FARS, rule: FarRule = "nearest") -> tuple[OperatingPoint, ...]:
        """Return the operating point of each wanted false match rate."""
        find = {"nearest": self._nearest, "conservative": self._conservative}[rule]
        return tuple(self._point(find(far), far) for far in fars)

    def _point(self, threshold: float, far: float) -> OperatingPoint:
        fmr, tar = (1.0 - np.searchsorted(part, threshold, "left") / part.size for part in (self.non_mated, self.mated))
        return OperatingPoint(threshold=float(threshold), fmr=float(fmr), tar=float(tar), resolved=far * self.non_mated.size >= 1.0 - 1e-9)

    def _conservative(self, far: float) -> float:
        allowed = int(far * self.non_mated.size + 1e-9)
        if allowed >= self.non_mated.size:
            return -np.inf
        return np.nextafter(self.non_mated[self.non_mated.size - 1 - allowed], self.non_mated.dtype.type(np.inf))

    def _nearest(self, far: float) -> float:
        """Search the corners of the ROC around the wanted count only; a window that may cut the best corner off grows."""
        wanted, width = far * self.non_mated.size, 64
        while True:
            # Scores with ranks around the wanted count of false accepts; the sentinel above all scores accepts nothing.
            low = max(0, int(self.non_mated.size - 1 - wanted - width))
            high = min(self.non_mated.size - 1, int(self.non_mated.size - 1 - wanted + width))
            threshold, exact = self._corners(low, high)
            false = self.non_mated.size - np.searchsorted(self.non_mated, threshold, "left")
            distance = np.abs(false / self.non_mated.size - far)
            best = np.flatnonzero(distance == distance.min()) if threshold.size else np.empty(0, int)
            inner = best.size and (low == 0 or distance.min() < abs(wanted - false.max()) / self.non_mated.size) and (high == self.non_mated.size - 1 or distance.min() < abs(wanted - false.min()) / self.non_mated.size)
            if inner or exact:
                true = self.mated.size - np.searchsorted(self.mated, threshold[best], "left")
                return threshold[best[np.argmax(true)]]
            width *= 8

    def _corners(self, low: int, high: int) -> tuple[np.ndarray, bool]:
        """Return the corner thresholds between two ranks of non-mated scores, descending, and whether these are all there are."""
        whole = low == 0 and high == self.non_mated.size - 1
        bottom = -np.inf if low == 0 else self.non_mated[low]
        top = np.inf if high == self.non_mated.size - 1 else self.non_mated[high]
        near = [part[np.searchsorted(part, bottom, "left") : np.searchsorted(part, top, "right")] for part in (self.mated, self.non_mated)]
        threshold = np.unique(np.concatenate(near))[::-1]
        false, true = (part.size - np.searchsorted(part, threshold, "left") for part in (self.non_mated, self.mated))
        if threshold.size > 2:
            # As in core.stats: sklearn's roc_curve keeps corners only. The window's own ends are corners only where they end the whole list.
            corner = np.concatenate(([top == np.inf], (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), [low == 0]))
            threshold = threshold[corner]
        return (np.append(np.inf, threshold) if top == np.inf else threshold), whole
