"""Styles of our own morphable head: drawn from the style prior, rendered by `styles_3dmm`.

Axes: B images, P numbers of a style code, V vertices, S side of the maps.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.face_style import FaceStyle
from ..styles_3dmm.camera import arcface_camera
from ..styles_3dmm.morphable import MorphableHead
from ..styles_3dmm.style import CAMERA, StyleLayout
from ..styles_3dmm.style_maps import render_style
from ..styles_3dmm.style_prior import StylePrior, Subject
from .style_encoder import StyleEncoderConfig
from .style_source import DrawnStyles, image_rng, subject_rng


class HeadMaps:
    """`StyleMaps` of a head's codes, as an encoder wants them.

    Attributes:
        fingerprint: of head, layout, size and whose shape and skin are shown.
        mean_person: see `StyleEncoderConfig`.
    """

    def __init__(self, head: MorphableHead, layout: StyleLayout, encoder: StyleEncoderConfig) -> None:
        self.head, self.layout, self.size_px, self.mean_person = head, layout, encoder.size_px, encoder.mean_person
        shown = "mean person, framed, no shape" if encoder.mean_person else "own shape, own camera"
        digest = hashlib.sha256(f"{layout.to_json()} {encoder.size_px} {shown}".encode())
        for array in (head.mean_V3, head.identity_KV3, head.expression_EV3, head.triangle_T3, head.part_T):
            digest.update(np.ascontiguousarray(array).data)
        self.fingerprint = f"{head.name} {digest.hexdigest()[:16]}"

    @classmethod
    def of_default_head(cls, layout: StyleLayout, encoder: StyleEncoderConfig) -> HeadMaps:
        """Return the maps of the bundled head."""
        from ..styles_3dmm.head_file import default_head

        return cls(default_head(), layout, encoder)

    def __call__(self, code_BP: np.ndarray) -> np.ndarray:
        """Style codes → (B, 9, S, S) float32 in [-1, 1].

        The mean person is framed anew and without the code's shape: a camera fitted to that shape, or set by it, tells of it.
        """
        code_BP = self.framed(code_BP) if self.mean_person else code_BP
        return render_style(self.head, code_BP, self.layout, self.size_px, mean_person=self.mean_person).clip(-1, 1)

    def framed(self, code_BP: np.ndarray) -> np.ndarray:
        """Return the codes under the camera that frames their heads as aligned faces are; where the mean person is shown, their shape is 0.

        A drawn camera knows nothing of the drawn pose, while alignment nearly decides the camera of a real code by its pose.
        """
        framed_BP = self.layout.clip(code_BP)
        if self.mean_person:
            framed_BP[:, self.layout.slices["shape"]] = 0.0
        block = self.layout.unpack(framed_BP)
        vertices_BV3 = self.head.vertices(block["shape"], block["expr"])
        camera = arcface_camera(self.head, block["pose"][:, :3], vertices_BV3)
        framed_BP[:, [self.layout.column(name) for name in CAMERA]] = np.column_stack([camera.scale_B, camera.shift_B2])
        return framed_BP

    def styles(self, code_BP: np.ndarray) -> tuple[FaceStyle, ...]:
        """Return what a record keeps of codes; a shape that is not shown is none."""
        block = self.layout.unpack(code_BP)
        pick = lambda name, row: tuple(block[name][row].tolist())
        return tuple(
            FaceStyle(pose_deg=pick("pose", row)[:3], expression=pick("expr", row), light=pick("light", row), shape=None if self.mean_person else pick("shape", row))
            for row in range(len(code_BP))
        )


def read_codes(path: Path) -> tuple[np.ndarray, StyleLayout]:
    """Return the style codes in a file, (N, P) float32 (a row of NaN = no fit), and their layout.

    Raises:
        UserError: no such file, or not one of style codes.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            code_NP, layout = held["code_NP"], StyleLayout.from_json(str(held["layout"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read style codes from {path} ({error}); expected an .npz with code_NP and layout") from error
    if code_NP.ndim != 2 or code_NP.shape[1] != len(layout):
        raise UserError(f"{path} holds codes of shape {code_NP.shape}, its layout has {len(layout)} columns; make the codes again")
    return code_NP.astype(np.float32), layout


class PriorStyles:
    """`StyleSource` that draws people's habits and their pictures from a style prior.

    Args:
        subject_agnostic, shared_spread: ablations, see `StylePrior.sample_subject`.
        fixed: values by the names of the layout's columns ("yaw_deg"), the same for every image; the others are drawn.
    """

    def __init__(self, prior: StylePrior, maps: HeadMaps, *, subject_agnostic: bool = False, shared_spread: bool = False, fixed: Mapping[str, float] | None = None) -> None:
        self.prior, self.maps = prior, maps
        self._switches = {"subject_agnostic": subject_agnostic, "shared_spread": shared_spread}
        self._fixed = {prior.layout.column(name): value for name, value in (fixed or {}).items()}

    def draw(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> DrawnStyles:
        """Return the styles of images; row i depends on anchor i and seeds[i] alone."""
        rows = [self._subject(anchor_D).sample_image(image_rng(seed)) for anchor_D, seed in zip(anchor_BD, seeds)]
        for code_1P in rows:
            code_1P[:, list(self._fixed)] = list(self._fixed.values())
        # Framed row by row: a matrix product of another size rounds otherwise, and a style must not depend on what is drawn beside it.
        framed = [self.maps.framed(code_1P) for code_1P in rows]
        return self.of_codes(np.concatenate(framed) if framed else np.empty((0, len(self.prior.layout)), np.float32))

    def of_codes(self, code_BP: np.ndarray) -> DrawnStyles:
        """Return given codes as drawn ones."""
        return DrawnStyles(code_BP=code_BP, styles=self.maps.styles(code_BP))

    def render(self, code_BP: np.ndarray) -> np.ndarray:
        """Return the maps of codes, (B, 9, S, S) float32 in [-1, 1]."""
        return self.maps(code_BP)

    def _subject(self, anchor_D: np.ndarray) -> Subject:
        return self.prior.sample_subject(subject_rng(anchor_D), **self._switches)
