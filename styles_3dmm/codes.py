"""Style codes of pictures: fitted in one call, kept in one file.

Axes: N images, P columns of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from ..core.check import check
from ..core.errors import UserError
from ..core.files import write_bytes
from .appearance import fit_appearance
from .fit import FitSettings, fit_landmarks
from .morphable import MorphableHead
from .style import StyleLayout

WORST_PX = 5.0
"""A fit whose inner landmarks lie farther off than this (root mean square, 112 px faces) followed no face: its code is NaN."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleCodes:
    """Codes of pictures.

    Attributes:
        code_NP: float32; a row of NaN = no fit.
        identity_N: who is in each picture, numbers or names.
        residual_N: root mean square error of the inner landmarks, px.
    """

    layout: StyleLayout
    code_NP: np.ndarray
    identity_N: np.ndarray
    residual_N: np.ndarray

    def save(self, path: Path) -> None:
        """Write an .npz. It describes real people's faces where they are real: do not publish it."""
        buffer = BytesIO()
        np.savez(buffer, code_NP=self.code_NP, identity_N=self.identity_N, residual_N=self.residual_N, layout=self.layout.to_json())
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> StyleCodes:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or something else in it.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                layout, code_NP, identity_N, residual_N = StyleLayout.from_json(str(file["layout"])), file["code_NP"], file["identity_N"], file["residual_N"]
            check("code_NP", code_NP, f"N {len(layout)}")
            check("identity_N", identity_N, str(len(code_NP)))
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"cannot read style codes from {path} ({error}); expected what `facefoundry styles fit` writes") from error
        return cls(layout=layout, code_NP=code_NP, identity_N=identity_N, residual_N=residual_N)


def fit_codes(head: MorphableHead, image_NHWC: np.ndarray, landmark_NP2: np.ndarray, identity_N: np.ndarray | None = None, *, settings: FitSettings | None = None) -> StyleCodes:
    """Fit a head, its light and its skin to aligned faces.

    Args:
        image_NHWC: uint8 RGB, (N, 112, 112, 3).
        landmark_NP2: 68 or 5 points in their pixels (`fit.fit_landmarks`).
        identity_N: who is in them; None = everybody another.
    """
    check("image_NHWC", image_NHWC, f"{len(landmark_NP2)} 112 112 3")
    fit, layout = fit_landmarks(head, landmark_NP2, settings), StyleLayout.of(head)
    skin = fit_appearance(head, fit, image_NHWC)
    code_NP = layout.pack(shape=fit.identity_NK, expr=fit.expression_NE, pose=fit.pose_N3, cam=fit.camera_N3, tex=skin.tone_N3, light=skin.light_N93)
    code_NP[fit.residual_N > WORST_PX] = np.nan
    return StyleCodes(layout=layout, code_NP=code_NP, identity_N=np.arange(len(code_NP)) if identity_N is None else np.asarray(identity_N), residual_N=fit.residual_N)
