"""Images: float32 RGB in [-1, 1], BCHW in memory; uint8 RGB on disk. Two functions convert, nobody else."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .check import check
from .errors import UserError

MAX_PIXELS = 50_000_000
"""Larger files are refused before they are decoded (decompression bombs)."""


def to_float(image_BHWC: np.ndarray) -> Tensor:
    """uint8 RGB, (B, H, W, 3) → float32 in [-1, 1], (B, 3, H, W)."""
    check("image_BHWC", image_BHWC, "B H W 3")
    if image_BHWC.dtype != np.uint8:
        raise ValueError(f"image_BHWC is {image_BHWC.dtype}, expected uint8")
    image_BCHW = torch.from_numpy(np.ascontiguousarray(image_BHWC.transpose(0, 3, 1, 2)))
    return image_BCHW.float().div_(127.5).sub_(1.0)


def to_uint8(image_BCHW: Tensor) -> np.ndarray:
    """float RGB in [-1, 1] (clamped), (B, 3, H, W) → uint8, (B, H, W, 3); rounds to nearest, inverse of `to_float`."""
    check("image_BCHW", image_BCHW, "B 3 H W")
    scaled = image_BCHW.detach().float().clamp(-1.0, 1.0).add(1.0).mul_(127.5).round_()
    return np.ascontiguousarray(scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file to uint8 RGB, (H, W, 3).

    Grey, palette, RGBA (over black), CMYK and 16-bit images become 8-bit RGB; EXIF rotation is applied.

    Raises:
        UserError: empty, truncated, not an image, or more than `max_pixels`.
    """
    if not data:
        raise UserError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            if picture.width * picture.height > max_pixels:
                raise UserError(f"the image has {picture.width}x{picture.height} pixels, more than the limit of {max_pixels}")
            picture.load()
            return np.asarray(_to_rgb(ImageOps.exif_transpose(picture)))
    except UnidentifiedImageError as error:
        raise UserError("not an image file that can be read (expected PNG, JPEG, WebP, BMP or TIFF)") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"the image is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"the image is damaged or truncated ({error})") from error


def decode_file(path: Path) -> np.ndarray:
    """`decode` of a file; messages name the file."""
    try:
        return decode(path.read_bytes())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def encode_png(image_HWC: np.ndarray) -> bytes:
    """Encode uint8 RGB, (H, W, 3), as a lossless PNG; the same pixels always give the same bytes."""
    check("image_HWC", image_HWC, "H W 3")
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def encode_jpeg(image_HWC: np.ndarray, quality: int) -> bytes:
    """Encode uint8 RGB, (H, W, 3), as a JPEG with full chroma (4:4:4)."""
    check("image_HWC", image_HWC, "H W 3")
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_labels(label_HW: np.ndarray) -> bytes:
    """Encode labels, uint8 (H, W), as a lossless PNG of one channel."""
    check("label_HW", label_HW, "H W")
    buffer = io.BytesIO()
    Image.fromarray(label_HW, "L").save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode_labels(data: bytes) -> np.ndarray:
    """Return the labels that `encode_labels` encoded, uint8 (H, W).

    Raises:
        UserError: not an image of one 8-bit channel.
    """
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"the label image cannot be read ({error})") from error
    if picture.mode not in ("L", "P"):
        raise UserError(f"the label image has mode {picture.mode}, expected one channel of 8 bits (labels, no colours)")
    return np.asarray(picture)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        wide = np.asarray(picture).astype(np.uint32)
        # 16-bit samples are scaled, not clipped: Pillow's own conversion would saturate at 255.
        return Image.fromarray((np.clip(wide, 0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    return picture.convert("RGB")
