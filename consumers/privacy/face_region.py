"""The face's region in an aligned picture: the filled convex hull of its landmarks (DuetFace's ROI).

DuetFace uses 98 points of PFLD; here dlib's 68 (jaw line and brows, like PFLD's without more forehead) stand in for them, or their median over
13,192 aligned training faces, which needs no detector.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ...core.images import to_uint8
from ...recognition.align import SIDE
from ...recognition.pose import aligned_landmarks

MEDIAN_HULL_PX = (
    (35.8, 109.2), (28.2, 102.8), (22.8, 94.2), (19.2, 84.8), (16.2, 64.8), (15.8, 54.8), (22.8, 46.2), (28.2, 42.2), (35.2, 40.8), (75.8, 40.2), (83.2, 41.8),
    (88.2, 45.8), (96.2, 54.2), (95.8, 64.2), (94.8, 74.8), (92.8, 84.8), (89.8, 93.8), (84.2, 102.2), (76.2, 108.8), (66.8, 112.8), (56.2, 113.8), (45.2, 112.8),
)  # fmt: skip
"""Corners of the hull of dlib's median points, (x, y) in a 112×112 face."""


def hull_mask(point_P2: np.ndarray, side: int, source: int = SIDE) -> np.ndarray:
    """Return which pixels' centres lie in the convex hull of points (x, y), bool (side, side).

    Args:
        point_P2: in pixels of a picture of `source` pixels, pixel centres at integers.
    """
    from scipy.spatial import ConvexHull

    plane_E3 = ConvexHull((np.asarray(point_P2, float) + 0.5) * side / source - 0.5).equations
    y, x = np.mgrid[:side, :side]
    return (np.tensordot(plane_E3[:, :2], np.stack([x, y]), 1) + plane_E3[:, 2, None, None] <= 1e-9).all(0)


@lru_cache(maxsize=4)
def _median_mask(side: int) -> np.ndarray:
    return hull_mask(np.array(MEDIAN_HULL_PX), side)


def face_region(image_BCHW: Tensor, side: int, *, landmarks: bool) -> Tensor:
    """Return the regions of aligned faces, float32 of 0 and 1, (B, 1, side, side).

    Args:
        image_BCHW: RGB in [-1, 1], (B, 3, 112, 112).
        landmarks: find each face's points with dlib; else the median face's region for all.
    """
    if not landmarks:
        mask_BHW = np.broadcast_to(_median_mask(side), (len(image_BCHW), side, side))
    else:
        mask_BHW = np.stack([hull_mask(aligned_landmarks(image_HWC), side) for image_HWC in to_uint8(image_BCHW)])
    return torch.from_numpy(mask_BHW.astype(np.float32))[:, None].to(image_BCHW.device)
