"""Where things are on the default head: landmarks as vertices of MakeHuman's base mesh, brows and hair line as shapes on the mean head.

Axes: N places; positions in mm, our axes (x to the viewer's right, y down, z to the camera, 0 between the eyeballs).
"""

from __future__ import annotations

import numpy as np

from .morphable import PARTS

LANDMARKS_OF_BASE = (
    5769, 5735, 5098, 5242, 895, 737, 5295, 5293, 5225, 11899, 11901, 7457, 7597, 11851, 11713, 12332, 12366,  # jaw
    5262, 232, 222, 223, 208, 6983, 6997, 6996, 7005, 11870,  # brows
    136, 135, 164, 294, 347, 313, 317, 7076, 7108,  # nose
    18, 0, 6763, 6767, 47, 1067, 13363, 13359, 6784, 6802, 7759, 6831,  # eyes
    3735, 5354, 456, 455, 7215, 11956, 10403, 7166, 7241, 492, 486, 406, 446, 471, 474, 7227, 7206, 7279, 523, 534,  # mouth: outer lip line, inner lip line
)  # fmt: skip
"""Vertices of the base mesh at the 68 points of the iBUG scheme: nearest to where dlib sees them on the mean head, on the lids' and lips' own edges."""

_BROW = ((8.0, -16.5), (21.0, -21.5), (35.0, -24.0), (48.0, -20.5), (58.5, -11.0))
"""The middle of a brow from the nose outwards: |x|, y."""
_BROW_HALF_MM = (2.6, 4.0, 3.8, 2.8, 0.8)

_HAIR_LINE = ((0.0, -72.0), (20.0, -72.0), (40.0, -64.0), (55.0, -42.0), (66.0, -14.0), (80.0, 18.0), (95.0, 18.0), (110.0, 62.0), (150.0, 78.0), (180.0, 80.0))
"""Lower edge of the hair: degrees about the vertical from straight ahead (0) to the nape (180), height y."""
_EAR_ABOUT = (79.0, 26.0, -88.0)
_EAR_HALF = (20.0, 36.0, 26.0)


def label_places(place_N3: np.ndarray) -> np.ndarray:
    """Return what places on the mean head's skin are, (N,) uint8: skin, brows or hair."""
    part_N = np.full(len(place_N3), PARTS.index("skin"), np.uint8)
    part_N[under_hair(place_N3)] = PARTS.index("hair")
    part_N[_in_brow(place_N3)] = PARTS.index("brows")
    return part_N


def _in_brow(place_N3: np.ndarray) -> np.ndarray:
    across_N = np.abs(place_N3[:, 0])
    x, y = np.array(_BROW).T
    near_N = np.abs(place_N3[:, 1] - np.interp(across_N, x, y)) < np.interp(across_N, x, _BROW_HALF_MM)
    return near_N & (across_N > x[0]) & (across_N < x[-1]) & (place_N3[:, 2] > -20.0)


def under_hair(place_N3: np.ndarray) -> np.ndarray:
    """Return which places lie under the hair line, (N,) bool; ears do not."""
    angle_N = np.degrees(np.arctan2(np.abs(place_N3[:, 0]), place_N3[:, 2] + 80.0))
    degrees, height = np.array(_HAIR_LINE).T
    ear_N = (np.abs((np.abs(place_N3) * (1, 0, 0) + place_N3 * (0, 1, 1) - _EAR_ABOUT) / _EAR_HALF) < 1.0).all(1)
    return (place_N3[:, 1] < np.interp(angle_N, degrees, height)) & ~ear_N
