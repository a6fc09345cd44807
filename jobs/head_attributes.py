"""Pose, expression and light of faces by the fit of the 3D head: what an inspection's coverage rests on."""

from __future__ import annotations

import numpy as np

from ..core.check import check
from ..core.progress import track
from ..quality.coverage import FITTED_RANGES
from ..recognition.pose import aligned_landmarks
from ..styles_3dmm.codes import fit_codes
from ..styles_3dmm.head_file import default_head
from ..styles_3dmm.light import LAMBERT_9

_LUMA = np.array([0.2126, 0.7152, 0.0722])


class HeadPredictor:
    """Attributes of aligned faces from a fit to 68 landmarks and the skin's shading; see `AttributePredictor`.

    yaw_deg, pitch_deg, roll_deg: of the head. jaw_open, smile, brow_raise: face units of the bundled head in [0, 1] (two-sided ones as the mean of both
    sides). light_right, light_above: how much brighter the skin is that faces the viewer's right, or up, than skin that faces neither, as a share of the mean:
    first-order over zeroth-order shading. Landmarks of a 112 px face settle the mouth to about a tenth of a unit; NaN where the fit follows no face.
    """

    names = tuple(FITTED_RANGES)

    def __call__(self, image_NHWC: np.ndarray) -> np.ndarray:
        """uint8 RGB, (N, 112, 112, 3) → float32 (N, 8)."""
        check("image_NHWC", image_NHWC, "N 112 112 3")
        if not len(image_NHWC):
            return np.empty((0, len(self.names)), np.float32)
        landmark_N682 = np.stack([aligned_landmarks(image_HWC) for image_HWC in track(image_NHWC, "landmarks")])
        codes = fit_codes(default_head(), image_NHWC, landmark_N682)
        layout, code_NP = codes.layout, codes.code_NP

        def column(name: str) -> np.ndarray:
            return code_NP[:, layout.column(name)]

        luma_N9 = code_NP[:, layout.slices["light"]].reshape(-1, 9, 3) @ _LUMA * LAMBERT_9
        first = luma_N9[:, 1:3] / np.maximum(luma_N9[:, :1], 1e-3)
        columns = [
            *(column(name) for name in ("yaw_deg", "pitch_deg", "roll_deg")), column("expr_jawOpen"),
            (column("expr_mouthSmileLeft") + column("expr_mouthSmileRight")) / 2, column("expr_browInnerUp"), first[:, 0], -first[:, 1],
        ]  # fmt: skip
        return np.stack(columns, axis=1).astype(np.float32)
