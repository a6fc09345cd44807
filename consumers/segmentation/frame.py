"""A picture of any size laid into the network's frame, and maps brought back: never stretched, the rest filled by repeating the border."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """One size of pictures against one size of frames, (height, width) each, px."""

    picture_px: tuple[int, int]
    frame_px: tuple[int, int]

    @property
    def inner_px(self) -> tuple[int, int]:
        """Size of the picture within the frame: as large as fits."""
        scale = min(frame / picture for frame, picture in zip(self.frame_px, self.picture_px))
        return tuple(max(1, min(frame, round(picture * scale))) for frame, picture in zip(self.frame_px, self.picture_px))

    @property
    def offset_px(self) -> tuple[int, int]:
        """Where the picture's upper left corner lies in the frame, (down, right)."""
        return tuple((frame - inner) // 2 for frame, inner in zip(self.frame_px, self.inner_px))

    def put(self, x_BCHW: Tensor) -> Tensor:
        """Return pictures in the frame, float (B, C, *frame_px); smaller by antialiased bilinear sampling."""
        small = x_BCHW if self.inner_px == tuple(x_BCHW.shape[-2:]) else F.interpolate(x_BCHW, size=self.inner_px, mode="bilinear", align_corners=False, antialias=True)
        return F.pad(small, self._margins, mode="replicate")

    def put_labels(self, label_BHW: Tensor) -> Tensor:
        """Return labels in the frame, of their type, by the nearest pixel; 0 beyond the picture."""
        small_B1HW = F.interpolate(label_BHW[:, None].float(), size=self.inner_px, mode="nearest-exact")
        return F.pad(small_B1HW, self._margins)[:, 0].to(label_BHW.dtype)

    def back(self, x_BCHW: Tensor) -> Tensor:
        """Return maps over the frame as maps over the picture, float (B, C, *picture_px), bilinear."""
        (top, left), (height, width) = self.offset_px, self.inner_px
        inner = x_BCHW[..., top : top + height, left : left + width]
        return inner if self.inner_px == self.picture_px else F.interpolate(inner, size=self.picture_px, mode="bilinear", align_corners=False)

    @property
    def _margins(self) -> tuple[int, int, int, int]:
        (top, left), (height, width) = self.offset_px, self.inner_px
        return left, self.frame_px[1] - width - left, top, self.frame_px[0] - height - top
