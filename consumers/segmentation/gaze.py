"""From a segmented eye to where it looks, and from several frames to one answer.

The outline of the iris is an ellipse; only its border to the white counts, for the lids cut the rest off. Its centre's distance from the middle of the
opening, in units of the iris's radius, is the sine of the gaze angle times a constant of the human eye (Hansen & Ji, PAMI 2010, §4, name the
model). Axes: H W pixels, N points, M frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.check import check

IRIS_DEPTH_OVER_RADIUS = 9.7 / 6.0
"""Distance of the iris's plane from the eyeball's centre over the iris's radius: adult means; the same for everybody here."""

LEAST_POINTS = 12


@dataclass(frozen=True, kw_only=True)
class Ellipse:
    """(x, y) of the centre, half axes (long, short) in px, direction of the long one in radians."""

    centre_2: np.ndarray
    axes_2: np.ndarray
    angle: float


def gaze_of(label_HW: np.ndarray) -> np.ndarray | None:
    """Return the gaze as yaw and pitch in degrees (positive to the viewer's right and up), (2,); None where too little of the iris is seen.

    Args:
        label_HW: 0 background, 1 sclera, 2 iris, 3 pupil.
    """
    check("label_HW", label_HW, "H W")
    ellipse = iris_ellipse(label_HW)
    middle_2 = opening_middle(label_HW)
    if ellipse is None or middle_2 is None:
        return None
    offset_2 = (ellipse.centre_2 - middle_2) / (ellipse.axes_2[0] * IRIS_DEPTH_OVER_RADIUS)
    offset_2 *= min(1.0, 0.98 / max(float(np.linalg.norm(offset_2)), 1e-9))
    depth = np.sqrt(1.0 - (offset_2**2).sum())
    return np.degrees([np.arctan2(offset_2[0], depth), np.arcsin(-offset_2[1])])


def iris_ellipse(label_HW: np.ndarray) -> Ellipse | None:
    """Fit an ellipse to where the iris (with the pupil) meets the white; None where too little of that border is seen."""
    point_N2 = _border(label_HW >= 2, label_HW == 1)
    return fit_ellipse(point_N2) if len(point_N2) >= LEAST_POINTS else None


def opening_middle(label_HW: np.ndarray) -> np.ndarray | None:
    """Return (x, y) halfway between the corners of the opening: where a straight look would put the iris."""
    rows, columns = np.nonzero(label_HW > 0)
    if len(columns) < LEAST_POINTS:
        return None
    left, right = np.percentile(columns, (0.5, 99.5), method="nearest")
    corners = [rows[np.abs(columns - x) <= max(1.0, 0.03 * (right - left))].mean() for x in (left, right)]
    # The corners lie lower than the middle of the opening: the upper lid's arch is the higher one.
    return np.array([(left + right) / 2, np.mean(corners)])


def fit_ellipse(point_N2: np.ndarray) -> Ellipse | None:
    """Return the least-squares ellipse of points (x, y), (N, 2), N ≥ 5; None where the best conic is none (Fitzgibbon et al., PAMI 1999, eq. 10, in the stable form of Halíř & Flusser 1998)."""
    middle_2, spread = point_N2.mean(0), float(point_N2.std()) or 1.0
    x, y = ((point_N2 - middle_2) / spread).T
    square, straight = np.stack([x * x, x * y, y * y], 1), np.stack([x, y, np.ones_like(x)], 1)
    try:
        link = -np.linalg.solve(straight.T @ straight, straight.T @ square)
        reduced = square.T @ square + (square.T @ straight) @ link
        values, vectors = np.linalg.eig(np.stack([reduced[2] / 2, -reduced[1], reduced[0] / 2]))
    except np.linalg.LinAlgError:
        return None
    vectors = np.real(vectors)
    is_ellipse = 4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 0
    if not is_ellipse.any():
        return None
    conic = vectors[:, int(np.argmax(is_ellipse))]
    return _from_conic(np.concatenate([conic, link @ conic]), middle_2, spread)


def fuse_gaze(gaze_M2: np.ndarray, uncertainty_M: np.ndarray) -> np.ndarray:
    """Return the gaze of several frames, (2,) in degrees: Σ g/s over Σ 1/s of the unit vectors, made unit again (consumers.md §6)."""
    check("gaze_M2", gaze_M2, "M 2")
    check("uncertainty_M", uncertainty_M, f"{len(gaze_M2)}", lo=0.0)
    yaw, pitch = np.radians(np.asarray(gaze_M2, np.float64)).T
    look_M3 = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], 1)
    weight_M = 1.0 / np.maximum(np.asarray(uncertainty_M, np.float64), 1e-9)
    x, y, z = (weight_M / weight_M.sum()) @ look_M3
    return np.degrees([np.arctan2(x, z), np.arcsin(y / np.sqrt(x * x + y * y + z * z))])


def angle_between(left_N2: np.ndarray, right_N2: np.ndarray) -> np.ndarray:
    """Return the angle in degrees between gazes given as yaw and pitch, (N, 2) each → (N,)."""
    (ya, pa), (yb, pb) = np.radians(left_N2).T, np.radians(right_N2).T
    cosine = np.cos(pa) * np.cos(pb) * np.cos(ya - yb) + np.sin(pa) * np.sin(pb)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _border(inside_HW: np.ndarray, outside_HW: np.ndarray) -> np.ndarray:
    """Points (x, y) halfway between neighbouring pixels of which one is inside and the other outside, (N, 2)."""
    found = []
    for axis, step in ((1, (0.5, 0.0)), (0, (0.0, 0.5))):
        first, second = (np.take(inside_HW, range(0, inside_HW.shape[axis] - 1), axis), np.take(outside_HW, range(1, outside_HW.shape[axis]), axis))
        third, fourth = (np.take(outside_HW, range(0, inside_HW.shape[axis] - 1), axis), np.take(inside_HW, range(1, outside_HW.shape[axis]), axis))
        rows, columns = np.nonzero((first & second) | (third & fourth))
        found.append(np.stack([columns + step[0], rows + step[1]], 1))
    return np.concatenate(found)


def _from_conic(conic_6: np.ndarray, middle_2: np.ndarray, spread: float) -> Ellipse | None:
    a, b, c, d, e, f = conic_6
    form_22 = np.array([[a, b / 2], [b / 2, c]])
    centre_2 = np.linalg.solve(form_22, [-d / 2, -e / 2])
    level = -(f + (d * centre_2[0] + e * centre_2[1]) / 2)
    values, vectors = np.linalg.eigh(form_22)
    if not np.all(values * level > 0):
        return None
    axes_2 = np.sqrt(level / values)
    order = np.argsort(-axes_2)
    along = vectors[:, order[0]]
    return Ellipse(centre_2=centre_2 * spread + middle_2, axes_2=axes_2[order] * spread, angle=float(np.arctan2(along[1], along[0])))
