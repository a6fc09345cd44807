"""A sheet of faces with words: column heads, a label before each row, captions and bars below each face; written as JPEG or PNG.

The plain sheet without words is `contact_sheet`. Sizes are pixels; a face is shown at its own 112x112.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..core.errors import UserError
from ..core.files import write_bytes
from ..core.images import encode_jpeg, encode_png
from .charts import AMBER, BLUE, INK
from .contact_sheet import GAP_PX, PAPER, SIDE_PX

DARK, RED = "#30343b", "#dc2626"
TEXT_PX, LINE_PX, BAR_PX, QUALITY = 13, 16, 7, 85

__all__ = ["AMBER", "BLUE", "INK", "RED", "Bar", "Row", "Tile", "captioned", "write_picture"]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A horizontal bar below a face, as long as `value` (0 to 1) of its width; with `tick` a mark at that share."""

    value: float
    colour: str
    tick: float | None = None


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One face: uint8 (112, 112, 3), or None for an empty place; lines of text and bars below it, and a frame where a colour is given.

    Attributes:
        cross: (x, y) in the face to mark with a cross.
    """

    image_HWC: np.ndarray | None
    caption: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    frame: str | None = None
    cross: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tiles in a row.

    Attributes:
        label: lines before them.
        space: blank pixels above.
        title: a line above them, over the whole width.
        border: the tile before which a vertical line stands, None for none.
    """

    tiles: tuple[Tile, ...]
    label: tuple[str, ...] = ()
    space: int = 0
    title: str = ""
    border: int | None = None


def captioned(rows: Sequence[Row], head: Sequence[str] = ()) -> np.ndarray:
    """Lay rows out on light paper; returns uint8 (H, W, 3).

    Args:
        head: words above the columns.
    """
    left = _label_px(rows)
    columns = max(len(row.tiles) for row in rows)
    top = GAP_PX + (LINE_PX + 2 if head else 0)
    paper = Image.new("RGB", (left + columns * (SIDE_PX + GAP_PX) + GAP_PX, top + sum(map(_height, rows)) + GAP_PX), (PAPER,) * 3)
    draw = ImageDraw.Draw(paper)
    for column, text in enumerate(head):
        _centred(draw, left + column * (SIDE_PX + GAP_PX) + SIDE_PX / 2, GAP_PX, text)
    for row in rows:
        top += row.space
        if row.title:
            draw.text((left, top + 1), row.title, fill=DARK, font=_font())
            top += LINE_PX + 3
        middle = top + (SIDE_PX - LINE_PX * len(row.label)) / 2
        for number, text in enumerate(row.label):
            draw.text((GAP_PX, middle + number * LINE_PX), text, fill=DARK, font=_font())
        for column, tile in enumerate(row.tiles):
            _place(paper, draw, left + column * (SIDE_PX + GAP_PX), top, tile)
        if row.border is not None:
            x = left + row.border * (SIDE_PX + GAP_PX) - GAP_PX // 2 - 1
            draw.line((x, top - 2, x, top + SIDE_PX + 1), fill=RED, width=3)
        top += _height(row) - row.space - (LINE_PX + 3 if row.title else 0)
    return np.asarray(paper)


def write_picture(out: Path, image_HWC: np.ndarray) -> Path:
    """Write a picture as the name says, .jpg (quality 85, full chroma) or .png, and return the path.

    Raises:
        UserError: another ending.
    """
    if out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"--out {out}: expected a name that ends in .jpg or .png")
    write_bytes(out, encode_png(image_HWC) if out.suffix.lower() == ".png" else encode_jpeg(image_HWC, QUALITY))
    return out


def _place(paper: Image.Image, draw: Any, left: int, top: int, tile: Tile) -> None:
    if tile.image_HWC is not None:
        paper.paste(Image.fromarray(tile.image_HWC), (left, top))
    if tile.frame:
        draw.rectangle((left - 2, top - 2, left + SIDE_PX + 1, top + SIDE_PX + 1), outline=tile.frame, width=2)
    if tile.cross:
        x, y = left + tile.cross[0], top + tile.cross[1]
        for width, colour in ((4, "black"), (2, "white")):
            draw.line((x - 5, y, x + 5, y), fill=colour, width=width)
            draw.line((x, y - 5, x, y + 5), fill=colour, width=width)
    below = top + SIDE_PX + 3
    for bar in tile.bars:
        draw.rectangle((left, below, left + SIDE_PX - 1, below + BAR_PX - 3), fill="#e2e3e6")
        length = round(min(max(bar.value, 0.0), 1.0) * (SIDE_PX - 1))
        if length:
            draw.rectangle((left, below, left + length, below + BAR_PX - 3), fill=bar.colour)
        if bar.tick is not None:
            x = left + round(bar.tick * (SIDE_PX - 1))
            draw.line((x, below - 1, x, below + BAR_PX - 2), fill=DARK, width=1)
        below += BAR_PX
    for number, text in enumerate(tile.caption):
        _centred(draw, left + SIDE_PX / 2, below + number * LINE_PX - 2, text)


def _height(row: Row) -> int:
    words = max(len(tile.caption) for tile in row.tiles) * LINE_PX
    bars = max(len(tile.bars) for tile in row.tiles) * BAR_PX
    return row.space + (LINE_PX + 3 if row.title else 0) + SIDE_PX + GAP_PX + (words + bars + 2 if words or bars else 0)


def _label_px(rows: Sequence[Row]) -> int:
    longest = max((_font().getlength(text) for row in rows for text in row.label), default=0.0)
    return round(longest) + 3 * GAP_PX if longest else GAP_PX


def _centred(draw: Any, x: float, y: float, text: str) -> None:
    draw.text((x - _font().getlength(text) / 2, y), text, fill=DARK, font=_font())


@functools.cache
def _font() -> Any:
    """matplotlib's own DejaVu Sans: the same glyphs on every machine."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT_PX)
