"""What the triangles of somebody else's head show, told from its landmarks and eyes as seen from the front.

[C] The shapes are simple ones: lips between dlib's two lip lines, brows as bands along its brow points, an iris of 11.7 mm about the middle of the eye.
Axes: T triangles, V vertices, L = 68 landmarks, Q points; mm, origin between the eyes.
"""

from __future__ import annotations

import numpy as np

from .eyeball import IRIS_MM, PUPIL_MM
from .head_regions import under_hair
from .morphable import PARTS

_BROW_HALF_MM = 3.5
_DEEP_MM = 14.0
"""What lies farther than this behind a region's landmarks is not of it, but of the head behind."""


def label_face(place_V3: np.ndarray, triangle_T3: np.ndarray, landmark_68: np.ndarray, eye_V: np.ndarray, centre_23: np.ndarray) -> np.ndarray:
    """Return the parts, (T,) uint8, of a head's triangles; what no rule names is skin."""
    middle_T3, at_L3 = place_V3[triangle_T3].mean(1), place_V3[landmark_68]
    part_T = np.full(len(triangle_T3), PARTS.index("skin"), np.uint8)

    def paint(name: str, where_T: np.ndarray, depth_mm: float = -np.inf) -> None:
        part_T[where_T & (middle_T3[:, 2] > depth_mm)] = PARTS.index(name)

    paint("hair", under_hair(middle_T3))
    for line in (at_L3[17:22], at_L3[22:27]):
        paint("brows", _distance(middle_T3[:, :2], line[:, :2]) < _BROW_HALF_MM, line[:, 2].min() - _DEEP_MM)
    paint("lips", inside(middle_T3[:, :2], at_L3[48:60, :2]), at_L3[48:60, 2].min() - _DEEP_MM)
    paint("mouth", inside(middle_T3[:, :2], at_L3[60:68, :2]), at_L3[48:60, 2].min() - 4 * _DEEP_MM)
    paint_eyes(part_T, middle_T3, at_L3, eye_V[triangle_T3].max(1), centre_23)
    return part_T


def paint_eyes(part_T: np.ndarray, middle_T3: np.ndarray, at_L3: np.ndarray, eye_T: np.ndarray, centre_23: np.ndarray) -> None:
    """Write sclera, iris and pupil: of eyeballs where there are some, else inside the lids.

    Args:
        eye_T: 0, or which eyeball a triangle is of (1 the viewer's right, 2 the left).
    """
    for number, (centre_3, lid) in enumerate(zip(centre_23, (slice(42, 48), slice(36, 42))), start=1):
        front_T = middle_T3[:, 2] > at_L3[lid, 2].min() - _DEEP_MM
        of_ball_T = eye_T == number
        shown_T = of_ball_T if of_ball_T.any() else inside(middle_T3[:, :2], at_L3[lid, :2]) & front_T
        off_T = np.linalg.norm(middle_T3[:, :2] - centre_3[:2], axis=1)
        ahead_T = shown_T & (middle_T3[:, 2] > centre_3[2])
        part_T[shown_T] = PARTS.index("sclera")
        part_T[ahead_T & (off_T < IRIS_MM)] = PARTS.index("iris")
        part_T[ahead_T & (off_T < PUPIL_MM)] = PARTS.index("pupil")


def inside(point_Q2: np.ndarray, corner_P2: np.ndarray) -> np.ndarray:
    """Return which points lie in a polygon, (Q,) bool: a ray to the right crosses its edges an odd number of times."""
    x_Q1, y_Q1 = point_Q2[:, :1], point_Q2[:, 1:]
    (x, y), (nx, ny) = corner_P2.T, np.roll(corner_P2, -1, axis=0).T
    rise = np.where(ny == y, 1.0, ny - y)
    return (((y > y_Q1) != (ny > y_Q1)) & (x_Q1 < x + (y_Q1 - y) * (nx - x) / rise)).sum(1) % 2 == 1


def _distance(point_Q2: np.ndarray, line_P2: np.ndarray) -> np.ndarray:
    """Return the distances of points from a chain of segments, (Q,)."""
    start_S2, way_S2 = line_P2[:-1], np.diff(line_P2, axis=0)
    off_QS2 = point_Q2[:, None] - start_S2
    along_QS = ((off_QS2 * way_S2).sum(2) / (way_S2**2).sum(1).clip(1e-12)).clip(0.0, 1.0)
    return np.linalg.norm(off_QS2 - along_QS[..., None] * way_S2, axis=2).min(1)
