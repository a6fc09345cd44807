"""Random scale augmentation: faces shrunk to a random size and enlarged again, as a camera far away would have seen them.

Source: FAN (Yin et al., ACCV 2020, arXiv 1911.11680) says that random scales beat fixed ones; the distribution is a reconstruction (recognition.md §5.2). What
`augment` calls `lowres` draws its resampling at random too; here it is stated: area down, bicubic up.
Axes: B images, C H W.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from ..core.config import Config
from .resize import resized


class ScaleConfig(Config):
    """How faces are shrunk.

    Attributes:
        least: smallest ratio of the sides; 0.1 is 11 of 112 pixels.
        keep: probability of leaving a face as it is.
        fixed: draw among these ratios in place of all between `least` and 1 (the baseline the publication compares with).
        up: how faces are enlarged again.
    """

    least: float = Field(0.1, gt=0, le=1)
    keep: float = Field(0.2, ge=0, le=1)
    fixed: tuple[float, ...] = ()
    up: Literal["bicubic", "bilinear"] = "bicubic"

    def draw(self, count: int, generator: Generator | None = None) -> Tensor:
        """Return a ratio for each image, (count,); from torch's generator where none is given."""
        if self.fixed:
            ratio_B = torch.tensor(self.fixed)[torch.randint(len(self.fixed), (count,), generator=generator)]
        else:
            ratio_B = self.least + (1 - self.least) * torch.rand(count, generator=generator)
        return torch.where(torch.rand(count, generator=generator) < self.keep, 1.0, ratio_B)

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """Return the images at random scales, enlarged again; ratios come from torch's generator."""
        return rescale(image_BCHW, self.draw(len(image_BCHW)), up=self.up)


def rescale(image_BCHW: Tensor, ratio_B: Tensor, *, up: Literal["bicubic", "bilinear"] = "bicubic") -> Tensor:
    """Return each image shrunk to `ratio` of its sides (rounded to whole pixels) by area and enlarged to the old size, in [-1, 1].

    A ratio that rounds to the full size gives the image itself, to the bit.
    """
    height, width = image_BCHW.shape[2:]
    rows, columns = ((side * ratio_B.double()).round().clamp(min=1, max=side).int().tolist() for side in (height, width))
    changed_BCHW = image_BCHW.clone()
    for size in set(zip(rows, columns)) - {(height, width)}:
        chosen = torch.tensor([n for n, found in enumerate(zip(rows, columns)) if found == size], device=image_BCHW.device)
        changed_BCHW[chosen] = enlarge(resized(image_BCHW[chosen], size, "area"), (height, width), up=up)
    return changed_BCHW


def enlarge(image_BCHW: Tensor, size: tuple[int, int], *, up: Literal["bicubic", "bilinear"] = "bicubic") -> Tensor:
    """Resample images to `size` with half-pixel centres; bicubic overshoots at edges, hence the clamp to [-1, 1]."""
    found = resized(image_BCHW, size, up)
    return found.clamp(-1.0, 1.0) if up == "bicubic" else found
