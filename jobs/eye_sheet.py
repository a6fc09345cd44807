"""The picture of `eyeseg predict`: each eye, its parts in colour, and the heat of its uncertainty, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from .eyes import SeenEye

CELL_PX = (120, 160)
GAP_PX, EYES_A_ROW, PAPER = 4, 2, 246

COLOURS = np.array([(0, 0, 0), (90, 200, 255), (60, 200, 90), (255, 80, 60)], np.float32)
"""Of sclera, iris, pupil; the background is left as it is."""

HEAT_MOST = 0.5
"""Uncertainty shown brightest; its square root is shown, for most pixels are sure."""


def eye_sheet(eyes: Sequence[SeenEye]) -> np.ndarray:
    """Return the sheet, uint8 (H, W, 3); uncertainty and gaze stand on each eye."""
    height, width = CELL_PX
    columns = min(EYES_A_ROW, len(eyes))
    rows = -(-len(eyes) // columns)
    paper = Image.new("RGB", (columns * (3 * width + 2 * GAP_PX) + GAP_PX, rows * (height + GAP_PX) + GAP_PX), (PAPER,) * 3)
    for number, eye in enumerate(eyes):
        row, column = divmod(number, columns)
        top, left = GAP_PX + row * (height + GAP_PX), GAP_PX + column * (3 * width + 2 * GAP_PX)
        for place, cell in enumerate((np.repeat(eye.grey_HW[..., None], 3, 2), overlay(eye.grey_HW, eye.label_HW), heat(eye.unsure_HW))):
            paper.paste(_cell(cell), (left + place * width, top))
        gaze = "no gaze" if eye.gaze_2 is None else f"{eye.gaze_2[0]:+.0f} {eye.gaze_2[1]:+.0f} deg"
        _stamp(paper, (left + 2 * width, top), f"u {eye.uncertainty:.3f}")
        _stamp(paper, (left + width, top), gaze)
    return np.asarray(paper)


def overlay(grey_HW: np.ndarray, label_HW: np.ndarray) -> np.ndarray:
    """The grey eye, its parts tinted, uint8 (H, W, 3)."""
    is_eye_HW1 = (label_HW > 0)[..., None]
    return np.where(is_eye_HW1, 0.55 * grey_HW[..., None] + 0.45 * COLOURS[label_HW], grey_HW[..., None]).astype(np.uint8)


def heat(unsure_HW: np.ndarray) -> np.ndarray:
    """Uncertainty from black (0) to bright (`HEAT_MOST` and more), uint8 (H, W, 3)."""
    from matplotlib import colormaps

    return np.round(255 * colormaps["inferno"](np.sqrt(np.clip(unsure_HW / HEAT_MOST, 0, 1)))[..., :3]).astype(np.uint8)


def _cell(image_HWC: np.ndarray) -> Image.Image:
    """The picture within a cell, unstretched."""
    height, width = image_HWC.shape[:2]
    scale = min(CELL_PX[0] / height, CELL_PX[1] / width)
    cell = Image.new("RGB", CELL_PX[::-1], (PAPER,) * 3)
    small = Image.fromarray(image_HWC).resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR)
    cell.paste(small, ((CELL_PX[1] - small.width) // 2, (CELL_PX[0] - small.height) // 2))
    return cell


def _stamp(paper: Image.Image, place: tuple[int, int], text: str) -> None:
    draw = ImageDraw.Draw(paper)
    draw.rectangle((*place, place[0] + 6 * len(text) + 4, place[1] + 12), fill=(0, 0, 0))
    draw.text((place[0] + 2, place[1]), text, fill=(255, 255, 255))
