"""Eyes to learn and to be tested on: rendered ones with exact labels, and folders of photographs with masks.

Axes: N pictures, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...core.errors import UserError
from ...core.progress import track
from ...core.seeds import derive_seed
from ...identity.entries import IMAGE_SUFFIXES
from ...styles_3dmm.eyes import Look, render_eyes
from .frame import Frame


@dataclass(frozen=True, kw_only=True, eq=False)
class Eyes:
    """Grey pictures with labels.

    Attributes:
        grey_NHW: uint8.
        label_NHW: uint8, 0 background, 1 sclera, 2 iris, 3 pupil.
        gaze_N2: yaw and pitch in degrees, NaN where unknown.
        names: one a picture.
    """

    grey_NHW: np.ndarray
    label_NHW: np.ndarray
    gaze_N2: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.grey_NHW)

    def rows(self, index_N: np.ndarray) -> Eyes:
        """Return some of them."""
        names = tuple(self.names[row] for row in np.arange(len(self))[index_N])
        return Eyes(grey_NHW=self.grey_NHW[index_N], label_NHW=self.label_NHW[index_N], gaze_N2=self.gaze_N2[index_N], names=names)

    def like(self, patterns: Sequence[str]) -> np.ndarray:
        """Return which have a name (without folder and suffix) that fits one of the patterns, bool (N,)."""
        return np.array([any(fnmatch(Path(name).stem, pattern) for pattern in patterns) for name in self.names], bool)

    def without(self, patterns: Sequence[str]) -> Eyes:
        """Return those whose name fits none of the patterns."""
        return self.rows(~self.like(patterns)) if patterns else self


def grey(image_BHWC: np.ndarray) -> np.ndarray:
    """Return the luminance of uint8 RGB, (B, H, W, 3) → uint8 (B, H, W), by the weights of ITU-R BT.601."""
    return np.round(image_BHWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)


def rendered_eyes(count: int, seed: int, *, size_px: tuple[int, int], look: Look = "mixed", augment: bool = True) -> Eyes:
    """Draw eyes; eye number k depends on (seed, k) and the settings alone."""
    seeds = [derive_seed(seed, number, "eye") for number in range(count)]
    parts = [render_eyes([one], size_px=size_px, look=look, augment=augment) for one in track(seeds, "rendering eyes")]
    return Eyes(
        grey_NHW=np.concatenate([grey(part.image_BHWC) for part in parts]), label_NHW=np.concatenate([part.label_BHW for part in parts]),
        gaze_N2=np.concatenate([part.gaze_deg_B2 for part in parts]).astype(np.float32), names=tuple(f"rendered/{number:06d}" for number in range(count)),
    )  # fmt: skip


def eyes_in(folder: Path, *, size_px: tuple[int, int]) -> Eyes:
    """Read photographs with masks, `images/NAME.*` and `masks/NAME.png` (a class a pixel), each laid into one frame (`Frame`).

    Raises:
        UserError: no pictures, a mask missing or of another size, or labels past 3.
    """
    paths = sorted(path for path in (folder / "images").rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"{folder / 'images'} holds no pictures; expected images/NAME.jpg and masks/NAME.png")
    pictures, labels = [], []
    for path in track(paths, f"reading {folder.name}"):
        with Image.open(path) as picture:
            grey_HW = np.asarray(picture.convert("L"))
        frame = Frame(grey_HW.shape, size_px)
        label_HW = _mask(folder / "masks" / f"{path.stem}.png", grey_HW.shape)
        pictures.append(frame.put(torch.from_numpy(grey_HW.copy())[None, None].float()).round().to(torch.uint8)[0, 0].numpy())
        labels.append(frame.put_labels(torch.from_numpy(label_HW)[None])[0].numpy())
    names = tuple(f"photos/{path.relative_to(folder / 'images').as_posix()}" for path in paths)
    return Eyes(grey_NHW=np.stack(pictures), label_NHW=np.stack(labels), gaze_N2=np.full((len(paths), 2), np.nan, np.float32), names=names)


def _mask(path: Path, size_px: tuple[int, int]) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"{path} is missing: every picture in images/ needs a mask of its name, 0 background, 1 sclera, 2 iris, 3 pupil")
    with Image.open(path) as mask:
        values_HW = np.array(mask if mask.mode in ("L", "P") else mask.convert("L"), np.uint8)
    if values_HW.shape != size_px:
        raise UserError(f"{path} is {values_HW.shape[0]}x{values_HW.shape[1]}, its picture {size_px[0]}x{size_px[1]} (height x width); they must be the same")
    if values_HW.max() > 3:
        raise UserError(f"{path} holds the value {values_HW.max()}; expected classes 0 background, 1 sclera, 2 iris, 3 pupil")
    return values_HW
