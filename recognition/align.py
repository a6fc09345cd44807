"""Photo in, aligned 112×112 face out: five points brought to the ArcFace template by a similarity transform.

Source of the transform: Umeyama, "Least-squares estimation of transformation parameters", PAMI 1991. Template: ArcFace / insightface.
Points are (x, y) in pixels and integers are pixel centres.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from ..core.check import check
from ..core.errors import UserError
from ..core.template import SIDE, TEMPLATE_PX, five_points
from .dlib_files import LANDMARKS_68, dlib_file

_DETECT_SIDE = 1024
_RETRY_BORDER = 0.35


def similarity_transform(source_P2: np.ndarray, target_P2: np.ndarray) -> np.ndarray:
    """Return the (2, 3) float64 matrix [s·R | t] that brings `source_P2` closest to `target_P2` in the least squares.

    Raises:
        ValueError: shapes differ, values are not finite, or all source points coincide.
    """
    check("source_P2", source_P2, "P 2")
    if source_P2.shape != target_P2.shape or not (np.isfinite(source_P2).all() and np.isfinite(target_P2).all()):
        raise ValueError(f"points of shapes {source_P2.shape} and {target_P2.shape}: expected equal shapes (P, 2) and finite values")
    source_mean, target_mean = source_P2.mean(0), target_P2.mean(0)
    source_P2, target_P2 = source_P2 - source_mean, target_P2 - target_mean
    variance = float(np.square(source_P2).sum())
    if variance < 1e-12:
        raise ValueError("all source points coincide: no scale or rotation can be found")
    left, singular, right = np.linalg.svd(target_P2.T @ source_P2)
    # A mirror image would fit some point sets better; a face is never mirrored.
    sign = np.array([1.0, math.copysign(1.0, float(np.linalg.det(left) * np.linalg.det(right)))])
    turn_22 = left @ np.diag(sign) @ right * (float((singular * sign).sum()) / variance)
    return np.concatenate([turn_22, (target_mean - turn_22 @ source_mean)[:, None]], axis=1)


def apply_transform(matrix_23: np.ndarray, point_P2: np.ndarray) -> np.ndarray:
    """Move points, (P, 2), by a (2, 3) matrix."""
    return point_P2 @ matrix_23[:, :2].T + matrix_23[:, 2]


def warp(image_HWC: np.ndarray, matrix_23: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Resample uint8 RGB, (H, W, 3), to (side, side, 3); `matrix_23` maps source points to target points. Outside is black.

    Where the face shrinks, the photo is first box-filtered to about twice the target's resolution, so that nothing aliases.
    """
    shrink = max(1, int(0.5 / math.sqrt(abs(float(np.linalg.det(matrix_23[:, :2]))))))
    picture = Image.fromarray(np.ascontiguousarray(image_HWC))
    if shrink > 1:
        picture = picture.reduce(shrink)
    # Pillow's coordinates have pixel centres at .5, ours at integers: p_pillow = (p + 0.5) / shrink in the photo, p + 0.5 in the face.
    inverse_22 = np.linalg.inv(matrix_23[:, :2])
    offset_2 = (-inverse_22 @ (matrix_23[:, 2] + 0.5) + 0.5) / shrink
    inverse_22 = inverse_22 / shrink
    coefficients = (*inverse_22[0], offset_2[0], *inverse_22[1], offset_2[1])
    # Channel by channel in float: Pillow's 8-bit resampling truncates, which darkens every face by half a grey level.
    planes = [plane.convert("F").transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC) for plane in picture.split()]
    return np.stack([np.asarray(plane) for plane in planes], axis=2).round().clip(0, 255).astype(np.uint8)


def align_five(image_HWC: np.ndarray, landmark_52: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photo and its five points → (face uint8 (112, 112, 3), the points in it, float32 (5, 2))."""
    matrix_23 = similarity_transform(np.asarray(landmark_52, np.float64), TEMPLATE_PX)
    return warp(image_HWC, matrix_23), apply_transform(matrix_23, landmark_52).astype(np.float32)


def predict_68(image_HWC: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return dlib's 68 points of the face in a box (left, top, right, bottom), (68, 2) float64, whole pixels."""
    dlib, _, predictor = _models()
    shape = predictor(np.ascontiguousarray(image_HWC), dlib.rectangle(*box))
    return np.array([(part.x, part.y) for part in shape.parts()], np.float64)


class DlibAligner:
    """dlib's frontal face detector and 68-point shape predictor; of several faces the largest.

    Args:
        upsample: doublings of the photo before detection; 0 finds faces from 80 px, 1 from 40 px (four times the cost).
    """

    def __init__(self, *, upsample: int = 1) -> None:
        self._upsample = upsample

    def __call__(self, image_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """See `identity.ingest.Aligner`."""
        landmark_52 = self.landmarks(image_HWC)
        return None if landmark_52 is None else align_five(image_HWC, landmark_52)

    def landmarks(self, image_HWC: np.ndarray) -> np.ndarray | None:
        """Return the five points in the photo, (5, 2) float64, or None where no face is found."""
        check("image_HWC", image_HWC, "H W 3")
        if min(image_HWC.shape[:2]) < 24:
            return None
        image_HWC = np.ascontiguousarray(image_HWC)
        box = self._largest_face(image_HWC, 0)
        if box is None:
            # The detector wants some surroundings: a picture that is all face is found with a border.
            box = self._largest_face(image_HWC, int(_RETRY_BORDER * min(image_HWC.shape[:2])))
        if box is None:
            return None
        return five_points(predict_68(image_HWC, box))

    def _largest_face(self, image_HWC: np.ndarray, border: int) -> tuple[int, int, int, int] | None:
        """Return left, top, right, bottom in the photo's pixels."""
        _, detector, _ = _models()
        ratio = min(1.0, _DETECT_SIDE / max(image_HWC.shape[:2]))
        small_HWC = np.asarray(Image.fromarray(image_HWC).resize(_scaled_size(image_HWC, ratio), Image.Resampling.BOX)) if ratio < 1 else image_HWC
        edge = int(border * ratio)
        if edge:
            small_HWC = np.pad(small_HWC, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
        found = detector(np.ascontiguousarray(small_HWC), self._upsample)
        if not found:
            return None
        face = max(found, key=lambda box: box.area())
        return tuple(round((value - edge) / ratio) for value in (face.left(), face.top(), face.right(), face.bottom()))  # type: ignore[return-value]


Aligner = DlibAligner
"""The aligner in use where none is named."""


def _scaled_size(image_HWC: np.ndarray, ratio: float) -> tuple[int, int]:
    return max(1, round(image_HWC.shape[1] * ratio)), max(1, round(image_HWC.shape[0] * ratio))


@lru_cache(maxsize=1)
def _models() -> tuple[Any, Any, Any]:
    """Return (dlib, detector, shape predictor), loaded once a process."""
    try:
        import dlib
    except ImportError as error:
        raise UserError("alignment of photos needs the package 'dlib-bin', which is not installed; run: pip install dlib-bin (or pass aligned 112x112 faces)") from error
    return dlib, dlib.get_frontal_face_detector(), dlib.shape_predictor(str(dlib_file(LANDMARKS_68)))
