"""Head pose of aligned faces: dlib's 68 landmarks, and the weak-perspective camera under which a generic head explains them best (core.rigid).

Axes: N faces, P landmarks. Right, left, up and down are the viewer's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..core.check import check
from ..core.euler import angles, rotation
from ..core.progress import track
from ..core.registry import Registry
from ..core.rigid import weak_perspective
from ..core.types import AttributePredictor
from .align import predict_68

ATTRIBUTE_PREDICTORS: Registry[type] = Registry("attribute predictor", "facefoundry.recognition")
"""Each entry: a class that is an `AttributePredictor` when called without arguments."""

FACE_BOX_PX = (16, 30, 96, 106)
"""Where dlib's detector sees the face in an ArcFace-aligned 112×112 crop: medians over 246 real faces (10-90 %: ±8 px)."""

PITCH_ZERO_DEG = -1.2
"""Turn of the generic head about the ear axis that gives the median training face pitch 0."""

HEAD_MM = {
    8: (0, 114, -4),
    27: (0, 2, 0), 30: (0, 42, 22), 31: (-13, 50, 3), 33: (0, 53, 10), 35: (13, 50, 3),
    36: (-45, 6, -24), 39: (-17, 8, -11), 42: (17, 8, -11), 45: (45, 6, -24),
    48: (-26, 74, -6), 51: (0, 67, 10), 54: (26, 74, -6), 57: (0, 83, 8),
}  # fmt: skip
"""Generic head: index of dlib's landmark → (right, down, towards the camera) in mm from the bridge of the nose.

Rounded adult means of classical anthropometry (outer eye corners 90 mm apart, inner 34, mouth 52, nose 53 high and 22 deep, bridge to chin
114). The jaw line is left out: dlib follows the visible contour there, which is another place on the head at every yaw.
"""

_ENLARGE = 2
"""dlib rounds landmarks to whole pixels; on the doubled crop that is half a pixel."""


@ATTRIBUTE_PREDICTORS.register("pose")
class PosePredictor:
    """Yaw, pitch and roll of aligned faces in degrees; see `AttributePredictor`.

    Yaw is positive when the face looks to the right, pitch when it looks up, roll when it is tilted clockwise (an aligned face is nearly
    upright by construction). One head serves all people and smiles move the mouth's corners: good for a condition, not for measuring. A face and
    its mirror image differ by 0.8° of yaw and pitch and 0.4° of roll (means over 220 real faces).
    """

    names = ("yaw_deg", "pitch_deg", "roll_deg")

    def __call__(self, image_NHWC: np.ndarray) -> np.ndarray:
        check("image_NHWC", image_NHWC, "N 112 112 3")
        if not len(image_NHWC):
            return np.empty((0, 3), np.float32)
        landmark_NP2 = np.stack([aligned_landmarks(image_HWC) for image_HWC in track(image_NHWC, "head pose")])
        return pose_degrees(landmark_NP2[:, list(HEAD_MM)], generic_head())


def predict_attributes(predictors: Sequence[AttributePredictor], image_NHWC: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the wanted attributes of faces, (N, len(names)) float32; NaN where no predictor knows one. The first that knows it counts."""
    found_NA = np.full((len(image_NHWC), len(names)), np.nan, np.float32)
    for predictor in reversed(predictors):
        wanted = [name for name in predictor.names if name in names]
        if wanted:
            value_NA = predictor(image_NHWC)
            found_NA[:, [names.index(name) for name in wanted]] = value_NA[:, [predictor.names.index(name) for name in wanted]]
    return found_NA


def aligned_landmarks(image_HWC: np.ndarray) -> np.ndarray:
    """Return dlib's 68 points of an aligned face, uint8 (112, 112, 3), in its pixels, (68, 2) float64."""
    side = _ENLARGE * image_HWC.shape[0]
    large_HWC = np.asarray(Image.fromarray(image_HWC).resize((side, side), Image.Resampling.BILINEAR))
    point_68 = predict_68(large_HWC, tuple(_ENLARGE * edge for edge in FACE_BOX_PX))
    return (point_68 + 0.5) / _ENLARGE - 0.5


def generic_head(pitch_zero_deg: float | None = None) -> np.ndarray:
    """Return the generic head's landmarks, (P, 3) in mm, in the order of `HEAD_MM`."""
    tilt = rotation(0.0, PITCH_ZERO_DEG if pitch_zero_deg is None else pitch_zero_deg, 0.0)
    return np.array(list(HEAD_MM.values()), np.float64) @ tilt.T


def pose_degrees(landmark_NP2: np.ndarray, head_P3: np.ndarray) -> np.ndarray:
    """Return (yaw, pitch, roll) in degrees, (N, 3) float32, of landmarks seen under weak perspective.

    Args:
        landmark_NP2: x to the right, y down, in any unit.
        head_P3: the same points on a head, x right, y down, z towards the camera.
    """
    check("landmark_NP2", landmark_NP2, f"N {len(head_P3)} 2")
    return angles(weak_perspective(landmark_NP2.astype(np.float64), head_P3)[0]).astype(np.float32)
