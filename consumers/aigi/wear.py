"""What happens to pictures on their way: JPEG, blur, resizing; the same for real and fake, drawn from a generator. Axes: B images, H W C."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter
from pydantic import Field

from ...core.config import Config
from ...core.images import decode

WearName = Literal["jpeg", "blur", "resize"]


class WearConfig(Config):
    """Chance and range of each; none = the picture as it is.

    Attributes:
        chance: of each kind, apart from the others.
        jpeg: lowest and highest quality.
        blur: smallest and largest standard deviation of a Gaussian, pixels.
        resize: smallest and largest factor of a way down and up again (bicubic).
        flip: chance of a mirror image.
    """

    chance: float = Field(0.3, ge=0, le=1)
    jpeg: tuple[int, int] = (50, 98)
    blur: tuple[float, float] = (0.2, 1.2)
    resize: tuple[float, float] = (0.5, 1.0)
    flip: float = Field(0.5, ge=0, le=1)


def jpeg(image_HWC: np.ndarray, quality: int, *, subsampling: int = 2) -> np.ndarray:
    """A picture after JPEG; subsampling as Pillow counts it (2 = 4:2:0, 0 = 4:4:4)."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return decode(buffer.getvalue())


def worn(image_HWC: np.ndarray, kind: WearName, strength: float) -> np.ndarray:
    """One kind at a given strength: quality, pixels of blur, or factor of size."""
    if kind == "jpeg":
        return jpeg(image_HWC, round(strength))
    picture = Image.fromarray(image_HWC)
    if kind == "blur":
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(strength)))
    small = picture.resize(tuple(max(1, round(side * strength)) for side in picture.size), Image.Resampling.BICUBIC)
    return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC))


def wear(image_BHWC: np.ndarray, config: WearConfig, rng: np.random.Generator) -> np.ndarray:
    """Return worn copies of uint8 pictures: mirror, resize, blur, JPEG, each by its chance."""
    out_BHWC = np.empty_like(image_BHWC)
    ranges = {"resize": config.resize, "blur": config.blur, "jpeg": config.jpeg}
    for row, image_HWC in enumerate(image_BHWC):
        image_HWC = image_HWC[:, ::-1] if rng.random() < config.flip else image_HWC
        for kind, (low, high) in ranges.items():
            chosen, strength = rng.random() < config.chance, rng.uniform(low, high)
            image_HWC = worn(np.ascontiguousarray(image_HWC), kind, strength) if chosen else image_HWC
        out_BHWC[row] = image_HWC
    return out_BHWC
