"""Image files good and bad."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from facefoundry.core.errors import UserError
from facefoundry.core.images import decode, encode_jpeg, encode_png, to_float, to_uint8


def picture(mode: str, array: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    source = Image.frombytes("CMYK", array.shape[1::-1], array.tobytes()) if mode == "CMYK" else Image.fromarray(array)
    source.save(buffer, form)
    return buffer.getvalue()


def test_every_byte_value_survives_the_way_to_float_and_back():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    values = to_float(image)
    assert values.min() == -1 and values.max() == 1 and values.dtype == torch.float32
    assert np.array_equal(to_uint8(values), image)


def test_to_float_refuses_other_types():
    with pytest.raises(ValueError, match="float32, expected uint8"):
        to_float(np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"shape \(1, 3, 4, 4\), expected \(B H W 3\)"):
        to_float(np.zeros((1, 3, 4, 4), np.uint8))


def test_png_is_lossless_and_jpeg_close():
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(decode(encode_png(image)), image)
    smooth = np.linspace(0, 255, 112 * 112 * 3).reshape(112, 112, 3).astype(np.uint8)
    assert np.abs(decode(encode_jpeg(smooth, 95)).astype(int) - smooth).mean() < 2


def test_grey_rgba_cmyk_and_16_bit_become_rgb():
    grey = np.full((5, 4), 77, np.uint8)
    assert np.array_equal(decode(picture("L", grey)), np.full((5, 4, 3), 77))
    rgba = np.dstack([np.full((5, 4, 3), 200, np.uint8), np.zeros((5, 4), np.uint8)])
    assert decode(picture("RGBA", rgba)).max() == 0  # transparent over black
    cmyk = np.zeros((16, 16, 4), np.uint8)
    assert decode(picture("CMYK", cmyk, "JPEG")).min() > 250
    wide = np.full((5, 4), 51400, np.uint16)  # 200 of 255 in 16 bits
    assert np.array_equal(decode(picture("I;16", wide)), np.full((5, 4, 3), 200))


def test_empty_truncated_foreign_and_bomb_are_refused():
    whole = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="empty"):
        decode(b"")
    with pytest.raises(UserError, match="damaged or truncated"):
        decode(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not an image"):
        decode(b"MZ this is a program")
    for side in (60_000, 8_000):  # above Pillow's own limit, and above ours alone
        with pytest.raises(UserError, match="too large|more than the limit"):
            decode(png_header_only(side))


def png_header_only(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")

